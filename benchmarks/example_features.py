"""Cut the example in assets/examples from the features of the CIFAR-100 test images, and write its order.

    python benchmarks/example_features.py cifar100-test-dinov2s.parquet

Takes 20 rows of each class, as `labelrank extract --max-per-class 20 --seed 0` would, and names dataset and encoder as
people know them. The same file gives the same example.
"""

from __future__ import annotations

import hashlib
import html
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import parser_of

from labelrank.features.examples import CIFAR100, FeaturesExample
from labelrank.features.joining import read_features
from labelrank.features.store import FeatureSet, write_features
from labelrank.steps.label_space import LabelSpace
from labelrank.views.marks import position_colours

SEED = 0
GROUPS = 16
"""Into so many groups the tree is cut: few enough for one screen."""
LIST = "list-style:none;margin:0;padding:0;font-size:0.85rem;line-height:1.3"
LINE = "margin:0 0 3px;padding:0 0 0 10px;border-left:5px solid "


def cut(features: FeatureSet, example: FeaturesExample) -> FeatureSet:
    """Return the rows of an example; which samples these are is decided as in `Dataset.select`."""
    rows: list[int] = []
    for label in range(len(features.class_names)):
        of_class = np.flatnonzero(features.y == label).tolist()
        drawn = sorted(of_class, key=lambda row: hashlib.sha256(f"{SEED}:{features.keys[row]}".encode()).digest())
        rows += drawn[: example.per_class]
    rows.sort()
    made = {name: value for name, value in features.provenance.items() if name not in ("dataset", "checkpoint")}
    dataset = {**features.provenance["dataset"], "id": example.dataset}
    return replace(
        features,
        X=features.X[rows],
        y=features.y[rows],
        keys=tuple(features.keys[row] for row in rows),
        rows=None,
        provenance={
            "dataset": {**dataset, "selection": f"{example.per_class} per class, seed {SEED}"},
            "checkpoint": {**features.provenance["checkpoint"], "id": example.encoder},
            **made,
        },
    )


def picture(features: FeatureSet, example: FeaturesExample) -> str:
    """Return the classes in their order as HTML: a line for each group, which begins with the colour of its place."""
    space = LabelSpace(features)
    order, group_of = space.order(example.order), space.tree.cut(GROUPS)
    colours = position_colours(len(order))
    lines, start = [], 0
    for _, rows in itertools.groupby(order, key=lambda row: group_of[row]):
        names = [space.names[row].replace("_", " ") for row in rows]
        colour = colours[start + len(names) // 2]
        start += len(names)
        lines.append(f'<li style="{LINE}{colour}">{html.escape(", ".join(names))}</li>')
    return "\n".join([f'<ol style="{LIST}">', *lines, "</ol>", ""])


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("features", type=Path, help="Features of all test images")
    args = parser.parse_args()
    example = cut(read_features(args.features), CIFAR100)
    write_features(example, CIFAR100.path)
    # What is shown is what is read back.
    CIFAR100.picture.write_text(picture(read_features(CIFAR100.path), CIFAR100), encoding="utf-8")
    for path in (CIFAR100.path, CIFAR100.picture):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
