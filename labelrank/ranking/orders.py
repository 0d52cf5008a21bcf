"""Orders of classes beyond one axis: by all distances between them, by their names, by how many rows they have."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import csr_array, diags_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh

from labelrank.ranking.axis import sorted_with_ties
from labelrank.ranking.geometry import ClassGeometry
from labelrank.ranking.methods import NEIGHBOURS
from labelrank.ranking.path import nearest, shortest_path

# Distances are rounded to this, far above the rounding of a sum in another order: equal ones stay equal.
_DECIMALS = 9
_LOADING_TOLERANCE = 1e-6
# Eigenvalues closer than this to the best one belong to equally good orders, of which only rounding picks one.
_EIGENVALUE_TOLERANCE = 1e-9
# Up to here all pairs of classes as a matrix are faster than a sparse graph.
_DENSE_CLASSES = 1_500
_EIGENVECTORS = 4
_LEAST_WEIGHT = 1e-6
_BLOCK_ROWS = 1_024
_DIGITS = re.compile(r"(\d+)")


def path(geometry: ClassGeometry) -> np.ndarray:
    """Return the classes on a short path through all of them, int64 (K,); see `labelrank.ranking.path`.

    Raises:
        RankingError: There are more classes than `ClassGeometry.distances` takes.
    """
    geometry.check_size()
    classes = _numbered(geometry)
    distances = _distances(geometry.points[classes], slice(None))
    np.fill_diagonal(distances, 0.0)
    return geometry.turned(classes[shortest_path(distances)])


def spectral(geometry: ClassGeometry) -> np.ndarray:
    """Return the classes along the smoothest change over a graph of near classes, int64 (K,).

    Classes are joined where one is among the `NEIGHBOURS` nearest of the other, with 1 more than their cosine as the
    weight. Parts that no such pair joins are joined by their nearest pair. The order is that of the Fiedler vector, the
    eigenvector of the graph's Laplacian with the smallest eigenvalue above 0; if several vectors are equally good, the
    one in their space that tells one class apart most.

    Source: Fiedler 1973; Atkins, Boman, Hendrickson 1998.
    """
    classes = _numbered(geometry)
    points = geometry.points[classes]
    values = _fiedler(_graph(points))
    return geometry.turned(classes[sorted_with_ties(values, geometry.mean[classes])])


def original(count: np.ndarray) -> np.ndarray:
    """Return the classes as they are numbered, int64 (K,)."""
    return np.arange(len(count))


def alphabetical(names: Sequence[str]) -> np.ndarray:
    """Return the classes by name, int64 (K,): without case and accents, digits as whole numbers, then code points."""
    return np.array(sorted(range(len(names)), key=lambda number: _name_key(names[number])), dtype=np.int64)


def frequency(count: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return the classes by their number of rows, int64 (K,), the most first; equal ones are `alphabetical`."""
    classes = alphabetical(names)
    result: np.ndarray = classes[np.argsort(-count[classes], kind="stable")]
    return result


def _name_key(name: str) -> tuple[list[str | tuple[int, str]], str]:
    plain = unicodedata.normalize("NFKD", name.casefold())
    parts = _DIGITS.split("".join(char for char in plain if not unicodedata.combining(char)))
    # Texts stand at even places, numbers at odd ones, so that like is compared with like.
    return [_number_key(part) if place % 2 else part for place, part in enumerate(parts)], name


def _number_key(digits: str) -> tuple[int, str]:
    """Return a key that sorts numbers by value, of any length: int() refuses thousands of digits."""
    plain = "".join(str(unicodedata.decimal(digit)) for digit in digits).lstrip("0")
    return len(plain), plain


def _graph(points: np.ndarray) -> csr_array:
    """Return the weights of the graph of near classes, sparse (K, K), symmetric and connected."""
    count = len(points)
    near = min(NEIGHBOURS, count - 1)
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, count, _BLOCK_ROWS):
        distances = _distances(points, slice(start, start + _BLOCK_ROWS))
        own = np.arange(len(distances))
        distances[own, start + own] = np.inf
        pairs.append(np.column_stack((np.repeat(start + own, near), nearest(distances, near).ravel())))
    graph = _joined(points, np.concatenate(pairs))
    while (found := connected_components(graph, directed=False))[0] > 1:
        pairs.append(_nearest_between(points, found[1]))
        graph = _joined(points, np.concatenate(pairs))
    return graph


def _joined(points: np.ndarray, pairs: np.ndarray) -> csr_array:
    low_high = np.unique(np.sort(pairs, axis=1), axis=0)
    a, b = low_high.T
    weight = 2 - np.round(1 - np.sum(points[a] * points[b], axis=1), _DECIMALS)
    half = csr_array((np.maximum(weight, _LEAST_WEIGHT), (a, b)), shape=(len(points), len(points)))
    return csr_array(half + half.T)


def _nearest_between(points: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return the nearest pair of each part of the graph and another, int64 (parts, 2)."""
    best = np.full((part.max() + 1, 3), np.inf)  # distance, class, class of another part
    for start in range(0, len(points), _BLOCK_ROWS):
        distances = _distances(points, slice(start, start + _BLOCK_ROWS))
        inside = part[start : start + _BLOCK_ROWS]
        distances[inside[:, None] == part] = np.inf
        for row, other in enumerate(np.argmin(distances, axis=1).tolist()):
            if distances[row, other] < best[inside[row], 0]:
                best[inside[row]] = distances[row, other], start + row, other
    result: np.ndarray = best[:, 1:].astype(np.int64)
    return result


def _fiedler(graph: csr_array) -> np.ndarray:
    """Return the Fiedler vector of a connected graph, float64 (K,)."""
    count = graph.shape[0]
    degree = np.asarray(graph.sum(axis=1)).ravel()
    laplacian = diags_array(degree) - graph
    if count <= _DENSE_CLASSES:
        last = min(_EIGENVECTORS, count - 1)
        values, vectors = eigh(laplacian.toarray(), subset_by_index=[1, last])
    else:
        start = np.linspace(-1, 1, count)
        top = 2 * degree.max()
        flipped = diags_array(np.full(count, top)) - laplacian
        values, vectors = eigsh(flipped, k=_EIGENVECTORS + 1, which="LA", v0=start)
        values, vectors = (top - values)[::-1][1:], vectors[:, ::-1][:, 1:]
    space = vectors[:, values <= values[0] + _EIGENVALUE_TOLERANCE * degree.max()]
    loading = np.linalg.norm(space, axis=1)
    told = int(np.argmax(loading >= loading.max() * (1 - _LOADING_TOLERANCE)))
    result: np.ndarray = space @ space[told]
    return result


def _distances(points: np.ndarray, block: slice) -> np.ndarray:
    """Return the cosine distances of some classes to all, float64 (m, K), rounded."""
    result = points[block] @ points.T
    np.subtract(1.0, result, out=result)
    np.clip(result, 0.0, 2.0, out=result)
    rounded: np.ndarray = np.round(result, _DECIMALS, out=result)
    return rounded


def _numbered(geometry: ClassGeometry) -> np.ndarray:
    """Return the classes by how far they stand out, int64 (K,): numbers that do not depend on labels or features."""
    stands_out = 1 - geometry.points @ geometry.points.mean(axis=0)
    return sorted_with_ties(np.round(-stands_out, _DECIMALS), geometry.mean)
