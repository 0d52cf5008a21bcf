"""Two label maps side by side: how far their orders agree, and which classes moved."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from labelrank.errors import LabelMapError
from labelrank.label_map import LabelMap
from labelrank.notices import Notice

_NAMED = 5


@dataclass(frozen=True)
class Moved:
    """A class that both label maps have."""

    name: str
    """As the first map spells it."""
    label: int
    """Its label in the first map."""
    first: int
    """Its position among the common classes in the first map."""
    second: int
    """That in the second map."""
    moved: int
    """How many positions it moved, by the direction in which the orders agree."""


@dataclass(frozen=True)
class MapComparison:
    """How two orders of the same classes agree."""

    classes: tuple[Moved, ...]
    """The common classes, in the order of the first map."""
    tau: float
    """Kendall's tau of the positions, from -1, the reverse, to 1, the same order. That with the reverse of the second
    order is `-tau`."""
    turned: bool
    """Whether the orders agree better in opposite directions; `Moved.moved` then counts after the second was turned."""
    same_content: bool
    """Whether the content hashes are equal: both files say the same, save for times and versions."""
    missing: tuple[str, ...]
    """Classes of the first map that the second lacks."""
    extra: tuple[str, ...]
    """Classes of the second map that the first lacks."""
    respelled: tuple[tuple[str, str], ...]
    """Names that differ in case or Unicode form alone, and are taken for one class."""
    relabelled: tuple[str, ...]
    """Common classes that have another label in the second map."""

    @property
    def most_moved(self) -> tuple[Moved, ...]:
        """The common classes, those that moved most first, then by position in the first map."""
        return tuple(sorted(self.classes, key=lambda one: (-abs(one.moved), one.first)))

    @property
    def chance(self) -> float:
        """The tau that two random orders of as many classes exceed in size once in 20 times, nearly; at most 1."""
        n = len(self.classes)
        return min(1.0, 1.96 * math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1))))

    @property
    def stayed(self) -> int:
        """How many classes have the same position in both."""
        return sum(one.moved == 0 for one in self.classes)

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What does not match, class by class."""
        texts = [
            ("missing", _quoted(self.missing), "The second label map lacks {}."),
            ("extra", _quoted(self.extra), "Only the second label map has {}."),
            (
                "respelled",
                [f"{one!r} = {other!r}" for one, other in self.respelled],
                "Names that differ in case or Unicode form alone are taken for one class: {}.",
            ),
            (
                "relabelled",
                _quoted(self.relabelled),
                "The label, the number in the source, differs for {}: a model that was trained with one map cannot "
                "be read with the other.",
            ),
        ]
        found = [Notice(kind, text.format(_listed(names))) for kind, names, text in texts if names]
        if self.missing or self.extra:
            found.append(Notice("common", f"The {len(self.classes):,} common classes are compared among themselves."))
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "tau": self.tau,
            "tau_reversed": -self.tau,
            "tau_by_chance": self.chance,
            "turned": self.turned,
            "same_content": self.same_content,
            "classes": [asdict(one) for one in self.classes],
            "missing": list(self.missing),
            "extra": list(self.extra),
            "respelled": [list(pair) for pair in self.respelled],
            "relabelled": list(self.relabelled),
            "notices": [notice.to_json() for notice in self.notices],
        }


def compare_maps(first: LabelMap, second: LabelMap) -> MapComparison:
    """Return how the orders of two label maps agree.

    Classes are matched by name; where maps have different classes, the common ones are compared among themselves.

    Raises:
        LabelMapError: The maps have fewer than two classes in common.

    Source: Kendall 1938, "A new measure of rank correlation".
    """
    here, there = ({_folded(one.name): one for one in label_map.classes} for label_map in (first, second))
    common = [name for name in here if name in there]
    if len(common) < 2:
        raise LabelMapError(
            f"The label maps have {'one class' if common else 'no class'} in common; two are needed to compare orders. "
            f"One has {_listed(_quoted(first.names))}; the other {_listed(_quoted(second.names))}. Give maps of the "
            "same classes."
        )
    place = {name: position for position, name in enumerate(name for name in there if name in here)}
    tau = kendall([place[name] for name in common])
    turned = tau < 0
    target = {name: len(common) - 1 - position for name, position in place.items()} if turned else place
    return MapComparison(
        classes=tuple(
            Moved(here[name].name, here[name].label, position, place[name], target[name] - position)
            for position, name in enumerate(common)
        ),
        tau=tau,
        turned=turned,
        same_content=first.content_hash == second.content_hash,
        missing=tuple(one.name for name, one in here.items() if name not in there),
        extra=tuple(one.name for name, one in there.items() if name not in here),
        respelled=tuple((here[name].name, there[name].name) for name in common if here[name].name != there[name].name),
        relabelled=tuple(here[name].name for name in common if here[name].label != there[name].label),
    )


def kendall(positions: Sequence[int]) -> float:
    """Return Kendall's tau of an order with the sorted one; there are no ties.

    Args:
        positions: The second position of each class, by the first; a permutation of at least two.
    """
    from scipy.stats import kendalltau  # takes a second to import

    pairs = len(positions) * (len(positions) - 1) // 2
    # A whole number of pairs, so that equal orders have exactly 1.
    return round(float(kendalltau(range(len(positions)), positions).statistic) * pairs) / pairs


def _folded(name: str) -> str:
    """Return a name without what a label map does not tell apart: case and Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _quoted(names: Collection[str]) -> list[str]:
    return [repr(name) for name in names]


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(texts[:_NAMED]) + (f" and {len(texts) - _NAMED:,} more" if len(texts) > _NAMED else "")
