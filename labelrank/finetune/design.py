"""The design of an experiment: arms (orders of the classes, or targets), and which rows train, validate and test."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labelrank.errors import SettingsError
from labelrank.finetune.batches import follow_positions

ORDERS = ("ranked", "original", "reversed")
"""Orders that a specification may name, beside `random:N`."""
MAX_RANDOM = 1_000

TARGETS = ("onehot", "geometry", "smoothing", "tuned-smoothing", "groups")
"""Targets that a specification may name, beside `permuted:N`; see `labelrank.steps.finetune.targets`."""

_EXAMPLE = "ranked,original,random:19"
_TARGETS_EXAMPLE = "onehot,geometry,permuted:19"
_RANDOM_WORD, _PERMUTED_WORD = "random", "permuted"
_MAX_SHARE = 0.9
# Purposes of random streams, so that no two share their numbers.
_RANDOM, _CONTROL, _PERMUTED = 1, 2, 3


@dataclass(frozen=True)
class Arm:
    """One order of the classes, or one kind of targets, as an experiment compares it."""

    name: str
    """The name in reports: ranked, original, reversed, random-1, .., control; of targets those of `TARGETS`, and
    permuted-1, .."""
    kind: str
    """ranked, original, reversed, random or control; of targets those of `TARGETS`, or permuted."""
    order: tuple[int, ...]
    """`order[position] = label`."""
    head_rows: tuple[int, ...]
    """For each position, the row of the random initial head that it starts from: 0, 1, .., K - 1. The control arm
    permutes the rows along with its classes (`head_rows = order`), so that every class starts from the same row as in
    the original order."""
    permutation: tuple[int, ...] | None = None
    """Of the classes in the targets of an arm of kind permuted; None of the others."""

    @property
    def position_of(self) -> tuple[int, ...]:
        """`position_of[label] = position`."""
        positions = [0] * len(self.order)
        for position, label in enumerate(self.order):
            positions[label] = position
        return tuple(positions)


def arms(spec: str, ranked: Sequence[int], *, seed: int = 0, control: bool = True) -> tuple[Arm, ...]:
    """Return the arms of a specification like `ranked,original,random:19`, in the same sequence.

    Random orders are drawn uniformly; a draw that repeats an order of the specification is skipped. They do not depend
    on how many there are: `random:5` are the first five of `random:19`.

    Args:
        spec: Names of `ORDERS` and at most one `random:N`, separated by commas; each at most once.
        ranked: The ranked order, `ranked[position] = label`. `reversed` is the same backwards, `original` is
            0, 1, .., K - 1.
        seed: Seed of the random orders.
        control: Add the control arm at the end, and `original` before it if the specification has no `original`. The
            control arm has a random order other than the original; it differs from all others if one is left.

    Raises:
        SettingsError: An unknown or repeated word, fewer than two classes, or more random orders than exist.
    """
    order = tuple(int(label) for label in ranked)
    n_classes = len(order)
    if sorted(order) != list(range(n_classes)):
        raise SettingsError(f"The ranked order must hold each label from 0 to {n_classes - 1} once: {list(order[:9])}.")
    if n_classes < 2:
        raise SettingsError(f"An order of {n_classes} classes leaves nothing to compare. Use two classes or more.")
    original = tuple(range(n_classes))
    fixed = {"ranked": order, "original": original, "reversed": order[::-1]}

    words, n_random = _words(spec, ORDERS, _RANDOM_WORD, "Orders", _EXAMPLE)
    taken = {fixed[word] for word in words if word in fixed}
    free = math.factorial(n_classes) - len(taken)
    if n_random > free:
        named = ", ".join(word for word in words if word in fixed)
        raise SettingsError(
            f"random:{n_random} asks for more orders than there are: {n_classes} classes have "
            f"{math.factorial(n_classes)}{f', {len(taken)} of them taken by {named}' if named else ''}. "
            + (f"Ask for at most random:{free}." if free else "Leave random out.")
        )
    rng = np.random.default_rng([seed, _RANDOM])
    found = []
    for word in words:
        if word in fixed:
            found.append(Arm(word, word, fixed[word], original))
            continue
        for number in range(1, n_random + 1):
            drawn = _another(n_classes, taken, rng)
            taken.add(drawn)
            found.append(Arm(f"random-{number}", "random", drawn, original))
    if control:
        if "original" not in words:
            found.append(Arm("original", "original", original, original))
        taken.add(original)
        if len(taken) == math.factorial(n_classes):
            taken = {original}
        drawn = _another(n_classes, taken, np.random.default_rng([seed, _CONTROL]))
        found.append(Arm("control", "control", drawn, drawn))
    return tuple(found)


def check_head_rows(arm: Arm, meaning: str, *, exchangeable: bool, batches: str) -> None:
    """Check that an arm permutes the head's rows only where that makes it equal the original order.

    Raises:
        SettingsError: Positions have a meaning, or batches follow positions.
    """
    if arm.head_rows == tuple(range(len(arm.order))) or (exchangeable and not follow_positions(batches)):
        return
    needed, given, other = (
        ("batches do not follow positions", f"they are {batches}", "shuffled batches")
        if exchangeable
        else ("positions have no meaning", f"the meaning is {meaning}", "softmax")
    )
    raise SettingsError(
        f"The {arm.name} arm permutes the head's rows along with its classes. That is a valid control only if "
        f"{needed}, but {given}. Leave the arm out, or use {other}."
    )


def target_arms(spec: str, n_classes: int, *, seed: int = 0) -> tuple[Arm, ...]:
    """Return the arms of a specification like `onehot,geometry,permuted:19`, in the same sequence.

    All have the original order. Permutations are drawn as random orders are; none is the identity.

    Args:
        spec: Names of `TARGETS` and at most one `permuted:N`, separated by commas; each at most once.
        seed: Seed of the permutations.

    Raises:
        SettingsError: An unknown or repeated word, fewer than two classes, or more permutations than exist.
    """
    if n_classes < 2:
        raise SettingsError(f"Targets of {n_classes} classes leave nothing to compare. Use two classes or more.")
    words, n_permuted = _words(spec, TARGETS, _PERMUTED_WORD, "Targets", _TARGETS_EXAMPLE)
    free = math.factorial(min(n_classes, 8)) - 1
    if n_permuted > free:
        raise SettingsError(
            f"permuted:{n_permuted} asks for more permutations than the {free} that {n_classes} classes have besides "
            f"none. Ask for at most permuted:{free}."
        )
    original = tuple(range(n_classes))
    rng, taken = np.random.default_rng([seed, _PERMUTED]), {original}
    found = []
    for word in words:
        if word in TARGETS:
            found.append(Arm(word, word, original, original))
            continue
        for number in range(1, n_permuted + 1):
            drawn = _another(n_classes, taken, rng)
            taken.add(drawn)
            found.append(Arm(f"permuted-{number}", "permuted", original, original, permutation=drawn))
    return tuple(found)


def fitting_targets(spec: str, n_classes: int) -> str:
    """Return a specification with fewer permutations if `n_classes` classes do not have as many."""
    return _fitting(spec, _PERMUTED_WORD, math.factorial(min(n_classes, 8)) - 1)


def fitting_orders(spec: str, n_classes: int) -> str:
    """Return a specification with fewer random orders if `n_classes` classes do not have as many.

    If there are none besides the named orders, `random` is left out.
    """
    named = sum(not word.strip().startswith(f"{_RANDOM_WORD}:") for word in spec.split(","))
    # 8 classes already have more orders than a specification may ask for.
    return _fitting(spec, _RANDOM_WORD, math.factorial(min(n_classes, 8)) - named)


def _fitting(spec: str, drawn: str, free: int) -> str:
    words = [word.strip() for word in spec.split(",")]
    fixed = [word for word in words if not word.startswith(f"{drawn}:")]
    fitted = []
    for word in words:
        if word in fixed:
            fitted.append(word)
        elif (count := min(int(word.partition(":")[2]), free)) > 0:
            fitted.append(f"{drawn}:{count}")
    return ",".join(fitted)


def _words(spec: str, named: Sequence[str], drawn: str, what: str, example: str) -> tuple[list[str], int]:
    """Return the words of a specification, and how many orders or targets it asks to draw."""
    words: list[str] = []
    n_drawn = 0
    for word in (part.strip() for part in spec.split(",")):
        name, colon, count = word.partition(":")
        if name == drawn:
            if not (colon and count.isascii() and count.isdigit() and 1 <= len(count) <= 4):
                raise SettingsError(f"{what} hold {word!r}; say how many {drawn} {what.lower()}, as in {drawn}:19.")
            n_drawn = int(count)
            if not 1 <= n_drawn <= MAX_RANDOM:
                raise SettingsError(f"{what} hold {word!r}; {drawn} {what.lower()} are from 1 to {MAX_RANDOM:,}.")
        elif word not in named:
            raise SettingsError(
                f"{what} hold {word!r}; expected {', '.join(named)} or {drawn}:N, with commas between, as in {example}."
            )
        if name in (known.partition(":")[0] for known in words):
            raise SettingsError(f"{what} hold {name!r} twice: {spec!r}. Name each once, as in {example}.")
        words.append(word)
    return words, n_drawn


def _another(n_classes: int, taken: set[tuple[int, ...]], rng: np.random.Generator) -> tuple[int, ...]:
    """Return a random order that is not in `taken`; there must be one left."""
    while True:
        drawn = tuple(rng.permutation(n_classes).tolist())
        if drawn not in taken:
            return drawn


def split_rows(keys: Sequence[str], y: np.ndarray, *, share: float, seed: int) -> np.ndarray:
    """Return which rows are held out, bool (n,): in each class, the rows with the lowest hashes of seed and key.

    The choice depends on the keys, not on the sequence of the rows. In a class with two or more rows, at least one row
    is held out and at least one is not; the row of a class with one row is not held out.

    Args:
        keys: One per row; all must differ, else rows with equal keys may end on both sides.
        y: Integer labels (n,).
        share: In (0, 0.9], of each class, rounded to whole rows.
        seed: Another seed draws other rows.

    Raises:
        SettingsError: The share is not valid, or the numbers of keys and labels differ.
    """
    y = np.asarray(y)
    if not 0 < share <= _MAX_SHARE:
        raise SettingsError(f"The share of samples held out is {share}; expected more than 0, up to {_MAX_SHARE}.")
    if y.shape != (len(keys),):
        raise SettingsError(f"There are {len(keys)} keys and labels of shape {y.shape}; expected one label per key.")
    drawn = [hashlib.sha256(f"{seed}:{key}".encode("utf-8", "surrogatepass")).digest() for key in keys]
    held_out = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        rows = sorted(np.flatnonzero(y == label).tolist(), key=drawn.__getitem__)
        if len(rows) > 1:
            count = min(max(math.floor(share * len(rows) + 0.5), 1), len(rows) - 1)
            held_out[rows[:count]] = True
    return held_out
