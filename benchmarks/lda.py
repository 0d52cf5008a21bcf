"""Time and memory of the discriminant axis: LabelRanker's eigen solver against scikit-learn's svd solver.

    python benchmarks/lda.py            50,000 x 768 float32, 100 classes
    python benchmarks/lda.py --quick    a tenth of the rows

Both get the same float32 array. Runs are interleaved, so that a busy machine slows both; the medians are compared.
Memory is the peak above the input, each side in its own process.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import scipy
import sklearn
from common import cpu_model, parser_of, peak_above, print_header
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from labelrank.ranking import LabelRanker

N_FEATURES, N_CLASSES = 768, 100
SIDES: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
    "scikit-learn LDA svd": lambda X, y: LinearDiscriminantAnalysis(n_components=1).fit(X, y),
    "LabelRanker eigen": lambda X, y: LabelRanker(solver="eigen", shrinkage=None).fit(X, y),
}


def rows(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return correlated rows (n, 768) float32 around 100 class means, and their labels."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, N_CLASSES, n)
    mixing = rng.standard_normal((N_FEATURES, N_FEATURES)).astype(np.float32) / N_FEATURES**0.5
    means = rng.standard_normal((N_CLASSES, N_FEATURES)).astype(np.float32) * 0.2
    X = np.empty((n, N_FEATURES), dtype=np.float32)
    for start in range(0, n, 5_000):
        part = y[start : start + 5_000]
        X[start : start + 5_000] = rng.standard_normal((len(part), N_FEATURES), dtype=np.float32) @ mixing + means[part]
    return X, y


def peak_above_input(side: str, n: int) -> float:
    """Return the MiB by which fitting raises the peak resident memory of a fresh process."""
    command = [sys.executable, __file__, "--rows", str(n), "--measure-memory", side]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def measure_memory(side: str, n: int) -> float:
    X, y = rows(n)
    SIDES[side](X[:2_000, :32], y[:2_000])  # libraries and thread pools are loaded
    return peak_above(lambda: SIDES[side](X, y))


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--quick", action="store_true", help="5,000 rows, 3 runs")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--measure-memory", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure_memory:
        print(json.dumps(measure_memory(options.measure_memory, options.rows)))
        return
    n, runs = (5_000, 3) if options.quick else (options.rows, options.runs)

    peaks = {side: peak_above_input(side, n) for side in SIDES}
    X, y = rows(n)
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    fitted = {}
    for _ in range(runs):
        for side, fit in SIDES.items():
            start = time.perf_counter()
            fitted[side] = fit(X, y)
            seconds[side].append(time.perf_counter() - start)
    theirs, ours = (statistics.median(seconds[side]) for side in SIDES)

    print(f"CPU: {cpu_model()}; Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__},")
    print(f"scikit-learn {sklearn.__version__}. {n:,} x {N_FEATURES} float32, {N_CLASSES} classes, {runs} runs each.\n")
    print_header("| side | median s | fastest s | slowest s | peak MiB above the input |")
    for side, times in seconds.items():
        print(f"| {side} | {statistics.median(times):.2f} | {min(times):.2f} | {max(times):.2f} | {peaks[side]:.0f} |")
    print(f"\nLabelRanker is {theirs / ours:.1f} times as fast.", end=" ")

    lda, ranker = (fitted[side] for side in SIDES)
    axis = lda.scalings_[:, 0]
    cosine = abs(axis @ ranker.axis_) / np.linalg.norm(axis) / np.linalg.norm(ranker.axis_)
    print(f"1 - |cosine| of the two axes: {max(0.0, 1 - cosine):.1e}.")


if __name__ == "__main__":
    main()
