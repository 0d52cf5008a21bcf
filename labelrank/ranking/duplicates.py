"""Which samples are nearly identical: the same image again, saved anew, resized, brightened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import betaincinv

from labelrank.ranking.moments import ClassMoments
from labelrank.ranking.rows import Rows, RowsInFiles, row_blocks
from labelrank.ranking.whitening import Whitening

LIKENESS = 0.75
"""Rows at least so alike are nearly identical: their squared distance is a quarter of that of two rows of a class."""
# Classes of fewer rows are no centre: two copies in such a class would have it between them.
_CENTRE_ROWS = 8
# How many pairs may be so alike by chance, among all.
_CHANCE_PAIRS = 0.01
# Above this no pair is told from chance in float32; only identical rows are found.
_MOST_LIKE = 0.999
_TILE_ROWS = 2_048
# The cosine of two rows is at most that along some directions, plus the product of both rows' lengths along the others.
# This rules out almost all pairs at a third of the cost. Used is the least of these shares of the directions that
# leaves no more than so many of the pairs of some rows.
_SHARES = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6)
_FEW = 2e-4
_TRIED_ROWS = 1_024
_FEW_PAIRS = 8_192
_ROUNDING = 1e-5
# Pairs times features that a core compares in a second; measured with 50,000 rows of 768 features.
_PER_SECOND = 9e10


@dataclass(frozen=True)
class NearDuplicates:
    """Rows that are nearly identical to another.

    Attributes:
        group: int64 (n,), number of the row's group, from 0 in the order of their first rows; -1 where there is none.
            Rows that are connected by pairs of near-identical rows are one group.
        nearest: int64 (n,), the row that it is most like; -1 where there is none.
        likeness: float32 (n,), of these two: 1 identical, 0 as far apart as two rows of a class; NaN where none.
        threshold: The likeness that was asked for; 1 where only identical rows are told.
    """

    group: np.ndarray
    nearest: np.ndarray
    likeness: np.ndarray
    threshold: float


def near_duplicates(X: Rows, moments: ClassMoments, white: Whitening) -> NearDuplicates:
    """Return which of the rows X (n, d) are nearly identical to another; float32 (n, d) and tiles beside the input.

    The likeness of two rows is 1 - d2 / min(s, m): d2 their squared distance in the whitened space, s the sum of their
    squared distances to the centroid nearest to each, m the same of a typical pair (twice the median). It needs
    no labels, so that an image that is there under two labels is found. Identical rows are always found.

    Few features tell little: the likeness asked for is then higher, so that fewer than one in a hundred such data sets
    has such a pair by chance (two random directions; Cai, Fan, Jiang 2013, "Distributions of angles in random packing
    on spheres"), up to where only identical rows are told. Of rows that lie in files, which are too many to compare all
    with each other, only identical ones are told.
    """
    n = len(X)
    first = _first_identical(X, X)
    distinct = np.flatnonzero(first == np.arange(n))
    found, groups = _Best(n), first
    copies = np.flatnonzero(first < np.arange(n))
    for rows, others in ((copies, first[copies]), (first[copies], copies)):
        found.take(rows, others, np.ones(len(rows), np.float32))
    threshold = likeness_needed(white.matrix.shape[1], n * (n - 1) / 2)
    if isinstance(X, RowsInFiles):
        threshold = 1.0
    elif threshold < 1:
        directions = _Directions.of(X[distinct] if len(copies) else X, moments, white, threshold)
        for a in _tiles(len(distinct)):
            for b in _tiles(len(distinct), a.start):
                i, j, likeness = directions.alike(a, directions, b, threshold)
                i, j, likeness = distinct[i[i < j]], distinct[j[i < j]], likeness[i < j]
                found.take(i, j, likeness)
                found.take(j, i, likeness)
                groups = _joined(groups, i, j)
    return NearDuplicates(_numbered(groups), found.nearest, found.likeness, threshold)


def duplicates_among(X: Rows, others: Rows, moments: ClassMoments, white: Whitening) -> NearDuplicates:
    """Return which rows X (n, d) are nearly identical to one of `others` (m, d), such as those of another split.

    `nearest` counts the rows of `others`; rows that share it share a group.

    Args:
        X, others: Rows of the same features.
        moments: Of X.
        white: Whitened coordinates of these moments.
    """
    found = _Best(len(X))
    first = _first_identical(X, others)
    same = np.flatnonzero(first >= 0)
    found.take(same, first[same], np.ones(len(same), np.float32))
    threshold = likeness_needed(white.matrix.shape[1], len(X) * len(others))
    if isinstance(X, RowsInFiles) or isinstance(others, RowsInFiles):
        threshold = 1.0
    elif threshold < 1:
        rows = _Directions.of(X, moments, white, threshold)
        their = _Directions.of(others, moments, white, threshold, rows.n_first)
        for a in _tiles(len(X)):
            for b in _tiles(len(others)):
                found.take(*rows.alike(a, their, b, threshold))
    there = found.nearest >= 0
    group = np.full(len(X), -1, dtype=np.int64)
    group[there] = np.unique(found.nearest[there], return_inverse=True)[1]
    return NearDuplicates(group, found.nearest, found.likeness, threshold)


def expected_seconds(n: int, n_features: int, cores: int) -> float:
    """Return about how long `near_duplicates` of n rows takes."""
    return n * (n - 1) / 2 * n_features / _PER_SECOND / cores


def likeness_needed(n_directions: int, pairs: float) -> float:
    """Return the likeness from which one of so many pairs is not alike by chance; 1 where none is told from chance.

    Args:
        n_directions: r, of the whitened space.
    """
    if n_directions < 2:
        return 1.0
    # The cosine c of two random directions exceeds c with probability I(1 - c^2; (r - 1) / 2, 1/2) / 2, and no likeness
    # exceeds the cosine.
    tail = min(1.0, 2 * _CHANCE_PAIRS / max(pairs, 1.0))
    by_chance = float(np.sqrt(1 - betaincinv((n_directions - 1) / 2, 0.5, tail)))
    needed = max(LIKENESS, by_chance)
    return 1.0 if needed > _MOST_LIKE else needed


@dataclass(frozen=True)
class _Directions:
    """Rows as seen from the centroid nearest to each, of length 1, and their squared lengths, float64 (n,).

    `unit`, float32 (n, 1 + r), has the directions of most spread first, behind one column: the row's length along all
    but the first `n_first`. So one product of some columns bounds cosines from above.
    """

    unit: np.ndarray
    square: np.ndarray
    n_first: int
    typical: float

    @classmethod
    def of(
        cls, X: np.ndarray, moments: ClassMoments, white: Whitening, threshold: float, n_first: int | None = None
    ) -> _Directions:
        """Return rows (n, d) for pairs from this likeness on; `n_first` is chosen where it is None."""
        centres = white(moments.mean[moments.count >= _CENTRE_ROWS])
        centres = np.concatenate([centres, np.zeros((1, centres.shape[1]))])  # the mean of all rows
        turned, half_square = centres.T.astype(np.float32), np.sum(centres**2, axis=1) / 2
        unit, square = np.empty((len(X), 1 + centres.shape[1]), np.float32), np.empty(len(X))
        for rows in _tiles(len(X)):
            from_centre = white(X[rows])
            from_centre -= centres[np.argmin(half_square - from_centre.astype(np.float32) @ turned, axis=1)]
            square[rows] = np.einsum("ij,ij->i", from_centre, from_centre)
            length = np.sqrt(square[rows])[:, None]
            np.divide(from_centre, length, out=from_centre, where=length > 0)
            unit[rows, 1:] = from_centre[:, ::-1]  # their spread ascends
        # The variance within classes along all directions, which rows have as squared length on average.
        found = cls(
            unit,
            square,
            _n_first(unit[:, 1:], threshold) if n_first is None else n_first,
            float(2 * white.spread.sum()),
        )
        np.sqrt(np.einsum("ij,ij->i", found._rest, found._rest), out=unit[:, 0])
        return found

    @property
    def _rest(self) -> np.ndarray:
        return self.unit[:, 1 + self.n_first :]

    def alike(
        self, a: slice, others: _Directions, b: slice, threshold: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the pairs of rows of `a` and `others` of `b` from this likeness on: two int64 (p,), float32 (p,)."""
        bounding, all_directions = slice(1 + self.n_first), slice(1, None)
        i, j = _from(self.unit[a, bounding] @ others.unit[b, bounding].T, threshold - _ROUNDING)
        one, other = self.unit[a, all_directions], others.unit[b, all_directions]
        if len(i) <= _FEW_PAIRS:
            cosine = np.einsum("ij,ij->i", one[i], other[j])
        else:
            cosines = one @ other.T
            i, j = _from(cosines, threshold)
            cosine = cosines[i, j]
        # No likeness exceeds the cosine.
        i, j = i + a.start, j + b.start
        square, other_square = self.square[i], others.square[j]
        distance = square + other_square - 2 * np.sqrt(square * other_square) * cosine
        likeness = (1 - distance / np.minimum(square + other_square, self.typical)).astype(np.float32)
        enough = likeness >= threshold
        return i[enough], j[enough], likeness[enough]


def _n_first(unit: np.ndarray, threshold: float) -> int:
    """Return along how many of the first directions cosines are to be bounded, for unit rows (n, r)."""
    tried = unit[np.linspace(0, len(unit) - 1, min(len(unit), _TRIED_ROWS)).astype(np.int64)]
    for share in _SHARES:
        n_first = max(1, int(share * unit.shape[1]))
        rest = np.sqrt(np.einsum("ij,ij->i", tried[:, n_first:], tried[:, n_first:]))
        most = tried[:, :n_first] @ tried[:, :n_first].T
        most += rest[:, None] * rest
        np.fill_diagonal(most, 0.0)
        if np.count_nonzero(most >= threshold) <= _FEW * most.size:
            break
    return n_first


class _Best:
    """For each row the one that it is most like so far."""

    def __init__(self, n: int) -> None:
        self.nearest = np.full(n, -1, dtype=np.int64)
        self.likeness = np.full(n, np.nan, dtype=np.float32)

    def take(self, rows: np.ndarray, others: np.ndarray, likeness: np.ndarray) -> None:
        order = np.lexsort((-others, likeness))  # the last one stays: the most alike, of these the first
        rows, others, likeness = rows[order], others[order], likeness[order]
        last = len(rows) - 1 - np.unique(rows[::-1], return_index=True)[1]
        rows, others, likeness = rows[last], others[last], likeness[last]
        better = ~(self.likeness[rows] >= likeness)
        self.nearest[rows[better]] = others[better]
        self.likeness[rows[better]] = likeness[better]


def _from(values: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Return where values (a, b) are at least this, two int64 (p,)."""
    rows = np.flatnonzero(values.max(axis=1) >= least)  # few: the rest are looked at once
    place, columns = np.divmod(np.flatnonzero(values[rows] >= least), values.shape[1])
    return rows[place], columns


def _first_identical(X: Rows, others: Rows) -> np.ndarray:
    """Return for each row the first identical one of `others`, int64 (n,); -1 where there is none."""
    first: dict[bytes, int] = {}
    found = [first.setdefault(digest, row) for row, digest in enumerate(_digests(others))]
    if X is not others:
        found = [first.get(digest, -1) for digest in _digests(X)]
    return np.array(found, dtype=np.int64)


def _digests(X: Rows) -> Iterator[bytes]:
    for block in row_blocks(len(X)):
        for values in X[block]:
            yield blake2b((values + 0.0).tobytes(), digest_size=16).digest()  # -0.0 is 0.0


def _joined(first: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return for each row the first of its group, int64 (n,), once the groups of these pairs are joined."""
    if not len(i):
        return first
    n = len(first)
    ends = np.concatenate([np.arange(n), i]), np.concatenate([first, j])
    component = connected_components(coo_array((np.ones(n + len(i)), ends), shape=(n, n)), directed=False)[1]
    result: np.ndarray = np.unique(component, return_index=True)[1][component]
    return result


def _numbered(first: np.ndarray) -> np.ndarray:
    """Return numbers of the groups of two rows or more, -1 for rows alone, from the first row of each."""
    shared = np.bincount(first, minlength=len(first))[first] > 1
    numbers = np.full(len(first), -1, dtype=np.int64)
    numbers[shared] = np.unique(first[shared], return_inverse=True)[1]
    return numbers


def _tiles(n: int, start: int = 0) -> list[slice]:
    return [slice(at, min(at + _TILE_ROWS, n)) for at in range(start, n, _TILE_ROWS)]
