"""The parts of an extraction: which samples go into which file, and the folder that keeps the finished ones.

A part is encoded by itself and written whole, so that whatever stops an extraction costs at most the part in work,
and what is finished is the same, byte for byte, however often it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labelrank.data.dataset import Dataset, Sample
from labelrank.errors import FeaturesError
from labelrank.features.store import FeatureSet, read_part, write_features


@dataclass(frozen=True)
class Part:
    """Samples that are encoded and written together, in dataset order."""

    samples: tuple[Sample, ...]
    rounds: int
    """Rounds of the dataset that are complete with this part and those before it."""

    @property
    def name(self) -> str:
        """A file name that stands for exactly these samples."""
        keys = json.dumps([sample.key for sample in self.samples])
        return f"{hashlib.sha256(keys.encode()).hexdigest()[:32]}.parquet"


def cut(
    dataset: Dataset,
    *,
    seed: int,
    size: int,
    ends_at: Callable[[int], bool],
    shard: tuple[int, int] = (1, 1),
) -> tuple[Part, ...]:
    """Return the parts of a dataset: consecutive rounds, see `Dataset.rounds`, of about `size` samples together.

    The parts of fewer samples per class, drawn with the same seed, are the first of those of more, up to the last.

    Args:
        size: Samples after which a part ends with its round; a round of more than twice as many is cut up.
        ends_at: Whether a part ends with this round, counted from 1, however short it is.
        shard: Which of how many equal runs of the rounds to take, counted from 1. Where a shard begins and ends
            depends on the number of samples alone.
    """
    place = {sample.key: number for number, sample in enumerate(dataset.samples)}
    index, count = shard
    first, end = ((i * len(place)) // count for i in (index - 1, index))

    def part(samples: Sequence[Sample], rounds: int) -> Part:
        return Part(tuple(sorted(samples, key=lambda sample: place[sample.key])), rounds)

    def pieces() -> Iterator[Part]:
        waiting: list[Sample] = []
        seen = 0
        for number, drawn in enumerate(dataset.rounds(seed), start=1):
            inside = drawn[max(0, first - seen) : max(0, end - seen)]
            seen += len(drawn)
            waiting += inside
            while len(waiting) > 2 * size:
                yield part(waiting[:size], number - 1)
                waiting = waiting[size:]
            if waiting and (len(waiting) >= size or ends_at(number) or seen >= end):
                yield part(waiting, number)
                waiting = []

    return tuple(pieces())


class PartFolder:
    """The finished parts of one piece of work.

    Args:
        path: Made when the first part is written.
        digest: Of the features in it, see `FeatureSet.digest`.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self.path = path
        self._digest = digest

    def has(self, part: Part) -> bool:
        """Return whether there is a file of this part; `read` tells whether it is sound."""
        return (self.path / part.name).is_file()

    def read(self, part: Part) -> FeatureSet | None:
        """Return a finished part; None when it is not there, or is damaged, which is reported and removed."""
        path = self.path / part.name
        if not path.is_file():
            return None
        try:
            features = read_part(path)
            if features.digest != self._digest:
                raise FeaturesError(f"{path} holds the features of other work; expected those its folder stands for.")
            if len(features.keys) + len(features.failures) != len(part.samples):
                raise FeaturesError(f"{path} does not account for all {len(part.samples):,} samples of its part.")
        except FeaturesError as error:
            print(f"A part is made again: {error}", file=sys.stderr, flush=True)
            path.unlink(missing_ok=True)
            return None
        return features

    def write(self, part: Part, features: FeatureSet) -> None:
        """Keep a finished part.

        Raises:
            FeaturesError: It cannot be written; the parts before it stay.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_features(features, self.path / part.name)
        except (OSError, FeaturesError) as error:
            raise FeaturesError(
                f"{error} {len(self):,} finished parts are kept in {self.path}. Free some space there, and start the "
                "same extraction again: it goes on from them."
            ) from error

    def remove(self, parts: Sequence[Part]) -> None:
        """Remove some parts."""
        for part in parts:
            (self.path / part.name).unlink(missing_ok=True)

    def __len__(self) -> int:
        """Return how many parts are finished."""
        return sum(1 for _ in self.path.glob("[!.]*.parquet"))
