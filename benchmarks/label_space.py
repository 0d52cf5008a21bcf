"""Time and memory of everything that Classes, Orders and Samples compute, after the features are read; and of whole
commands for very many classes.

    python benchmarks/label_space.py               10,000 x 768 of 100 classes, 50,000 x 768 of 1,000
    python benchmarks/label_space.py --quick       the first alone
    python benchmarks/label_space.py --commands    commands, for 40,000 x 768 of 10,000 classes
    python benchmarks/label_space.py --commands 4000 1000 128    the same for other rows, classes and features

Each size, and each command, runs in a process of its own. Seconds are those of the clock; seconds of the processor,
over all cores, tell more on a busy machine. Memory is the peak above what is held before the part, or that of the
command.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy
from common import cpu_model, parser_of, peak_above, print_header, status_mib

from labelrank.features.store import FeatureSet
from labelrank.ranking.methods import ORDERS
from labelrank.steps.class_summary import summary_of
from labelrank.steps.label_space import LabelSpace

SIZES = ((10_000, 100), (50_000, 1_000))
N_FEATURES = 768
COMMANDS = (
    "rank F",
    "rank F --order optimal-leaf",
    "rank F --order spectral",
    "rank F --order path",
    "classes F",
    "classes F --orders",
    "samples F",
    "encoders F G",
    "report F --out report.html",
)


def features(n: int, n_classes: int, n_features: int = N_FEATURES) -> FeatureSet:
    """Return correlated rows around class means that lie in groups of ten."""
    rng = np.random.default_rng(0)
    y = (np.arange(n) % n_classes).astype(np.int32)
    mixing = rng.standard_normal((n_features, n_features), dtype=np.float32) / n_features**0.5
    groups = rng.standard_normal((n_classes // 10, n_features), dtype=np.float32)
    means = 0.2 * (groups[np.arange(n_classes) // 10] + rng.standard_normal((n_classes, n_features), dtype=np.float32))
    X = np.empty((n, n_features), dtype=np.float32)
    for start in range(0, n, 5_000):
        part = y[start : start + 5_000]
        X[start : start + 5_000] = rng.standard_normal((len(part), n_features), dtype=np.float32) @ mixing + means[part]
    keys, names = (tuple(f"{what}{i}" for i in range(count)) for what, count in (("row", n), ("class", n_classes)))
    return FeatureSet(X, y, keys, names)


def parts(space: LabelSpace) -> dict[str, Callable[[], object]]:
    """Return what is computed, in an order in which nothing is counted twice."""
    orders = [name for name in ORDERS if name != "reference"]
    return {
        "class moments": lambda: space.moments,
        "geometry": lambda: space.geometry,
        "tree": lambda: space.tree,
        "number of groups": lambda: space.suggestion,
        "orders": lambda: [space.order(name) for name in orders],
        "criteria": lambda: space.criteria({name: space.order(name) for name in orders}),
        "confusions": lambda: space.confusions,
        "pairs": lambda: summary_of(space),
        "agreement of distances": lambda: space.distance_agreement,
        "2-D map": lambda: (space.places, space.typical),
        "samples": lambda: space.samples,
        "near-identical samples": lambda: space.duplicates,
    }


def measure(n: int, n_classes: int) -> None:
    space = LabelSpace(features(n, n_classes))
    warm = LabelSpace(features(400, 20))  # libraries and thread pools are loaded
    for part in parts(warm).values():
        part()
    began, processor, peak = time.perf_counter(), time.process_time(), 0.0
    for name, part in parts(space).items():
        start, used = time.perf_counter(), time.process_time()
        above = peak_above(part)
        peak = max(peak, status_mib("VmHWM"))
        row = f"| {n:,} x {N_FEATURES} x {n_classes:,} | {name} | {time.perf_counter() - start:.2f} "
        print(f"{row}| {time.process_time() - used:.2f} | {above:.0f} |", flush=True)
    total, used = time.perf_counter() - began, time.process_time() - processor
    print(f"| {n:,} x {N_FEATURES} x {n_classes:,} | all | {total:.2f} | {used:.2f} | {peak:.0f} of the process |")


def measure_commands(n: int, n_classes: int, n_features: int) -> None:
    """Run the commands one by one; the peak is that of the process, and seconds are those of all it does."""
    with tempfile.TemporaryDirectory() as folder:
        found = features(n, n_classes, n_features)
        for name in ("F.npz", "G.npz"):
            np.savez(Path(folder, name), X=found.X, y=found.y, class_names=np.array(found.class_names))
        del found
        for command in COMMANDS:
            arguments = [f"{word}.npz" if word in ("F", "G") else word for word in command.split()]
            start = time.perf_counter()
            running = subprocess.Popen(
                [sys.executable, "-m", "labelrank", *arguments],
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            told = running.stderr.read() if running.stderr else b""
            _, status, used = os.wait4(running.pid, 0)
            took, processor = time.perf_counter() - start, used.ru_utime + used.ru_stime
            failed = f" failed: {told.decode()[-200:]}" if status else ""
            row = f"| {n:,} x {n_features} x {n_classes:,} | {command}{failed} "
            print(f"{row}| {took:.1f} | {processor:.1f} | {used.ru_maxrss / 1024:.0f} |", flush=True)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--quick", action="store_true", help="10,000 rows alone")
    parser.add_argument(
        "--commands", type=int, nargs="*", metavar="N", help="measure commands; rows, classes, features, if others"
    )
    parser.add_argument("--measure", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure)
        return
    if options.commands not in (None, []) and len(options.commands) != 3:
        parser.error("--commands takes three numbers, or none: rows, classes, features")
    print(
        f"CPU: {cpu_model()}; Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}.\n"
    )
    if options.commands is not None:
        print_header("| rows x features x classes | command | seconds | processor seconds | peak MiB |", flush=True)
        measure_commands(*(options.commands or (40_000, 10_000, N_FEATURES)))
        return
    print_header("| rows x features x classes | part | seconds | processor seconds | peak MiB above |", flush=True)
    for n, n_classes in SIZES[:1] if options.quick else SIZES:
        subprocess.run([sys.executable, __file__, "--measure", str(n), str(n_classes)], check=True)


if __name__ == "__main__":
    main()
