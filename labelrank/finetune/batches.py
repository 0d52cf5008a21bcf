"""In which sequence the training rows are shown: shuffled, or as a stream sorted by class and shuffled a little.

With the usual full shuffle, batches know nothing of the classes' positions. A stream that is read class by class and
shuffled through a buffer does: which classes a batch holds together depends on which positions are near. There the
order matters even with a plain softmax, so these streams are positive controls of a comparison.
"""

from __future__ import annotations

import re

import numpy as np

from labelrank.errors import SettingsError

SHUFFLED = "shuffled"
SORTED = "sorted"
_BUFFER = re.compile(r"buffer:([1-9][0-9]{0,8})")


def buffer_size(batches: str) -> int | None:
    """Return how many rows are shuffled at a time; None: all of them.

    Args:
        batches: shuffled; sorted, which is a buffer of 1; or buffer:N.

    Raises:
        SettingsError: It is none of these.
    """
    if batches == SHUFFLED:
        return None
    if batches == SORTED:
        return 1
    if found := _BUFFER.fullmatch(batches):
        return int(found[1])
    raise SettingsError(f"Batches are {batches!r}; choose shuffled, sorted or buffer:N, such as buffer:500.")


def follow_positions(batches: str) -> bool:
    """Return whether the rows of a batch depend on the positions of the classes."""
    return buffer_size(batches) is not None


def row_sequence(positions: np.ndarray, batches: str, rng: np.random.Generator) -> np.ndarray:
    """Return the sequence in which an epoch shows its rows, int64 (n,): each row once.

    Args:
        positions: Position of each row's class, int (n,). Without a full shuffle the stream begins as the rows of
            position 0, as they are, then those of position 1, and so on.

    Source: tf.data's `Dataset.shuffle`: the buffer is filled with the first rows of the stream; one of it is drawn
    uniformly and replaced by the stream's next row, until the stream and then the buffer are empty.
    """
    size = buffer_size(batches)
    if size is None:
        return rng.permutation(len(positions))
    stream = np.argsort(positions, kind="stable")
    buffer, following = stream[:size].tolist(), stream[size:].tolist()
    shown = []
    for place, row in zip(rng.integers(len(buffer), size=len(following)).tolist(), following, strict=True):
        shown.append(buffer[place])
        buffer[place] = row
    # Drawing from what is left until nothing is left is a permutation of it.
    rest = buffer if size == 1 else rng.permutation(buffer).tolist()
    return np.array(shown + rest, dtype=np.int64)
