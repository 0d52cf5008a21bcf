"""Pairs of classes: the nearest and the most confused, without a matrix of all."""

import numpy as np
import pytest

from labelrank.errors import RankingError
from labelrank.ranking import ClassMoments, geometry
from labelrank.ranking.confusions import confusions
from labelrank.ranking.geometry import ClassGeometry
from labelrank.ranking.pairs import pairs
from labelrank.ranking.whitening import whitening


def both(n_classes=12, rows=20, apart=0.7, seed=0):
    """Return the geometry and the confusions of some overlapping classes."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(n_classes), rows)
    X = rng.normal(size=(len(y), 6)) + apart * rng.normal(size=(n_classes, 6))[y]
    moments = ClassMoments(6).update(X, y)
    white = whitening(moments, "auto")
    return ClassGeometry.of(moments, white=white), confusions(X, y, moments, white)


def classes_of(found):
    return [(pair.confused.a, pair.confused.b) for pair in found]


@pytest.mark.parametrize("block", [1_024, 5])
@pytest.mark.parametrize("n", [1, 10, 66, 100])
def test_both_lists_and_the_places_are_those_of_the_whole_matrices(monkeypatch, n, block):
    monkeypatch.setattr(geometry, "_BLOCK_ROWS", block)
    space, confused = both()
    found = pairs(space, confused, n)
    a, b = np.triu_indices(12, 1)
    distances, counts = space.distances()[a, b], confused.matrix()
    by_distance = np.argsort(distances)
    mixed = (counts + counts.T)[a, b]
    by_confusion = np.argsort(-mixed, kind="stable")[: np.count_nonzero(mixed)]
    places = {(a[k], b[k]): place for place, k in enumerate(by_distance, start=1)}
    confusion_places = {(a[k], b[k]): place for place, k in enumerate(by_confusion, start=1)}
    assert classes_of(found.nearest) == list(places)[:n]
    assert classes_of(found.most_confused) == list(confusion_places)[:n]
    for pair in (*found.nearest, *found.most_confused):
        key = pair.confused.a, pair.confused.b
        assert pair.distance == pytest.approx(space.distances()[key])
        assert pair.place_by_distance == places[key]
        assert pair.place_by_confusion == confusion_places.get(key)


def test_where_the_lists_differ():
    found = pairs(*both(), 10)
    nearest, confused = set(classes_of(found.nearest)), set(classes_of(found.most_confused))
    assert 0 < len(nearest & confused) < 10
    assert set(classes_of(found.near_but_told_apart)) == nearest - confused
    assert set(classes_of(found.confused_but_apart)) == confused - nearest


def test_classes_that_are_all_told_apart_are_still_near_or_far():
    found = pairs(*both(apart=100), 3)
    assert found.most_confused == () and found.near_but_told_apart == found.nearest
    assert [pair.place_by_confusion for pair in found.nearest] == [None] * 3


def test_two_classes_are_one_pair():
    found = pairs(*both(2, apart=1.5), 20)
    assert classes_of(found.nearest) == [(0, 1)] and found.nearest[0].distance == 2


def test_no_pairs_are_refused():
    with pytest.raises(RankingError, match="0 pairs were asked for"):
        pairs(*both(), 0)
