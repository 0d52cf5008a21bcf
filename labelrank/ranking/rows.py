"""What the ranking needs of a matrix of features: to read it in blocks of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

_BLOCK_ROWS = 65_536


class RowsInFiles(ABC):
    """A matrix (n, d) of float32 that lies in files. Whoever reads them checks that all values are finite."""

    dtype = np.dtype(np.float32)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(n, d)."""

    @abstractmethod
    def __len__(self) -> int:
        """Return n."""

    @abstractmethod
    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return rows (m, d): those of a slice, of a mask, or with these numbers."""

    @abstractmethod
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all rows, or raise a LabelRankError where they do not fit into memory."""


Rows = np.ndarray | RowsInFiles
"""A real matrix (n, d)."""


def row_blocks(n: int, size: int = _BLOCK_ROWS) -> Iterator[slice]:
    """Yield slices of at most `size` rows that cover n rows in order."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
