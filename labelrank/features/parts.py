"""The parts of an extraction: the samples of each file, and the folder of the finished parts.

Each part is encoded on its own and written as a whole. So an interruption costs at most the current part, and the
finished files are the same, byte for byte, with or without interruptions.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from labelrank.data.dataset import Dataset, Sample
from labelrank.errors import FeaturesError
from labelrank.features.store import FeatureSet, column_of, read_part, write_features
from labelrank.features.streamed import StreamedRows


@dataclass(frozen=True)
class Part:
    """Samples that are encoded and written together, in dataset order."""

    samples: tuple[Sample, ...]
    rounds: int
    """Number of rounds of the dataset that this part and those before it complete."""

    @property
    def name(self) -> str:
        """File name of the part, derived from its samples."""
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
    """Return the parts of a dataset: consecutive rounds (see `Dataset.rounds`) with about `size` samples together.

    With the same seed, an extraction of fewer samples per class has the first parts of one of more samples, except
    for its last part.

    Args:
        size: A part ends with the round that reaches this number of samples; a round of more than twice as many is
            split.
        ends_at: Tells whether a part must end with this round, counted from 1, even if it is short.
        shard: Index, counted from 1, and number of equal runs of the rounds, of which this one is taken. Where a shard
            begins and ends depends only on the number of samples.
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
    """The folder of the finished parts of one extraction.

    Args:
        path: The folder, created when the first part is written.
        digest: `FeatureSet.digest` of the features in it.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self.path = path
        self._digest = digest

    def has(self, part: Part) -> bool:
        """Return whether the file of this part exists; `read` checks its content."""
        return (self.path / part.name).is_file()

    def read(self, part: Part) -> FeatureSet | None:
        """Return a finished part; None if it does not exist or is damaged. A damaged part is reported and removed."""
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

    def unheld(self, part: Part, features: FeatureSet) -> FeatureSet:
        """Return the features of a finished part with its vectors left in its file."""
        if not features.keys:
            return features
        path, width = self.path / part.name, features.X.shape[1]
        return replace(features, X=StreamedRows.of_file(path, column_of(features.provenance), width))

    def write(self, part: Part, features: FeatureSet) -> None:
        """Write a finished part.

        Raises:
            FeaturesError: The part cannot be written; earlier parts are kept.
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
        """Remove the files of some parts."""
        for part in parts:
            (self.path / part.name).unlink(missing_ok=True)

    def __len__(self) -> int:
        """Return the number of finished parts."""
        return sum(1 for _ in self.path.glob("[!.]*.parquet"))
