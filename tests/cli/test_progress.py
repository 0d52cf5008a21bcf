"""The line that commands show of their progress."""

from dataclasses import replace

import numpy as np
import pytest

from labelrank.cli import progress as cli_progress
from labelrank.cli.progress import ProgressLine, say_given
from labelrank.data.dataset import Problem
from labelrank.features.store import ENCODER, UNKNOWN, FeatureSet
from labelrank.progress import Kind, Stage

TRAIN = Stage(Kind.TRAIN, "Pre-training", "epochs")


@pytest.fixture
def shown(monkeypatch, capsys):
    """Return a function that tells progress after some seconds, and returns what is on the line then."""
    now = [0.0]
    monkeypatch.setattr(cli_progress.time, "monotonic", lambda: now[0])
    line = ProgressLine()

    def tell(seconds, done, total, stage):
        now[0] += seconds
        line(done, total, stage)
        return capsys.readouterr().err.removesuffix("\n")

    return tell


@pytest.mark.parametrize(
    ("stage", "total", "text"),
    [
        (Stage(Kind.DOWNLOAD, "Downloading happiness", "bytes"), 4_000_000, ": 0 of 4 MB"),
        (Stage(Kind.ENCODE, "Downloading happiness", "images"), 4_000_000, ": 0 of 4,000,000 images"),
        (Stage(Kind.READ, "Downloading happiness"), None, " ..."),
    ],
)
def test_what_is_counted_is_decided_by_the_kind_of_a_stage_and_not_its_words(shown, stage, total, text):
    assert shown(0, 0, total, stage) == f"Downloading happiness{text}"


def test_the_rate_goes_on_while_a_detail_changes_and_begins_anew_with_a_stage(shown):
    def losing(loss):
        return Stage(Kind.TRAIN, "Pre-training, in earnest", "epochs", f"loss {loss}")

    assert shown(0, 0, 10, losing(2)) == "Pre-training, in earnest, loss 2: 0 of 10 epochs"
    assert shown(20, 4, 10, losing(1)) == "Pre-training, in earnest, loss 1: 4 of 10 epochs, 0.2/s, 30 s left"
    # Other words before the comma or after it are no sign of another stage; another kind is.
    probing = Stage(Kind.PROBE, "Pre-training, in earnest", "epochs")
    assert shown(20, 4, 10, probing) == "Pre-training, in earnest: 4 of 10 epochs"


def test_lines_are_ten_seconds_apart_but_for_the_first_and_the_last_of_a_stage(shown):
    assert shown(0, 1, 10, TRAIN) != ""
    assert shown(9, 2, 10, TRAIN) == ""
    assert shown(2, 3, 10, TRAIN) != ""
    assert shown(1, 10, 10, TRAIN) != ""
    assert shown(0.1, 0, None, Stage(Kind.WRITE, "Writing")) == "Writing ..."


def test_what_is_left_out_and_what_was_only_read_in_a_way_are_told_apart(capsys):
    problems = (Problem("a/1.png", "It is empty."), Problem("train", "The folder is read as a class.", "note"))
    cli_progress.say_left_out(problems * 6)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["Left out: a/1.png: It is empty.", "Note: train: The folder is read as a class."]
    assert lines[-1] == "2 more, all listed in the metadata of the features file."


def test_features_of_an_unknown_encoder_are_told_with_their_columns_if_these_are_known(capsys):
    features = FeatureSet(
        X=np.ones((2, 3), np.float32),
        y=np.array([0, 1], np.int32),
        keys=("a", "b"),
        class_names=("ant", "bee"),
        provenance={ENCODER: UNKNOWN, "dataset": {"id": "x"}},
    )
    say_given(features)
    assert "2 samples, 3 numbers each, 2 classes." in capsys.readouterr().err
    say_given(replace(features, provenance={ENCODER: UNKNOWN, "dataset": {"columns": ["vec", "name"]}}))
    assert "3 numbers each in 'vec', 2 classes in 'name'." in capsys.readouterr().err
