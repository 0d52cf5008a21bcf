"""Encoders compared: planted differences are found, equal ones not told apart, other data refused by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from labelrank.errors import FeaturesError, RankingError
from labelrank.features.store import FeatureSet
from labelrank.steps.encoders import _behind, _Judged, compare_encoders
from labelrank.views.encoder_words import COLUMNS, cells, finding

K, PER_CLASS, DIM = 6, 40, 8
DATASET = {"id": "d", "config": None, "split": "train", "digest": "aa11", "columns": None, "selection": "all"}


def features_of(spread, *, seed=0, keys=None, checkpoint="c", **dataset):
    """Return features whose class means lie `spread` within-class deviations from the middle, on axes of their own."""
    y = np.repeat(np.arange(K, dtype=np.int32), PER_CLASS)
    means = np.eye(K, DIM) * spread
    X = means[y] + np.random.default_rng(seed).normal(size=(len(y), DIM))
    return FeatureSet(
        X=X.astype(np.float32),
        y=y,
        keys=keys or tuple(f"{n}.png" for n in range(len(y))),
        class_names=tuple(f"class {k}" for k in range(K)),
        provenance={"dataset": {**DATASET, **dataset}, "checkpoint": {"id": checkpoint}, "pooling": "mean"},
    )


def taken(features, rows):
    return replace(features, X=features.X[rows], y=features.y[rows], keys=tuple(features.keys[r] for r in rows))


def test_the_encoder_with_classes_farther_apart_comes_first_and_is_told_apart():
    found = compare_encoders({"near": features_of(1.5), "far": features_of(3, seed=1)})
    far, near = found.encoders

    assert (far.name, near.name) == ("far", "near")
    assert far.behind is None
    assert near.behind.told_apart
    assert near.behind.difference == pytest.approx(far.lda.value - near.lda.value)
    assert near.behind.low < near.behind.difference < near.behind.high
    assert far.knn.value > near.knn.value
    # Classes on axes of their own, equally far: K - 1 directions, all alike.
    assert far.effective_dimensions == pytest.approx(K - 1, abs=0.4)
    assert far.first_axis == pytest.approx(1 / (K - 1), abs=0.08)
    assert f"far is expected to be right for {100 * far.lda.value:.1f}\u00a0% of 240 samples of 6 classes, " in finding(
        found
    )
    assert finding(found).endswith("points more than on near.")


def test_equally_good_encoders_are_not_told_apart():
    found = compare_encoders({"one": features_of(2), "other": features_of(2, seed=1)})

    assert not found.encoders[1].behind.told_apart
    assert f"not told apart from {found.encoders[1].name}" in finding(found)


def test_orders_agree_with_those_of_the_same_features_in_other_units():
    one = features_of(2)
    found = compare_encoders({"one": one, "scaled": replace(one, X=one.X * 3), "same": replace(one)})

    assert np.array(found.tau).tolist() == [[1.0] * 3] * 3
    assert [n.text for n in found.notices if n.kind == "alike"] == ["one and same hold the same features."]


def test_rows_are_matched_by_key_and_the_others_are_told():
    one, other = features_of(2), features_of(2.5, seed=1)
    rng = np.random.default_rng(2)
    rows = rng.permutation(len(other.y))[:-12]
    found = compare_encoders({"one": one, "other": taken(other, rows)})
    expected = compare_encoders({"one": taken(one, np.sort(rows)), "other": taken(other, np.sort(rows))})

    assert found.rows == len(rows)
    assert [(e.name, e.lda, e.knn, e.behind) for e in found.encoders] == [
        (e.name, e.lda, e.knn, e.behind) for e in expected.encoders
    ]
    (notice,) = found.notices
    left = sorted(set(range(len(other.y))) - set(rows.tolist()))
    assert notice.text.startswith(
        f"one: 12 of 240 samples are not in all files and are left out, such as '{left[0]}.png'"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: features_of(2, split="test"), r"^a is of the split 'train', b of 'test'"),
        (lambda f: features_of(2, id="e", digest="bb"), r"^a is of the dataset 'd', b of 'e'"),
        (lambda f: features_of(2, digest="bb22"), r"'d' with the digest aa11, b of one with bb22"),
        (lambda f: features_of(2, columns=["img", "coarse"]), r"the columns None, b of \['img', 'coarse'\]"),
        (
            lambda f: replace(f, class_names=("cat", *f.class_names[1:], "dog")),
            r"^b has 7 classes, a 6; b lacks 'class 0' and has 'cat', 'dog' besides",
        ),
        (lambda f: replace(f, class_names=f.class_names[::-1]), r"has the same classes with other labels"),
        (lambda f: replace(f, y=f.y[::-1].copy()), r"'0.png' is of class 'class 0' in a and 'class 5' in b, and 240"),
        (lambda f: features_of(2, keys=tuple(map(str, range(240)))), r"0 samples in common.*a has '0.png', b has '0'"),
    ],
)
def test_other_data_are_refused_with_what_differs(change, message):
    one = features_of(2)
    with pytest.raises(FeaturesError, match=message):
        compare_encoders({"a": one, "b": change(one)})


def test_the_same_data_under_another_name_and_features_of_unknown_encoders_are_compared():
    one = features_of(2)
    given = replace(features_of(2, seed=1), provenance={"encoder": "unknown", "dataset": {"id": "x", "digest": "?"}})
    found = compare_encoders({"one": one, "renamed": features_of(2, seed=2, id="e"), "given": given})

    assert [notice.kind for notice in found.notices] == ["unknown"]
    assert cells(next(e for e in found.encoders if e.name == "given"))["Checkpoint"] == "unknown"


def test_the_row_says_which_patches_were_encoded():
    half = features_of(2, seed=1)
    kept = {"ratio": 0.5, "count": 32, "of": 64, "by": "gradient"}
    half = replace(half, provenance={**half.provenance, "kept_patches": kept})
    found = compare_encoders({"all": features_of(2), "half": half})
    texts = {encoder.name: cells(encoder)["Checkpoint"] for encoder in found.encoders}
    assert texts["half"] == f"{texts['all']}, 32 of 64 patches (50\u00a0%), chosen by gradient energy"


def test_what_an_encoder_costs_is_told_as_far_as_it_is_known():
    facts = {"checkpoint_facts": {"num_parameters": 5, "licence": "mit"}, "encoding_s": 12, "device": "CPU"}
    one, known, unknown = features_of(2), features_of(2, checkpoint="facebook/dinov2-small", seed=1), features_of(1)
    one = replace(one, provenance={**one.provenance, **facts})
    known = replace(known, provenance={**known.provenance, "encoding_s": 1.2, "device": "GPU"})
    found = compare_encoders({"one": one, "known": known, "unknown": unknown})
    by_name = {e.name: e for e in found.encoders}

    assert (by_name["one"].num_parameters, by_name["one"].licence, by_name["one"].seconds_per_1000) == (5, "mit", 50)
    assert (by_name["known"].num_parameters, by_name["known"].licence) == (22_056_576, "apache-2.0")
    assert set(cells(by_name["unknown"])) == set(COLUMNS)
    assert cells(by_name["unknown"])["Licence"] == cells(by_name["unknown"])["s / 1,000"] == "unknown"
    assert [notice.kind for notice in found.notices] == ["devices"]


def test_one_file_is_judged_alone():
    found = compare_encoders({"one": features_of(2)})
    assert (len(found.encoders), found.tau, [n.kind for n in found.notices]) == (1, ((1.0,),), ["one_file"])


def test_features_that_know_nothing_of_the_classes_are_judged_too_and_equal_rows_are_refused_by_name():
    chance = replace(features_of(0), y=np.tile(np.arange(K, dtype=np.int32), PER_CLASS))
    (encoder,) = compare_encoders({"chance": chance}).encoders
    assert encoder.lda.low < 1 / K + 0.1
    with pytest.raises(RankingError, match=r"^flat: "):
        compare_encoders({"good": features_of(2), "flat": replace(features_of(2), X=np.ones((240, DIM), np.float32))})


def test_the_interval_of_a_difference_covers_it():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        easy = rng.uniform(size=200) < 0.5
        one, other = (easy | (rng.uniform(size=200) < share) for share in (0.3, 0.2))
        found = _behind(*(_Judged(None, right, None, None, None) for right in (one, other)), pairs=1)
        covered.append(found.low <= 0.05 <= found.high)
    assert 0.935 <= np.mean(covered) <= 0.97
