"""A written command means the request that it was written from, and no option is forgotten."""

import shlex
from dataclasses import fields, replace

import pytest

from labelrank.cli import main, written
from labelrank.data import SourceOptions
from labelrank.steps.extract.request import Request
from labelrank.steps.finetune.request import Design
from labelrank.steps.patch_gallery.request import OF_A_SAMPLE, GalleryRequest, of_samples
from labelrank.steps.patch_training import TrainRequest
from labelrank.steps.rank import RankRequest
from labelrank.ui import address

REQUEST = Request("digits", "mae-tiny-digits")
OF_REQUESTS = {
    "split": "test; rm -rf $HOME",
    "config": "it's one",
    "revision": "main",
    "media_column": "-image",
    "label_column": 'a "label"',
    "archive_encoding": "shift_jis",
    "checkpoint_revision": "abc",
    "max_per_class": 64,
    "seed": 7,
    "pooling": "cls",
    "precision": "float32",
    "batch_size": 3,
    "frames": 16,
    "stride": 2,
    "clips": 4,
    "preprocessing": "reference",
    "image_size": 64,
    "keep": 0.5,
    "patches": "gradient",
    "until_stable": 0.85,
    "either_direction": True,
    "ranking_shrinkage": None,
    "shard": (2, 5),
}
"""Field of a request -> another value than the default."""
OF_DESIGNS = {
    "orders": "ranked,random:3",
    "seeds": 2,
    "depth": "1",
    "head": "reference",
    "meaning": "gaussian",
    "bandwidth": 2.5,
    "unit": "centroids",
    "recipe": "paper",
    "epochs": 3,
    "batch_size": 8,
    "learning_rate": 1e-05,
    "weight_decay": 0.0,
    "dropout": 0.25,
    "label_smoothing": 0.1,
    "head_init_std": 0.0,
    "batches": "buffer:50",
    "flip": False,
    "control": False,
    "seed": 4,
    "val_share": 0.2,
    "test_share": 0.3,
    "target": "geometry",
    "targets": "onehot,geometry,permuted:3",
    "sharpness": 3.0,
    "cost": "geometry",
    "keep": 0.5,
    "patches": "grid",
}
WITH = {
    "either_direction": {"until_stable": 0.85},
    "ranking_shrinkage": {"until_stable": 0.85},
    "keep": {"patches": "gradient"},
    "patches": {"keep": 0.5},
}
"""Field of a request -> what it needs beside it."""
DESIGN_WITH = {
    "bandwidth": {"meaning": "gaussian"},
    "unit": {"meaning": "gaussian"},
    "recipe": {"depth": "all"},
    "flip": {"depth": "all"},
    "targets": {"target": "geometry"},
    "sharpness": {"target": "geometry"},
    "keep": {"patches": "grid", "depth": "all"},
    "patches": {"keep": 0.5, "depth": "all"},
}


def read(line):
    """Return the values of a written command as click reads it, and the names of the options that it gives."""
    _, *words = shlex.split(line)
    command, names = main, []
    while hasattr(command, "commands"):
        names.append(words.pop(0))
        command = command.commands[names[-1]]
    context = command.make_context(names[-1], words)
    given = {name for name in context.params if context.get_parameter_source(name).name == "COMMANDLINE"}
    return context.params, given


def test_the_tables_below_have_every_field():
    assert OF_REQUESTS.keys() == {one.name for one in fields(Request)} - {
        "dataset",
        "checkpoint",
        "allow_empty_classes",
    }
    assert OF_DESIGNS.keys() == {one.name for one in fields(Design)}


@pytest.mark.parametrize("name", OF_REQUESTS)
def test_each_field_of_an_extraction_is_written_and_read_again(name):
    asked = replace(REQUEST, **{**WITH.get(name, {}), name: OF_REQUESTS[name]})
    values, given = read(written.extraction(asked, "out.parquet"))
    assert (values["data"], str(values["out"])) == ("digits", "out.parquet")
    options = {one: values[one] for one in OF_REQUESTS}
    assert Request(values["data"], values["checkpoint"], **options) == asked
    assert given == {"data", "checkpoint", "out", name, *WITH.get(name, {})}


def test_only_what_differs_from_the_defaults_is_written():
    assert written.extraction(REQUEST, "f.parquet") == (
        "labelrank extract digits --checkpoint mae-tiny-digits --out f.parquet"
    )
    assert written.ranking("f.parquet", RankRequest(), "map.json") == "labelrank rank f.parquet --out map.json"
    assert written.comparison("f.parquet", Design(), RankRequest(), test=None, val=None, out="r.json") == (
        "labelrank finetune f.parquet --out r.json"
    )


@pytest.mark.parametrize(
    "asked",
    [
        RankRequest("reference", shrinkage=None),
        RankRequest("spectral"),
        RankRequest(solver="svd", shrinkage="default"),
        RankRequest(shrinkage=0.25),
        RankRequest(shrinkage=None),
    ],
)
def test_a_ranking_is_written_and_read_again(asked):
    values, _ = read(written.ranking("example:cifar100", asked, "map.json"))
    assert RankRequest(*(values[name] for name in ("method", "solver", "shrinkage"))) == asked
    assert (str(values["features"]), str(values["out"])) == ("example:cifar100", "map.json")


@pytest.mark.parametrize("name", OF_DESIGNS)
def test_each_field_of_a_design_is_written_and_read_again(name):
    changes = {**DESIGN_WITH.get(name, {}), name: OF_DESIGNS[name]}
    asked = Design(
        **{**vars(Design.starting(changes.get("depth", "heads"), changes.get("target", "onehot"))), **changes}
    )
    line = written.comparison("f.parquet", asked, RankRequest("path"), test="t.parquet", val=None, out="r.json")
    values, given = read(line)
    chosen = {one: values[one] for one in OF_DESIGNS if values[one] is not None}
    start = Design.starting(chosen.get("depth", "heads"), chosen.get("target", "onehot"))
    assert replace(start, **chosen) == asked
    ranked = {"method"} if not asked.compares_targets else set()
    assert given == {"features", "test", "out", name, *DESIGN_WITH.get(name, {}), *ranked}


def test_a_scoring_of_patches_is_written_and_read_again():
    asked = replace(REQUEST, preprocessing="reference", seed=3, stride=2, split="test", pooling="cls", max_per_class=64)
    values, given = read(written.scoring(asked, GalleryRequest(2, 8, "fast", visible=6), "p.parquet"))
    assert values["checkpoint"] == "mae-tiny-digits"
    told = {"max_per_class": 2, "rounds": 8, "variant": "fast", "visible": 6, "seed": 3, "stride": 2, "split": "test"}
    assert {name: values[name] for name in told} == told
    assert given == {*told, "data", "checkpoint", "out", "preprocessing"}


def test_a_training_of_a_ranker_is_written_and_read_again():
    asked = TrainRequest(
        of_samples(replace(REQUEST, preprocessing="reference", seed=3)), {"epochs": 3, "size": "tiny"}, 40
    )
    values, given = read(written.training(asked, "ranker"))
    told = {"epochs": 3, "size": "tiny", "seed": 3, "held_out": 40, "preprocessing": "reference"}
    assert {name: values[name] for name in told} == told
    assert given == {*told, "data", "checkpoint", "out"}


def test_every_choice_of_a_page_is_an_option_of_its_command():
    page = {
        ("extract",): {row.field for row in address._EXTRACTION.values()} - {"dataset"},
        ("rank",): {row.field for row in address._RANKING.values()},
        ("finetune",): {row.field for part in ("_RANKING", "_DESIGN") for row in getattr(address, part).values()},
        # The ranker is shown beside the scores and changes none.
        ("patches", "train"): {*OF_A_SAMPLE, "seed", "epochs", "size"} - {"dataset"},
        ("patches", "score"): {row.field for row in address._GALLERY.values()} - {"ranker", "per_class"}
        | {one.name for one in fields(SourceOptions)},
    }
    for names, chosen in page.items():
        command = main
        for name in names:
            command = command.commands[name]
        assert chosen <= {option.name for option in command.params}, names


def test_a_value_without_an_option_is_refused():
    with pytest.raises(ValueError, match="labelrank rank has no option for colour"):
        written.written(("rank",), ["f.parquet"], {"colour": "red"})


def test_a_file_that_looks_like_an_option_stays_a_file():
    values, _ = read(written.extraction(replace(REQUEST, dataset="--split.zip"), "f.parquet"))
    assert values["data"] == "./--split.zip"
