"""What a comparison works on: features that fit each other, test rows that nothing else has seen."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from labelrank.errors import DatasetError, FinetuneError, RankingError, SettingsError
from labelrank.features.store import KEPT
from labelrank.finetune.end_to_end import _BUILD_S
from labelrank.notices import Notice
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.steps.finetune.inputs import gather, gather_files
from labelrank.steps.finetune.origins import NO_MODEL
from labelrank.steps.finetune.request import Design, Inputs
from labelrank.steps.finetune.run import describe_material, unloadable
from labelrank.steps.rank import RankRequest, rank
from tests.conftest import GOLDEN
from tests.steps.finetune.made import NAMES, made_features, made_map

TRAIN, TEST = made_features(), made_features(8, seed=1, split="test")


def gathered(settings, design=None, ranking=None, **changes):
    inputs = Inputs(**{"train": TRAIN, "label_map": made_map(TRAIN), "test": TEST, **changes})
    return gather_files(inputs, design or Design(), settings, ranking=ranking)


def keys_of(material):
    return [set(part.keys) for part in (material.train, material.val, material.test)]


def test_rows_that_are_missing_are_held_out_and_no_row_is_in_two_parts(settings):
    material = gathered(settings, test=None)
    train, val, test = keys_of(material)
    assert not (train & val or train & test or val & test)
    assert train | val | test == set(TRAIN.keys)
    assert (material.val_from, material.test_from) == ("train", "train")
    assert set(material.test.y) == set(material.val.y) == set(range(5))


def test_the_same_rows_are_held_out_whatever_their_order(settings):
    shuffled = np.random.default_rng(0).permutation(len(TRAIN.y))
    keys = tuple(TRAIN.keys[i] for i in shuffled)
    other = replace(TRAIN, X=TRAIN.X[shuffled], y=TRAIN.y[shuffled], keys=keys)
    assert keys_of(gathered(settings, test=None)) == keys_of(gathered(settings, test=None, train=other))


def test_given_files_are_taken_as_they_are(settings):
    val = made_features(4, seed=2, split="val")
    material = gathered(settings, val=val)
    assert (material.train, material.val, material.test) == (TRAIN, val, TEST)
    assert (material.val_from, material.test_from) == ("file", "file")


def test_without_a_label_map_the_order_comes_from_the_rows_that_are_not_tested_on(settings):
    material = gathered(settings, test=None, label_map=None)
    counts = {ranked.label: ranked.count for ranked in material.label_map.classes}
    held = np.bincount(material.test.y)
    assert counts == {label: 24 - held[label] for label in range(5)}
    assert any("the ranking saw none of them" in notice.text for notice in material.notices)


def test_an_order_that_has_seen_the_test_labels_is_told(settings):
    material = gathered(settings, test=None)
    assert any("has then seen their labels" in notice.text for notice in material.notices)
    material = gathered(settings, label_map=made_map(TEST))
    assert any("made from the test samples" in notice.text for notice in material.notices)
    assert not any("test samples" in notice.text for notice in gathered(settings).notices)


def test_the_doubts_of_a_given_label_map_are_told(settings):
    doubt = Notice("test_split", "This is the test split.")
    material = gathered(settings, label_map=replace(made_map(TRAIN), notices=(doubt,)))
    assert doubt in material.notices
    assert material.label_map.notices == (doubt,)


def test_a_chance_ranking_is_told(settings):
    few = made_features(3, dim=40)
    usual = gathered(settings, train=few, test=None, label_map=None)
    assert not any("may be chance" in notice.text for notice in usual.notices)
    material = gathered(settings, train=few, test=None, label_map=None, ranking=RankRequest(shrinkage=None))
    assert any("may be chance" in notice.text for notice in material.notices)


def test_a_class_without_rows_works_and_is_told(settings):
    without = TEST.y != 3
    test = replace(TEST, X=TEST.X[without], y=TEST.y[without], keys=tuple(np.array(TEST.keys)[without]))
    material = gathered(settings, test=test)
    assert any(notice.text.startswith("No test sample is of class 'dog'") for notice in material.notices)


@pytest.mark.parametrize("part", ["test", "val"])
def test_features_of_other_classes_are_refused_by_name(settings, part):
    other = replace(TEST, class_names=("ant", "bee", "cow", "dog", "elk"))
    with pytest.raises(FinetuneError, match="Class 2 is 'cat' in the features and 'cow' in the"):
        gathered(settings, **{part: other})
    with pytest.raises(FinetuneError, match="5 classes and the .* 4"):
        gathered(settings, **{part: made_features(classes=4, split=part)})


def test_a_label_map_of_other_classes_is_refused(settings):
    with pytest.raises(FinetuneError, match="5 classes and the label map 4"):
        gathered(settings, label_map=made_map(made_features(classes=4)))


def test_features_of_another_encoder_are_refused(settings):
    with pytest.raises(FinetuneError, match="6 dimensions and the test features 7"):
        gathered(settings, test=made_features(dim=7, split="test"))


def test_samples_on_both_sides_are_refused(settings):
    with pytest.raises(FinetuneError, match="120 samples, such as .* --test"):
        gathered(settings, test=TRAIN)
    # Rows of another split may be numbered alike.
    renamed = replace(TEST, keys=TRAIN.keys[: len(TEST.keys)])
    assert gathered(settings, test=renamed).test is renamed


def test_rows_that_are_tested_on_do_not_validate(settings):
    with pytest.raises(FinetuneError, match="40 samples, such as .* in those of --test and in those of --val too"):
        gathered(settings, val=TEST)


def test_one_row_of_each_class_is_too_few_to_hold_any_out(settings):
    with pytest.raises(FinetuneError, match="No sample can be held out"):
        gathered(settings, train=made_features(1), label_map=made_map(TRAIN), test=None)


def test_one_class_cannot_be_ranked(settings):
    with pytest.raises(RankingError):
        gathered(settings, train=made_features(classes=1), test=None, label_map=None)


def test_a_checkpoint_that_cannot_be_found_is_no_reason_not_to_compare(settings):
    inputs = Inputs(TRAIN, made_map(TRAIN), TEST)
    assert gather_files(inputs, Design(), settings).notices == ()
    material = gather_files(inputs, Design(), settings, with_model=True)
    assert material.encoder is None
    (notice,) = material.notices
    assert (
        notice.text
        == "No model can be written: The features do not say which checkpoint they are of. Give --checkpoint."
    )


def test_no_checkpoint_is_joined_to_features_of_an_unknown_encoder(settings):
    """Their vectors may be as long as the checkpoint's and yet be of another one."""
    unknown = replace(TRAIN, provenance={"dataset": {"id": "mine.npz", "columns": ["X", "y"]}, "encoder": "unknown"})
    inputs = Inputs(unknown, made_map(TRAIN), TEST)
    material = gather_files(inputs, Design(), settings, checkpoint="mae-tiny-digits", with_model=True)
    assert material.encoder is None
    assert material.notices[-1].kind == NO_MODEL
    assert "of an unknown encoder" in material.notices[-1].text
    given = {"data": "digits", "checkpoint": "mae-tiny-digits"}
    with pytest.raises(FinetuneError, match="No encoder can be trained.*of an unknown encoder.*leave --depth out"):
        gather_files(inputs, Design(depth="1"), settings, **given)
    with pytest.raises(FinetuneError, match="of an unknown encoder"):
        gather_files(Inputs(TRAIN, made_map(TRAIN), unknown), Design(depth="1"), settings, **given)


def test_another_checkpoint_than_that_of_the_features_is_not_taken_for_it(settings):
    said = {"checkpoint": {"id": "mae-tiny-digits", "digest": "0" * 64}}
    train = replace(TRAIN, provenance={**TRAIN.provenance, **said})
    inputs = Inputs(train, made_map(TRAIN), TEST)
    material = gather_files(inputs, Design(), settings, with_model=True)
    assert "is not what it was when the features were made" in material.notices[-1].text


@pytest.fixture
def elsewhere(settings, tmp_path):
    """Features of a checkpoint in a folder and of a folder of images, as the command line writes them."""
    from labelrank.features.store import LOCAL

    shutil.copytree(GOLDEN / "vit_mae", tmp_path / "models" / "mine")
    for name, colour in (("ant", 0), ("bee", 200)):
        for i in range(10):
            path = tmp_path / "pictures" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (colour, i, 0)).save(path)
    found = plan(Request(str(tmp_path / "pictures"), str(tmp_path / "models" / "mine")), settings)
    assert found.places == {
        "checkpoint": str(tmp_path / "models" / "mine"),
        "dataset": str(tmp_path / "pictures"),
    }
    labels = found.dataset.labels
    X = np.random.default_rng(0).normal(size=(len(labels), 4)).astype(np.float32)
    X[:, 0] += labels
    rows = {"X": X, "y": labels, "keys": tuple(s.key for s in found.dataset.samples)}
    provenance = {**found.provenance, LOCAL: found.places}
    return replace(TRAIN, **rows, class_names=found.dataset.class_names, provenance=provenance)


def test_a_checkpoint_in_a_folder_is_found_from_anywhere(settings, elsewhere, monkeypatch, tmp_path):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    material = gather_files(Inputs(elsewhere), Design(), settings, with_model=True)
    assert material.encoder.checkpoint.folder == tmp_path / "models" / "mine"
    assert not any(notice.kind == NO_MODEL for notice in material.notices)
    trained = gather_files(Inputs(elsewhere), Design(depth="1"), settings)
    assert len(trained.datasets["train"].samples) == len(trained.train.y)


def test_paths_stay_out_of_what_others_see_and_out_of_the_digest(elsewhere, tmp_path):
    provenance = elsewhere.public_provenance
    assert str(tmp_path) not in json.dumps(provenance)
    assert elsewhere.digest == replace(elsewhere, provenance=provenance).digest
    assert str(tmp_path) not in json.dumps(rank(elsewhere).label_map.to_json())


def test_a_checkpoint_that_has_moved_or_changed_is_told_with_the_way_out(settings, elsewhere, tmp_path):
    def why(features):
        material = gather_files(Inputs(features), Design(), settings, with_model=True)
        (notice,) = (notice for notice in material.notices if notice.kind == NO_MODEL)
        assert "--checkpoint" in notice.text
        assert str(tmp_path) not in notice.text
        return notice.text

    other = {**elsewhere.provenance, "checkpoint": {**elsewhere.provenance["checkpoint"], "digest": "0" * 64}}
    assert "The checkpoint mine is not what it was when" in why(replace(elsewhere, provenance=other))
    (tmp_path / "models" / "mine" / "model.safetensors").unlink()
    assert "mine has no model.safetensors" in why(elsewhere)
    shutil.copytree(GOLDEN / "vit_mae", tmp_path / "moved" / "mine")
    shutil.rmtree(tmp_path / "models")
    assert "The checkpoint mine is not where it was when the features were made" in why(elsewhere)
    given = str(tmp_path / "moved" / "mine")
    material = gather_files(Inputs(elsewhere), Design(), settings, checkpoint=given, with_model=True)
    assert material.encoder.checkpoint.folder == tmp_path / "moved" / "mine"
    (tmp_path / "pictures").rename(tmp_path / "photos")
    with pytest.raises(FinetuneError, match="The dataset pictures is not where it was .* with --data"):
        gather_files(Inputs(elsewhere), Design(depth="1"), settings, checkpoint=given)
    assert gather_files(
        Inputs(elsewhere), Design(depth="1"), settings, checkpoint=given, data=str(tmp_path / "photos")
    ).datasets


def test_an_end_to_end_fine_tune_needs_to_know_the_data_and_checkpoint(settings):
    with pytest.raises(FinetuneError, match="Give --checkpoint"):
        gathered(settings, Design(depth="all"))


def prepared_features(settings, **request):
    """Return features whose provenance is that of an extraction, and its plan."""
    found = plan(Request("digits", "mae-tiny-digits", max_per_class=8, **request), settings)
    dataset = found.dataset
    X = np.random.default_rng(0).normal(size=(len(dataset.samples), 4)).astype(np.float32)
    X[:, 0] += dataset.labels
    keys = tuple(sample.key for sample in dataset.samples)
    rows = {"X": X, "y": dataset.labels, "keys": keys, "class_names": dataset.class_names}
    return replace(TRAIN, **rows, provenance=found.provenance), found


def test_an_encoder_learns_from_the_inputs_that_the_features_are_of(settings):
    features, found = prepared_features(settings, pooling="cls", preprocessing="reference", image_size=64, split="val")
    # The precision need not be one of this computer.
    features = replace(features, provenance={**features.provenance, "precision": "float16"})
    material = gathered(settings, Design(depth="1"), train=features, label_map=None, test=None)
    assert material.encoder.preprocessing == found.preprocessing
    assert material.encoder.preprocessing.output_size == (64, 64)
    assert {dataset.split for dataset in material.datasets.values()} == {"val"}


def test_an_encoder_learns_from_the_patches_of_the_features_or_from_those_that_are_asked_for(settings):
    features, found = prepared_features(settings, keep=0.5, patches="gradient")
    alone = {"train": features, "label_map": None, "test": None}
    material = gathered(settings, Design(depth="1"), **alone)
    assert material.encoder.choosing == found.choosing
    (said,) = (notice.text for notice in material.notices if notice.kind == "kept_patches")
    assert said == "Encoders learn from, and are tested on, 32 of 64 patches (50\u00a0%), chosen by gradient energy."
    other = gathered(settings, Design(depth="1", keep=0.25, patches="random", seed=5), **alone).encoder.choosing
    assert (other.keep, other.selector, other.seed) == (16, "random", 5)
    times = [
        describe_material(gathered(settings, Design(depth="1", **asked), **alone), Design(depth="1")).seconds
        for asked in ({}, {"keep": 0.25, "patches": "grid"})
    ]
    built_s = _BUILD_S * describe_material(material, Design(depth="1")).runs  # as long whatever a run sees
    assert times[1] - built_s < 0.6 * (times[0] - built_s)
    with pytest.raises(FinetuneError, match=r"are of 32 of 64 patches .* test features of all patches; expected the"):
        plain = replace(features, provenance={k: v for k, v in features.provenance.items() if k != KEPT})
        gathered(settings, Design(depth="1"), train=features, label_map=None, test=plain)


def test_other_inputs_than_the_features_are_of_are_refused(settings):
    features, _ = prepared_features(settings)
    said = dict(features.provenance)
    said["preprocessing"] = {**said["preprocessing"], "resample": 0}
    with pytest.raises(FinetuneError, match=r"made with another preprocessing .resample=0. than .* Extract again"):
        gathered(settings, Design(depth="1"), train=replace(features, provenance=said), label_map=None, test=None)


@pytest.mark.parametrize(
    ("design", "pooling", "known"),
    [
        (Design(), "mean", True),
        (Design(), "cls", True),
        (Design(meaning="ordinal"), "mean", False),
        (Design(head="reference"), "cls", False),
        (Design(depth="1", meaning="tree"), "mean", False),
        (Design(depth="1"), "mean", True),
    ],
)
def test_it_is_said_before_the_runs_where_transformers_will_not_load_the_model(settings, design, pooling, known):
    features, _ = prepared_features(settings, pooling=pooling)
    inputs = Inputs(features)
    material = gather_files(inputs, design, settings, with_model=True)
    assert (unloadable(material, design) is None) == known


# From names


def params(**changes):
    return {"dataset": "digits", "checkpoint": "mae-tiny-digits", "max_per_class": 8, **changes}


@pytest.fixture
def extracted(monkeypatch):
    """Stands where features are extracted; the requests that came."""
    from labelrank.features.store import write_features
    from labelrank.steps.finetune import inputs

    seen = []

    def obtain(requests, settings, **_):
        paths = []
        for request in requests:
            found = plan(request, settings).dataset
            random = np.random.default_rng(len(seen))
            X = random.normal(size=(len(found.samples), 4)).astype(np.float32)
            X[:, 0] += found.labels
            features = replace(
                TRAIN, X=X, y=found.labels, keys=tuple(s.key for s in found.samples), class_names=found.class_names
            )
            settings.workspace.mkdir(exist_ok=True)
            paths.append(settings.workspace / f"{len(seen)}.parquet")
            write_features(features, paths[-1])
            seen.append(request)
        return paths

    monkeypatch.setattr(inputs, "obtain_elsewhere", obtain)
    return seen


def test_a_job_tests_on_the_test_split_and_ranks_all_training_rows(settings, extracted):
    material = gather(params(until_stable=0.8), Design(), settings)
    assert [request.split for request in extracted] == [None, "test", "val"]
    assert [request.until_stable for request in extracted] == [0.8, None, None]
    assert (material.val_from, material.test_from) == ("split", "split")
    assert sum(ranked.count for ranked in material.label_map.classes) == 80
    assert (len(material.train.y), len(material.val.y), len(material.test.y)) == (80, 80, 80)
    assert material.encoder.checkpoint.id == "mae-tiny-digits"


def test_a_job_that_holds_test_rows_out_ranks_without_them(settings, extracted):
    material = gather(params(test_split="train"), Design(), settings)
    assert [request.split for request in extracted] == [None, "val"]
    assert (material.val_from, material.test_from) == ("split", "train")
    assert sum(ranked.count for ranked in material.label_map.classes) == 80 - len(material.test.y)


def test_a_job_that_tests_on_the_validation_split_holds_validation_rows_out(settings, extracted):
    material = gather(params(test_split="val"), Design(), settings)
    assert [request.split for request in extracted] == [None, "val"]
    assert (material.val_from, material.test_from) == ("train", "split")
    assert (len(material.train.y), len(material.val.y), len(material.test.y)) == (70, 10, 80)


def test_a_class_that_the_test_split_lacks_is_told_and_one_that_the_training_split_lacks_an_error(
    settings, extracted, tmp_path
):
    for place in ("train/cat", "train/dog", "test/cat"):
        (tmp_path / "pets" / place).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(tmp_path / "pets" / place / f"{number}.png")
    material = gather(params(dataset=str(tmp_path / "pets")), Design(orders="ranked"), settings)
    assert any(notice.text.startswith("No test sample is of class 'dog'") for notice in material.notices)
    with pytest.raises(DatasetError, match="no image of class 'dog'"):
        gather(params(dataset=str(tmp_path / "pets"), split="test"), Design(orders="ranked"), settings)


def test_a_split_that_is_not_there_is_told_with_those_that_are(settings, extracted):
    with pytest.raises(DatasetError, match="no split 'exam' to test on; it has train, val, test"):
        gather(params(test_split="exam"), Design(), settings)


def test_a_job_passes_the_settings_of_the_ranking_on(settings, extracted):
    material = gather(params(shrinkage="auto", solver="eigen"), Design(), settings)
    assert material.label_map.parameters["shrinkage"] == "auto"
    with pytest.raises(RankingError):
        gather(params(method="best"), Design(), settings)


def test_an_end_to_end_job_has_exactly_the_samples_of_its_rows(settings, extracted):
    material = gather(params(), Design(depth="1"), settings)
    for role in ("train", "val", "test"):
        dataset = material.datasets[role]
        assert tuple(sample.key for sample in dataset.samples) == getattr(material, role).keys
        np.testing.assert_array_equal(dataset.labels, getattr(material, role).y)
    assert material.datasets["test"].split == "test"


def test_a_design_that_asks_for_too_many_orders_is_told(settings):
    with pytest.raises(SettingsError, match="more orders than there are"):
        Design(orders="random:19").arms(made_map(made_features(classes=3)).order)


def test_names_of_the_tests_are_those_of_the_classes():
    assert TRAIN.class_names == NAMES
