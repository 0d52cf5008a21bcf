"""The Python of a script makes the request that it was written from."""

import ast
from dataclasses import replace

import pytest

from labelrank.data import SourceOptions
from labelrank.steps.extract.request import Request
from labelrank.steps.finetune.request import Design
from labelrank.steps.patch_gallery.request import GalleryRequest, of_samples
from labelrank.steps.patch_training import TrainRequest
from labelrank.steps.patches import Scoring
from labelrank.steps.rank import RankRequest
from labelrank.views import scripts

REQUEST = Request(
    'it\'s\n"one"', "mae-tiny-digits", split="test", max_per_class=64, shard=(2, 5), ranking_shrinkage=None
)
LONG = replace(REQUEST, config="a" * 80, revision="main")


@pytest.mark.parametrize(
    "asked",
    [
        REQUEST,
        LONG,
        SourceOptions(),
        RankRequest("spectral", shrinkage=0.25),
        replace(Design.starting("all"), learning_rate=1e-05, flip=False),
        Scoring(visible=6),
        TrainRequest(of_samples(LONG), {"epochs": 3}, held_out=40),
    ],
    ids=lambda asked: type(asked).__name__,
)
def test_a_call_makes_what_it_was_written_from(asked):
    assert eval(scripts.call(asked), {**globals()}) == asked


def test_a_call_has_only_what_differs():
    assert scripts.call(Request("digits", "mae-tiny-digits", seed=3)) == "Request('digits', 'mae-tiny-digits', seed=3)"


def test_each_script_is_python():
    groups = {"cat": "pets", "emu": "birds"}
    for script in (
        scripts.dataset(LONG),
        scripts.extraction(LONG, "f.parquet"),
        scripts.ranking(LONG, RankRequest(), "map.json"),
        scripts.ranking_of_file("it's.parquet", RankRequest("path"), "map.json"),
        scripts.comparison(LONG, Design(), RankRequest(), test_split="val", groups=groups, out="r.json"),
        scripts.scoring(LONG, GalleryRequest(), "p.parquet"),
        scripts.training(TrainRequest(LONG, {"epochs": 3}), "labelrank patches train 'a b'", "ranker"),
    ):
        compile(script, "script", "exec")


@pytest.mark.parametrize(
    "script",
    [
        scripts.extraction(Request("digits", "mae-tiny-digits"), "features.parquet"),
        scripts.ranking(Request("digits", "mae-tiny-digits"), RankRequest(), "map.json"),
        scripts.comparison(
            Request("digits", "mae-tiny-digits"),
            Design(),
            RankRequest(),
            test_split=None,
            groups=None,
            out="report.json",
        ),
        scripts.scoring(Request("digits", "mae-tiny-digits"), GalleryRequest(), "scores.parquet"),
    ],
)
def test_a_script_does_nothing_in_the_processes_that_it_starts(script):
    """They import it anew; whatever it did there would start processes without end."""
    *imports, guard = ast.parse(script).body
    assert all(isinstance(one, ast.Import | ast.ImportFrom) for one in imports)
    assert ast.unparse(guard).startswith("if __name__ == '__main__':\n")
