"""`labelrank classes`: what is told of the classes, as a table and as JSON."""

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner

from labelrank.cli import main
from labelrank.features.joining import read_features
from labelrank.steps.class_summary import PairLists, summary_of
from labelrank.steps.label_space import LabelSpace
from labelrank.views.class_words import differing_text, expected_text

NAMES = ("maple", "oak", "pine", "girl", "woman", "a class with a name that is far too long for a line", "ghost")


@pytest.fixture
def given(tmp_path):
    """Features of one's own: two groups of three classes that overlap, and a class without rows."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(6), 40)
    centres = 4 * rng.normal(size=(2, 10))[[0, 0, 0, 1, 1, 1]] + 0.7 * rng.normal(size=(6, 10))
    path = tmp_path / "mine.npz"
    np.savez(path, vectors=rng.normal(size=(240, 10)) + centres[y], kind=y, class_names=np.array(NAMES))
    return path


def classes(*arguments):
    return CliRunner().invoke(main, ["classes", *map(str, arguments)])


def test_the_table_fits_into_80_columns(given):
    done = classes(given, "--features-column", "vectors", "--label-column", "kind", "--pairs", 4)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("A linear classifier is expected to be right for ")
    assert [lines.count(title) for title in ("Most confused pairs", "Nearest pairs", "Classes found least often")] == [
        1
    ] * 3
    first = lines.index("Nearest pairs") + 2
    assert all(line.split()[0] in ("maple", "oak", "pine", "girl", "woman", "a") for line in lines[first : first + 4])
    assert "1 class has no samples" in done.stderr


def test_json_is_the_summary_of_the_label_space(given):
    done = classes(given, "--pairs", 4, "--shrinkage", 0.2, "--priors", "equal", "--format", "json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    summary = summary_of(LabelSpace(read_features(given), 0.2, "equal"), pairs=4)
    assert told == told | summary.to_json()
    assert told["expected"]["priors"] == "equal" and told["expected"]["shrinkage"] == 0.2
    assert told["absent"] == ["ghost"]
    wrong = sum(cell["rows"] for cell in told["confusions"])
    assert told["expected"]["accuracy"]["rows"] == 240 - wrong == sum(c["recall"]["rows"] for c in told["classes"])
    for line in told["classes"]:
        cells = {cell["taken_for"]: cell["rows"] for cell in told["confusions"] if cell["true"] == line["name"]}
        assert sum(cells.values()) == line["rows"] - line["recall"]["rows"]
        assert cells.get(line["most_taken_for"], 0) == max(cells.values(), default=0)
    assert len(told["pairs"]["nearest"]) == 4
    # Pairs of one group, by distance and by confusion.
    assert all(
        (NAMES.index(pair["first"]) < 3) == (NAMES.index(pair["second"]) < 3)
        for pair in told["pairs"]["nearest"] + told["pairs"]["most_confused"]
    )


@pytest.mark.parametrize("style", ["table", "json"])
def test_a_class_of_one_row_is_not_judged(tmp_path, style):
    rng = np.random.default_rng(0)
    y = np.array([0, 1, 2] * 10 + [3])
    path = tmp_path / "mine.npz"
    np.savez(path, X=rng.normal(size=(31, 4)) + 2 * rng.normal(size=(4, 4))[y], y=y)
    done = classes(path, "--format", style)
    assert done.exit_code == 0, done.stderr
    if style == "table":
        assert "1 sample is the only one of its class" in " ".join(done.stdout.split())
        return
    told = json.loads(done.stdout)
    assert told["expected"]["not_judged"] == 1 and told["expected"]["priors"] == "equal"
    assert told["classes"][3]["recall"]["of"] == 0 and told["classes"][3]["recall"]["value"] is None


@pytest.mark.parametrize(("per_class", "too_low"), [(3, True), (4, False)])
def test_few_samples_are_said_to_make_it_too_low(given, per_class, too_low):
    whole = read_features(given)
    rows = np.flatnonzero(np.arange(240) % 40 < per_class)
    few = dataclasses.replace(whole, X=whole.X[rows], y=whole.y[rows], keys=tuple(map(str, rows)))
    text = expected_text(summary_of(LabelSpace(few)).expected)
    assert ("This is too low: " in text) == ("From 4 samples of each class on" in text) == too_low


def test_one_class_is_an_error_in_one_line(tmp_path):
    np.savez(tmp_path / "mine.npz", X=np.random.default_rng(0).normal(size=(9, 4)), y=np.zeros(9, int))
    done = classes(tmp_path / "mine.npz")
    assert done.exit_code == 1 and done.stdout == ""
    assert "Error: All 9 samples are of one class" in done.stderr


def test_sentences(given):
    summary = summary_of(LabelSpace(read_features(given)), pairs=4)
    text = expected_text(summary.expected)
    assert "240 samples, each left out in turn" in text and "as frequent as they are" in text
    assert differing_text(summary.pairs) == "The 4 nearest pairs and the most confused are the same."
    every = summary_of(LabelSpace(read_features(given)), pairs=1_000)
    assert " of the 15 nearest pairs are among the 6 most confused. Near but told apart: " in differing_text(
        every.pairs
    )
    mixed = PairLists(every.pairs.nearest, every.pairs.most_confused[:1], every.pairs.most_confused[1:2], ())
    assert " Near but less mixed up: " in differing_text(mixed)
    assert differing_text(PairLists(every.pairs.nearest, (), every.pairs.nearest, ())).startswith("No sample was taken")


@pytest.fixture
def alike(tmp_path):
    """Features of one's own of four classes that differ by chance alone, one of another size."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), [20, 20, 20, 21])
    X = rng.normal(size=(81, 6))
    means = np.array([X[y == label].mean(axis=0) for label in range(4)])
    path = tmp_path / "alike.npz"
    np.savez(path, X=X - 0.9 * means[y], y=y)
    return path


def test_classes_that_differ_by_chance_alone_are_judged_without_distances(alike):
    done = classes(alike)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("A linear classifier is expected to be right for ")
    assert "Most confused pairs" in done.stdout and "Nearest pairs" not in done.stdout
    assert done.stdout.count("nothing is known of which classes are near each other") == 1
    told = json.loads(classes(alike, "--format", "json").stdout)
    assert told["pairs"]["nearest"] == [] and told["pairs"]["most_confused"][0]["distance"] is None
    assert told["groups"] is None and told["no_groups"] == told["no_distances"]


def test_what_is_asked_for_and_cannot_be_had_is_an_error(alike, tmp_path):
    done = classes(alike, "--groups-out", tmp_path / "groups.csv")
    assert done.exit_code == 1 and "nothing is known" in done.stderr
    assert not done.stdout and not (tmp_path / "groups.csv").exists()


def test_orders_that_the_features_do_not_allow_are_told(tmp_path):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), [20, 20, 20, 21])
    np.savez(tmp_path / "unequal.npz", X=rng.normal(size=(81, 6)) + y[:, None], y=y)
    told = " ".join(classes(tmp_path / "unequal.npz", "--orders").stdout.split())
    assert "Not judged is reference: method='reference' pairs the samples of each class" in told
    printed = json.loads(classes(tmp_path / "unequal.npz", "--orders", "--format", "json").stdout)["groups"]
    assert list(printed["refused"]) == ["reference"] and "reference" not in printed["orders"]["of"]
