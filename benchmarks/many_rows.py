"""Time and memory of ranking more rows than are held in memory.

    python benchmarks/many_rows.py [--rows 1000000 5000000] [--features 768] [--classes 1000] [--folder DIR]
    python benchmarks/many_rows.py --rows 300000 1000000 --commands finetune

It writes features of that many rows (3 kB each at 768), drawn around class means, and runs commands on them, each in a
process of its own: seconds, seconds per million rows, peak memory, and how much of it is the process's own, without
pages of files, which the system takes back when it needs them. `finetune` trains five runs of heads for two epochs.
"""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from common import cpu_model, notes, parser_of, print_header

from labelrank.features.store import FeatureSet, write_features
from labelrank.ranking.rows import RowsInFiles

OPTIONS = {"finetune": ("--orders", "ranked,original,random:3", "--no-control", "--seeds", "1", "--epochs", "2")}
"""Of commands that would take long with their defaults."""


class Drawn(RowsInFiles):
    """Rows around class means, drawn anew for each block that is asked for."""

    def __init__(self, y: np.ndarray, means: np.ndarray) -> None:
        self._y, self._means = y, means

    @property
    def shape(self) -> tuple[int, int]:
        return len(self._y), self._means.shape[1]

    def __len__(self) -> int:
        return len(self._y)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        assert isinstance(rows, slice)
        of = self._y[rows]
        noise = np.random.default_rng(rows.start).standard_normal((len(of), self._means.shape[1]), np.float32)
        return noise + self._means[of]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise MemoryError


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 5_000_000])
    parser.add_argument("--features", type=int, default=768)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="for the features; a temporary folder by default")
    parser.add_argument("--commands", nargs="+", default=["rank", "classes"])
    options = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("labelrank", "numpy", "pyarrow"))
    print(f"Python {platform.python_version()}, {packages}; {os.cpu_count()} x {cpu_model()}", end="\n\n")
    note = notes()
    print_header("| rows | GB of vectors | command | s | s per million | peak memory, GB | its own |")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for n in options.rows:
            path = Path(folder) / f"{n}.parquet"
            write_features(drawn(n, options.features, options.classes), path)
            note(f"{path.name}: {path.stat().st_size / 1e9:.1f} GB")
            for command in options.commands:
                seconds, peak, own = run([command, str(path), *OPTIONS.get(command, ())], Path(folder))
                size = n * options.features * 4 / 1e9
                took = f"{seconds:.0f} | {seconds / n * 1e6:.1f} | {peak:.2f} | {own:.2f}"
                print(f"| {n:,} | {size:.1f} | {command} | {took} |")
            path.unlink()


def drawn(n: int, d: int, k: int) -> FeatureSet:
    """Return n rows of k classes with d features."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, k, n).astype(np.int32)
    means = rng.standard_normal((k, d), np.float32) * np.float32(0.3)
    keys = tuple(f"n{number:08d}.JPEG" for number in range(n))
    return FeatureSet(Drawn(y, means), y, keys, tuple(f"class {number}" for number in range(k)))


def run(command: list[str], folder: Path) -> tuple[float, float, float]:
    """Return the seconds of a command, its peak memory in GB, and that of its own memory, seen every 0.1 s."""
    with tempfile.TemporaryDirectory(dir=folder) as home:
        environment = {**os.environ, "LABELRANK_HOME": home}
        started, own = time.perf_counter(), 0
        child = subprocess.Popen(
            [sys.executable, "-m", "labelrank", *command], env=environment, stdout=subprocess.DEVNULL
        )
        while not (done := os.wait4(child.pid, os.WNOHANG))[0]:
            with contextlib.suppress(OSError, StopIteration):
                lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
                own = max(own, int(next(line for line in lines if line.startswith("RssAnon")).split()[1]))
            time.sleep(0.1)
        _, status, usage = done
        if status:
            raise SystemExit(f"labelrank {' '.join(command)} failed")
        return time.perf_counter() - started, usage.ru_maxrss / 1e6, own / 1e6


if __name__ == "__main__":
    main()
