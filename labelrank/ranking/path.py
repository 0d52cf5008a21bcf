"""A short path through all classes, each once: an exact one of few, of many one that no small change shortens."""

from __future__ import annotations

import numpy as np

MAX_EXACT = 12
"""The most classes of which the shortest path of all is found."""
_NEAREST = 10
_LONGEST_SEGMENT = 3
# Shorter by less than this is rounding: it must not go on for ever.
_LEAST_GAIN = 1e-9


def shortest_path(distances: np.ndarray) -> np.ndarray:
    """Return the classes in the order of a short path, int64 (K,); its direction is arbitrary.

    Up to `MAX_EXACT` classes it is the shortest there is. Of more, it starts as the path that goes on to the nearest
    class that is left, and is improved by 2-opt and Or-opt moves between near classes until none shortens it.

    Args:
        distances: Symmetric (K, K), not negative.

    Source: Held, Karp 1962; Croes 1958 for 2-opt, Or 1976 for Or-opt; Bentley 1992 for neighbour lists.
    """
    n_classes = len(distances)
    if n_classes <= 2:
        return np.arange(n_classes)
    if n_classes <= MAX_EXACT:
        return _exact(distances)
    return _Tour(distances).improved()


def _exact(distances: np.ndarray) -> np.ndarray:
    n_classes = len(distances)
    subsets = np.arange(1 << n_classes)
    length = np.full((1 << n_classes, n_classes), np.inf)  # [subset, last class]: shortest path through the subset
    length[1 << np.arange(n_classes), np.arange(n_classes)] = 0.0
    size = np.bitwise_count(subsets)
    for so_far in range(1, n_classes):
        for last in range(n_classes):
            ends_here = subsets[(size == so_far + 1) & (subsets >> last & 1 == 1)]
            length[ends_here, last] = np.min(length[ends_here ^ (1 << last)] + distances[last], axis=1)
    subset, last = (1 << n_classes) - 1, int(np.argmin(length[-1]))
    order = [last]
    while len(order) < n_classes:
        subset ^= 1 << last
        last = int(np.argmin(length[subset] + distances[last]))
        order.append(last)
    return np.array(order, dtype=np.int64)


class _Tour:
    """A round trip through the K classes and a stop K at distance 0 from all, so that without it, it is a path."""

    def __init__(self, distances: np.ndarray) -> None:
        self.distances = distances
        self.n_classes = len(distances)
        np.fill_diagonal(distances, np.inf)
        near = nearest(distances, min(_NEAREST, self.n_classes - 1))
        np.fill_diagonal(distances, 0.0)
        self.near = np.column_stack((near, np.full(self.n_classes, self.n_classes)))
        self._set(np.append(_greedy(distances), self.n_classes))

    def improved(self) -> np.ndarray:
        """Return the path that no move shortens."""
        everywhere = np.arange(self.n_classes)
        active = everywhere
        while True:
            changed = self._improve(active)
            if changed.size:
                active = changed
            elif active is everywhere:
                break
            else:
                active = everywhere
        stop = int(self.place[self.n_classes])
        return np.concatenate((self.tour[stop + 1 :], self.tour[:stop]))

    def _set(self, tour: np.ndarray) -> None:
        self.tour = tour
        self.place = np.empty_like(tour)
        self.place[tour] = np.arange(len(tour))

    def _at(self, place: np.ndarray | int) -> np.ndarray:
        result: np.ndarray = self.tour[place % len(self.tour)]
        return result

    def _length(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        last = self.n_classes - 1
        between = self.distances[np.minimum(a, last), np.minimum(b, last)]
        return np.where((a > last) | (b > last), 0.0, between)

    def _improve(self, active: np.ndarray) -> np.ndarray:
        """Make the best moves that bring an active class beside a near one; return the classes that moved."""
        a, c = np.repeat(active, self.near.shape[1]), self.near[active].ravel()
        moves = [self._exchanges(a, c, step) for step in (1, -1)]
        for size in range(1, _LONGEST_SEGMENT + 1):
            moves += [self._insertions(a, c, size, step, side) for step in (1, -1) for side in (1, -1)]
        gains = np.concatenate([gain for gain, _ in moves])
        found = np.concatenate([move for _, move in moves])
        touched = np.zeros(self.n_classes + 1, dtype=bool)
        for move in found[np.argsort(-gains, kind="stable")].tolist():
            if self._exchange(*move[:4]) if move[4] < 0 else self._insert(*move):
                touched[[node for node in move[:6] if node >= 0]] = True
        return np.flatnonzero(touched[:-1])

    def _exchanges(self, a: np.ndarray, c: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the gains and the moves that replace the steps a-b and c-d by a-c and b-d."""
        b = self._at(self.place[a] + step)
        shorter = self._length(a, c) < self._length(a, b)  # so of one end of any move that helps
        a, b, c = a[shorter], b[shorter], c[shorter]
        d = self._at(self.place[c] + step)
        gain = self._length(a, b) + self._length(c, d) - self._length(a, c) - self._length(b, d)
        better = gain > _LEAST_GAIN
        moves = np.full((int(better.sum()), 7), -1)
        moves[:, :4] = np.column_stack((a, b, c, d))[better]
        return gain[better], moves

    def _insertions(
        self, a: np.ndarray, c: np.ndarray, size: int, step: int, side: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the gains and the moves that take the classes from a to e from between p and q to between c and x."""
        p, x = self._at(self.place[a] - step), self._at(self.place[c] + side)
        shorter = self._length(a, c) < np.maximum(self._length(p, a), self._length(c, x))
        a, c, p, x = a[shorter], c[shorter], p[shorter], x[shorter]
        e, q = (self._at(self.place[a] + step * steps) for steps in (size - 1, size))
        gain = self._length(p, a) + self._length(e, q) - self._length(p, q)
        gain += self._length(c, x) - self._length(c, a) - self._length(e, x)
        outside = (self._ahead(a, c, step) >= size) & (self._ahead(a, x, step) >= size)
        better = (gain > _LEAST_GAIN) & outside
        moves = np.column_stack((p, a, e, q, c, x, np.full(len(a), size)))[better]
        return gain[better], moves

    def _ahead(self, a: np.ndarray, c: np.ndarray, step: int) -> np.ndarray:
        """Return how many steps it is from a to c in a direction."""
        result: np.ndarray = step * (self.place[c] - self.place[a]) % len(self.tour)
        return result

    def _exchange(self, a: int, b: int, c: int, d: int) -> bool:
        """Make a move if its steps are still there, in one direction."""
        place, count = self.place, len(self.tour)
        step = int(place[b] - place[a]) % count
        if step not in (1, count - 1) or int(place[d] - place[c]) % count != step:
            return False
        first, last = sorted((place[a], place[c]) if step == 1 else (place[b], place[d]))
        self.tour[first + 1 : last + 1] = self.tour[first + 1 : last + 1][::-1]
        place[self.tour[first + 1 : last + 1]] = np.arange(first + 1, last + 1)
        return True

    def _insert(self, p: int, a: int, e: int, q: int, c: int, x: int, size: int) -> bool:
        """Make a move if its steps are still there."""
        place, count = self.place, len(self.tour)
        beside = (1, count - 1)
        if int(place[a] - place[p]) % count not in beside or int(place[x] - place[c]) % count not in beside:
            return False
        step = 1 if int(place[a] - place[p]) % count == 1 else -1
        at = (place[a] + step * np.arange(size)) % count
        segment = self.tour[at]
        if segment[-1] != e or self._at(place[a] + step * size) != q or c in segment or x in segment:
            return False
        follows = int(place[x] - place[c]) % count == 1
        after = place[c if follows else x]
        rest = np.delete(self.tour, at)
        cut = int(after - np.sum(at < after)) + 1
        self._set(np.concatenate((rest[:cut], segment if follows else segment[::-1], rest[cut:])))
        return True


def nearest(distances: np.ndarray, count: int) -> np.ndarray:
    """Return the nearest classes by rows of distances (m, K), int64 (m, count), nearest first.

    Args:
        distances: Infinite where a class is not to be counted, such as itself.
        count: At most K - 1.
    """
    result = np.empty((len(distances), count), dtype=np.int64)
    for number, row in enumerate(distances):
        near = np.sort(np.argpartition(row, count - 1)[:count])
        result[number] = near[np.argsort(row[near], kind="stable")]
    return result


def _greedy(distances: np.ndarray) -> np.ndarray:
    """Return a path from class 0 that always goes on to the nearest class that is left."""
    left = np.zeros(len(distances))
    order = [0]
    while len(order) < len(distances):
        left[order[-1]] = np.inf
        order.append(int(np.argmin(distances[order[-1]] + left)))
    return np.array(order, dtype=np.int64)
