"""Label maps that the tests of the map and of its exports share."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from labelrank.label_map import LabelMap, RankedClass

PROVENANCE = {
    "dataset": {
        "id": "digits",
        "config": None,
        "split": "train",
        "revision": None,
        "digest": "ab12",
        "selection": "all",
    },
    "checkpoint": {"id": "mae-tiny-digits", "revision": None, "digest": "cd34", "model_type": "vit_mae"},
    "preprocessing": {"size": [32, 32], "mean": [0.5, 0.25, 0.125]},
    "pooling": "mean",
    "precision": "float32",
    "runtime": "openvino",
    "versions": {"openvino": "2026.4.0"},
    "created_at": "2026-01-31T11:00:00+00:00",
}


def make_map(class_names: Sequence[str], order: Sequence[int]) -> LabelMap:
    """Return a map of `class_names` (by label) with `order[position] = label`."""
    return LabelMap(
        classes=tuple(
            RankedClass(position, label, class_names[label], centroid=position * 0.5 - 1, count=label + 1)
            for position, label in enumerate(order)
        ),
        method="centroid",
        parameters={"solver": "eigen", "shrinkage": None},
        sign_rule="a sign rule",
        tie_rule="a tie rule",
        explained_variance_ratio=0.25,
        features=PROVENANCE,
        created_at="2026-01-31T12:00:00+00:00",
        library_version="0.1.0",
    )


def three_cycle() -> LabelMap:
    """Return a map whose two permutations differ: label 0 goes to position 1, 1 to 2, 2 to 0."""
    return make_map(["ant", "bee", "cat"], [2, 0, 1])


def orders(max_size: int = 12) -> st.SearchStrategy[list[int]]:
    return st.integers(1, max_size).flatmap(lambda n: st.permutations(range(n)))
