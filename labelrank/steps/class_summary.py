"""Classes: from a features file to which of them are near each other and which are mixed up, with their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labelrank.errors import RankingError
from labelrank.json_values import plain

if TYPE_CHECKING:
    from labelrank.ranking.confusions import Share
    from labelrank.ranking.pairs import ClassPair, Pairs
    from labelrank.steps.label_space import LabelSpace


@dataclass(frozen=True)
class Expected:
    """What a linear discriminant analysis says of rows that it was not fitted to, before any training."""

    accuracy: Share
    level: float
    """Confidence level of all intervals."""
    too_low: bool
    """Whether classes have so few rows that leaving one out makes the accuracy, and each recall, too low."""
    enough_rows: int
    """Rows per class from which it does not."""
    not_judged: int
    """Rows that are the only ones of their class: without them it is unknown."""
    priors: str
    """equal or frequency."""
    shrinkage: float
    """Of the within-class covariance; the intensity that was used, in [0, 1]."""


@dataclass(frozen=True)
class ClassLine:
    """One class."""

    name: str
    label: int
    rows: int
    recall: Share
    """Of no rows where none is judged."""
    most_taken_for: str | None
    """The other class that most of its rows were taken for; None if all were right."""


@dataclass(frozen=True)
class NamedPair:
    """Two classes; see `labelrank.ranking.pairs`."""

    first: str
    second: str
    distance: float
    place_by_distance: int | None
    place_by_confusion: int | None
    first_as_second: int
    """Rows of the first that were taken for the second."""
    second_as_first: int
    mixed: Share


@dataclass(frozen=True)
class PairLists:
    """Two lists of pairs, which differ."""

    nearest: tuple[NamedPair, ...]
    most_confused: tuple[NamedPair, ...]
    near_but_told_apart: tuple[NamedPair, ...]
    """Those of `nearest` that are not in `most_confused`."""
    confused_but_apart: tuple[NamedPair, ...]
    """Those of `most_confused` that are not in `nearest`."""


@dataclass(frozen=True)
class Cell:
    """Rows of a class that were taken for another."""

    true: str
    taken_for: str
    rows: int


@dataclass(frozen=True)
class ClassSummary:
    """What is known of the classes of a features file."""

    expected: Expected
    classes: tuple[ClassLine, ...]
    """By label."""
    absent: tuple[str, ...]
    """Names of classes without rows."""
    pairs: PairLists
    no_distances: str | None
    """Why no pair is nearest: the class means lie no farther apart than by chance. None where that is known."""
    confusions: tuple[Cell, ...]
    """All cells with rows beside the diagonal, by label."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: the fields of this class and of those in it; shares of no rows are null."""
        result: dict[str, Any] = plain(self)
        return result


def summary_of(space: LabelSpace, *, pairs: int = 20) -> ClassSummary:
    """Return what is known of the classes, with as many pairs in each list.

    Raises:
        RankingError: As for `LabelSpace.confusions`, or `pairs` is less than 1.
    """
    from labelrank.ranking.confusions import LEVEL, MAX_SETBACK
    from labelrank.ranking.pairs import pairs as pairs_of

    found = space.confusions
    geometry, no_distances = None, None
    try:
        geometry = space.geometry
    except RankingError as error:
        no_distances = str(error)
    cells = _cells(space)
    return ClassSummary(
        expected=Expected(
            accuracy=found.accuracy,
            level=LEVEL,
            too_low=found.setback > MAX_SETBACK,
            enough_rows=found.enough_rows,
            not_judged=len(found.predicted) - found.accuracy.of,
            priors=found.priors,
            shrinkage=found.shrinkage,
        ),
        classes=_classes(space, cells),
        absent=space.absent,
        pairs=_named(pairs_of(geometry, found, pairs), space.names),
        no_distances=no_distances,
        confusions=cells,
    )


def _cells(space: LabelSpace) -> tuple[Cell, ...]:
    counts, names = space.confusions.counts.tocoo(), space.names
    found = sorted(zip(counts.row.tolist(), counts.col.tolist(), counts.data.tolist(), strict=True))
    return tuple(Cell(names[true], names[taken], rows) for true, taken, rows in found if true != taken)


def _classes(space: LabelSpace, cells: Sequence[Cell]) -> tuple[ClassLine, ...]:
    from labelrank.ranking.confusions import Share

    found = space.confusions
    most: dict[str, Cell] = {}
    for cell in cells:
        if cell.true not in most or cell.rows > most[cell.true].rows:
            most[cell.true] = cell
    lines = zip(space.names, found.labels, found.count, found.judged, found.counts.diagonal(), strict=True)
    return tuple(
        ClassLine(
            name=name,
            label=int(label),
            rows=int(rows),
            recall=Share.of_rows(int(right), int(judged)),
            most_taken_for=most[name].taken_for if name in most else None,
        )
        for name, label, rows, judged, right in lines
    )


def _named(found: Pairs, names: Sequence[str]) -> PairLists:
    def named(pairs: Sequence[ClassPair]) -> tuple[NamedPair, ...]:
        return tuple(
            NamedPair(
                first=names[pair.confused.a],
                second=names[pair.confused.b],
                distance=pair.distance,
                place_by_distance=pair.place_by_distance,
                place_by_confusion=pair.place_by_confusion,
                first_as_second=pair.confused.a_as_b,
                second_as_first=pair.confused.b_as_a,
                mixed=pair.confused.mixed,
            )
            for pair in pairs
        )

    return PairLists(
        nearest=named(found.nearest),
        most_confused=named(found.most_confused),
        near_but_told_apart=named(found.near_but_told_apart),
        confused_but_apart=named(found.confused_but_apart),
    )
