"""The list of samples to look at: its rows, its sentences and its CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

import numpy as np

from labelrank.exports import neutral_cell
from labelrank.features.store import FeatureSet
from labelrank.ranking.audit import SampleAudit
from labelrank.ranking.duplicates import NearDuplicates
from labelrank.words import plural, share_text

COLUMNS = {
    "rank": "Place in the list, from 1.",
    "key": "Name of the sample in the dataset.",
    "class": "The class that it has in the dataset.",
    "nearest_other": "The other class that it fits best.",
    "own_fit": "How well it fits its own class, which is taken without it: a probability from 0 to 1, lowest first.",
    "other_fit": "How well it fits the nearest other class; the fits of all classes sum to 1.",
    "duplicates_of": "The sample of the same features that it is most like, if it is nearly identical to one.",
    "likeness": "Of these two: 1 is identical, 0 as far apart as two samples of a class.",
    "duplicate_group": "Samples with the same number are nearly identical, in pairs that hang together.",
}
"""Column of the CSV -> what it holds."""
FITS_HOLD_FROM = 10
"""Samples per feature. Of 5 and fewer, twice to many times as many samples as `SampleAudit.elsewhere` says are taken
for another class where each is left out in full (CIFAR-100, DINOv2-small)."""
LEAK_COLUMN = "in_other_file"
"""Column of the samples of another split that these are nearly identical to."""


def sample_rows(
    features: FeatureSet,
    names: Sequence[str],
    audit: SampleAudit,
    duplicates: NearDuplicates,
    *,
    chosen: np.ndarray,
    leaks: tuple[NearDuplicates, Sequence[str]] | None = None,
) -> list[dict[str, str | int | float | None]]:
    """Return the `COLUMNS` of some samples.

    Args:
        names: Of the classes, in the order of the audit's indices.
        chosen: Indices of the samples, in the order of the result.
        leaks: The samples that are in another split too, and the keys of that split.
    """
    place = np.empty(len(audit.order), dtype=np.int64)
    place[audit.order] = np.arange(1, len(place) + 1)
    rows = []
    for i in chosen:
        near, group = int(duplicates.nearest[i]), int(duplicates.group[i])
        row: dict[str, str | int | float | None] = {
            "rank": int(place[i]),
            "key": features.keys[i],
            "class": names[audit.own[i]],
            "nearest_other": names[audit.other[i]],
            "own_fit": _number(audit.own_fit[i]),
            "other_fit": _number(audit.other_fit[i]),
            "duplicates_of": features.keys[near] if near >= 0 else None,
            "likeness": _number(duplicates.likeness[i]),
            "duplicate_group": group if group >= 0 else None,
        }
        if leaks is not None:
            there, keys = leaks
            row[LEAK_COLUMN] = keys[there.nearest[i]] if there.nearest[i] >= 0 else None
        rows.append(row)
    return rows


def samples_csv(rows: Sequence[dict[str, str | int | float | None]], *, with_leaks: bool = False) -> bytes:
    """Return rows as CSV with a header, in which a spreadsheet runs nothing."""
    table = io.StringIO()
    columns = [*COLUMNS, *([LEAK_COLUMN] if with_leaks else [])]
    writer = csv.writer(table, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        cells = [row[name] for name in columns]
        writer.writerow([neutral_cell(cell) if isinstance(cell, str) else cell for cell in cells])
    return table.getvalue().encode()


def audit_text(audit: SampleAudit, n_features: int) -> str:
    """Return how many samples fit another class better than their own."""
    n, elsewhere = len(audit.own), int(audit.elsewhere.sum())
    doubt = ", as far as so few samples tell" if too_well_text(n, n_features) else ""
    if elsewhere > 1:
        return f"{elsewhere:,} of {n:,} samples fit another class better than their own{doubt}"
    return f"{elsewhere or 'None'} of {n:,} samples fits another class better than its own{doubt}"


def too_well_text(n_samples: int, n_features: int, accuracy_at: str = "") -> str:
    """Return why fits are too high and what is not; empty where there are samples enough.

    Args:
        accuracy_at: Where the reader finds the expected accuracy.
    """
    if n_samples >= FITS_HOLD_FROM * n_features:
        return ""
    return (
        f"{n_samples:,} samples of {n_features:,} features are few: the directions that tell the classes apart were "
        "found with these very samples, so nearly all seem to fit their own class, and the fits are too high. The "
        f"expected accuracy ({accuracy_at}) leaves each sample out of all that, and holds. Take this list as an order "
        "in which to look."
    )


def duplicates_text(own: np.ndarray, duplicates: NearDuplicates) -> str:
    """Return how many samples are nearly identical, and how many of their groups are in several classes.

    Args:
        own: The class of each sample, int64 (n,).
    """
    there = duplicates.group >= 0
    if not there.any():
        return "No samples are nearly identical"
    groups = int(duplicates.group.max()) + 1
    pairs = np.unique(np.stack([duplicates.group[there], own[there]]), axis=1)
    across = int(np.sum(np.bincount(pairs[0]) > 1))
    several = f", {across:,} of them in several classes" if across else ""
    return f"{int(there.sum()):,} samples are nearly identical to another, in {plural(groups, 'group')}{several}"


def threshold_text(duplicates: NearDuplicates) -> str:
    """Return what nearly identical means here."""
    if duplicates.threshold == 1:
        return "With so few features, or so many samples, only identical ones are told."
    apart = share_text(1 - duplicates.threshold)
    return (
        f"Nearly identical: their squared distance is at most {apart} of what two samples of a class have, as for "
        "an image saved anew, resized or brightened. Some pairs are only very similar: look at them."
    )


def leak_text(leaks: NearDuplicates, n_others: int, where: str) -> str | None:
    """Return that samples are in another split too; None where none is."""
    if not (found := int(np.sum(leaks.nearest >= 0))):
        return None
    others, are = len(np.unique(leaks.nearest[leaks.nearest >= 0])), "is" if found == 1 else "are"
    return (
        f"Leak: {found:,} of {len(leaks.nearest):,} samples {are} nearly identical to {others:,} of the {n_others:,} "
        f"in {where}. An accuracy measured across the two is too good; take these samples out of one of them."
    )


def _number(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None
