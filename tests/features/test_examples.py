"""Features that come with labelrank: small, whole, and what is said of them is in their file."""

import numpy as np
import pytest

from labelrank.features.examples import EXAMPLES
from labelrank.features.joining import read_features
from labelrank.steps.rank import RankRequest, rank


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_an_example_is_small_and_is_what_is_said_of_it(example):
    assert example.path.stat().st_size <= 3_200_000
    found = read_features(example.path)
    assert np.bincount(found.y).tolist() == [example.per_class] * example.n_classes
    assert (len(found.y), len(set(found.keys))) == (example.rows, example.rows)
    assert not found.failures
    made = found.provenance
    assert (made["dataset"]["id"], made["dataset"]["split"]) == (example.dataset, example.split)
    assert made["dataset"]["selection"] == f"{example.per_class} per class, seed 0"
    assert (made["checkpoint"]["id"], made["pooling"]) == (example.encoder, example.pooling)
    assert len(made["checkpoint"]["digest"]) == 64
    assert made["preprocessing"]["size"] == {"height": 98, "width": 98}


def test_an_example_names_no_path(tmp_path):
    for example in EXAMPLES.values():
        made = read_features(example.path).provenance
        assert "local" not in made
        assert "/" not in made["dataset"]["id"] + made["checkpoint"]["id"]


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_the_label_map_of_an_example_says_what_it_is_of(example):
    ranked = rank(read_features(example.path), RankRequest(example.order))
    assert sorted(ranked.label_map.position_of) == list(range(example.n_classes))
    assert [notice.kind for notice in ranked.notices] == ["test_split", "few_samples"]
    of = ranked.label_map.features
    assert (of["dataset"]["id"], of["checkpoint"]["id"]) == (example.dataset, example.encoder)
