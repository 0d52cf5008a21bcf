"""From the parts of an extraction to all its features."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from labelrank.data.dataset import NOUNS
from labelrank.errors import DatasetError
from labelrank.features import streamed
from labelrank.features.folder import stacked
from labelrank.features.joining import joined_circumstances
from labelrank.features.parts import Part, PartFolder
from labelrank.features.store import FeatureSet, classes_without_rows
from labelrank.features.streamed import StreamedRows
from labelrank.ranking.rows import Rows
from labelrank.steps.extract.engines.keeping import now, versions
from labelrank.steps.extract.plan import Plan


class Found:
    """The parts of an extraction that are finished; vectors that do not fit into memory stay in the parts' files."""

    def __init__(self, folder: PartFolder) -> None:
        self._folder = folder
        self._parts: list[tuple[Part, FeatureSet]] = []
        self._bytes = 0

    def take(self, part: Part, features: FeatureSet) -> None:
        """Take in the next part, whose file is in the folder."""
        self._bytes += 4 * features.X.shape[0] * features.X.shape[1]
        self._parts.append((part, features))
        if self._bytes > streamed.HELD_BYTES:
            self._parts = [
                (part, made if isinstance(made.X, StreamedRows) else self._folder.unheld(part, made))
                for part, made in self._parts
            ]

    def whole(self, plan: Plan) -> FeatureSet:
        """Return the features of all parts, in the dataset's order or in that of the files in which they lie.

        This lets go of the parts.

        Raises:
            DatasetError: There were samples, but none could be used.
        """
        place = {sample.key: row for row, sample in enumerate(plan.dataset.samples)}
        parts = [features for _, features in self._parts]
        self._parts.clear()
        failures, notices = (
            sorted((p for problems in lists for p in problems), key=lambda p: place[p.subject])
            for lists in ([part.failures for part in parts], [part.notices for part in parts])
        )
        parts = [part for part in parts if part.keys]
        if not parts and plan.parts:
            samples, nouns = sum(len(part.samples) for part in plan.parts), NOUNS[plan.dataset.media][1]
            first = f" The first, {failures[0].subject}: {failures[0].reason}" if failures else ""
            raise DatasetError(f"None of the {samples:,} {nouns} of {plan.dataset.id} could be used.{first}")
        # An empty shard has no parts that tell where it was made.
        nobody = {"device": plan.device.kind, "versions": versions(), "created_at": now()}
        provenance = {**plan.provenance, **(joined_circumstances(parts) or nobody)}
        if plan.request.shard is not None:
            provenance["shard"] = dict(zip(("index", "count"), plan.request.shard, strict=True))
        keys = [key for part in parts for key in part.keys]
        rows = np.array([place[key] for key in keys], dtype=np.int64)
        y = np.concatenate([part.y for part in parts] or [np.empty(0, np.int32)])
        missing = () if plan.request.shard else classes_without_rows(plan.dataset.class_names, y)
        order, X = _in_dataset_order(parts, rows)
        return FeatureSet(
            X=X,
            y=y[order],
            keys=tuple(keys[i] for i in order),
            class_names=plan.dataset.class_names,
            provenance=provenance,
            failures=(*plan.dataset.problems, *failures, *missing),
            notices=tuple(notices),
            rows=rows[order] if plan.request.shard or isinstance(X, StreamedRows) else None,
        )


def files_of(features: FeatureSet, plan: Plan, folder: PartFolder) -> tuple[list[Path], np.ndarray]:
    """Return the files of a plan's parts in which features lie, and the index in the dataset of each of their rows."""
    place = {sample.key: row for row, sample in enumerate(plan.dataset.samples)}
    used, files, rows = set(features.keys), [], []
    for part in plan.parts:
        if inside := [place[sample.key] for sample in part.samples if sample.key in used]:
            files.append(folder.path / part.name)
            rows += inside
    return files, np.array(rows, dtype=np.int64)


def _in_dataset_order(parts: list[FeatureSet], rows: np.ndarray) -> tuple[np.ndarray, Rows]:
    """Return row numbers in the order to take, and the vectors in it; `parts` is emptied, so they are held once."""
    if any(isinstance(part.X, StreamedRows) for part in parts):
        return np.arange(len(rows)), stacked([part.X for part in parts])
    order = np.argsort(rows)
    target = np.argsort(order)
    X = np.empty((len(rows), parts[0].X.shape[1] if parts else 0), np.float32)
    start = 0
    while parts:
        part = parts.pop(0)
        X[target[start : start + len(part.X)]] = part.X
        start += len(part.X)
    return order, X
