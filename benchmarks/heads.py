"""Time and memory of many heads on cached features: all at once, against one by one with `keras.fit`.

    python benchmarks/heads.py            20 orders x 5 seeds, 10,000 x 768 float32, 100 classes, 20 epochs
    python benchmarks/heads.py --quick    5 epochs, one round
    python benchmarks/heads.py --head reference

Both sides train a linear head with AdamW, warm-up and cosine in equal batches of 250, look at 1,000 validation rows
after each epoch, and predict 2,000 test rows at the end. Of `keras.fit` a few runs are timed, each with a model of its
own, and multiplied by 100; the features it gets are standardised before the clock starts. Sides take turns, each time
in a fresh process, whose start does not count. The roof is what NumPy's library reaches in one large float32 product.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata

import numpy as np
from common import parser_of, peak_above, print_header
from lda import N_CLASSES, N_FEATURES, rows

from labelrank.cores import cpu_cores
from labelrank.finetune.design import Arm
from labelrank.finetune.head_math import Table
from labelrank.finetune.head_sizes import estimated_seconds
from labelrank.finetune.heads import train_heads
from labelrank.finetune.recipe import HEADS, HeadRecipe
from labelrank.finetune.runs import Run
from labelrank.models.device import cpu, matmul_rate

N_TRAIN, N_VAL, N_TEST = 10_000, 1_000, 2_000
N_ARMS, N_SEEDS = 20, 5
BATCH = 250  # divides the rows, so that both sides take the same steps
Tables = tuple[Table, Table, Table]


def tables() -> Tables:
    X, y = rows(N_TRAIN + N_VAL + N_TEST)
    ends = np.cumsum([N_TRAIN, N_VAL])
    parts = zip(np.split(X, ends), np.split(y.astype(np.int32), ends), strict=True)
    train, val, test = (Table(*part) for part in parts)
    return train, val, test


def arms(count: int) -> list[Arm]:
    rng = np.random.default_rng(0)
    orders = [rng.permutation(N_CLASSES).tolist() for _ in range(count)]
    return [
        Arm(f"random-{number}", "random", tuple(order), tuple(range(N_CLASSES)))
        for number, order in enumerate(orders, start=1)
    ]


def accuracy(runs: list[Run], test: Table) -> float:
    return float(np.mean([(run.predicted[:, 0] == test.y).mean() for run in runs]))


def labelrank(data: Tables, recipe: HeadRecipe, count: int) -> dict[str, float]:
    """Train `count` arms of each seed at once, and the first run of all alone."""
    train, val, test = data
    train_heads(train, val, test, arms(1), [0], HeadRecipe(epochs=1), n_classes=N_CLASSES)  # libraries are loaded
    began = time.perf_counter()
    runs = train_heads(train, val, test, arms(count), range(N_SEEDS), recipe, n_classes=N_CLASSES)
    seconds = time.perf_counter() - began
    (alone,) = train_heads(train, val, test, arms(1), [0], recipe, n_classes=N_CLASSES)
    return {
        "seconds": seconds,
        "runs": len(runs),
        "accuracy": accuracy(runs, test),
        "difference": float(np.abs(alone.nll - runs[0].nll).max()),
    }


def keras_fit(data: Tables, recipe: HeadRecipe, count: int, *, xla: bool, whole: bool = False) -> dict[str, float]:
    """Train `count` runs one after the other."""
    os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3")
    import keras

    train, val, test = data
    mean, deviation = train.X.mean(axis=0), train.X.std(axis=0)
    is_reference = recipe.head == "reference"
    train, val, test = (table if is_reference else Table((table.X - mean) / deviation, table.y) for table in data)
    steps = N_TRAIN // BATCH
    warmup = round(recipe.warmup_epochs * steps)

    def run(arm: Arm, seed: int) -> float:
        keras.utils.set_random_seed(seed)
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0, steps * recipe.epochs - warmup, warmup_target=recipe.learning_rate, warmup_steps=warmup
        )

        def dense(units: int, std: float) -> keras.Layer:
            return keras.layers.Dense(units, kernel_initializer=keras.initializers.RandomNormal(stddev=std, seed=seed))

        before = {
            "linear": [],
            "reference": [keras.layers.LayerNormalization(epsilon=1e-6), dense(recipe.hidden_dim, N_FEATURES**-0.5)],
            "batchnorm": [keras.layers.BatchNormalization(center=False, scale=False)],
        }[recipe.head]
        model = keras.Sequential([keras.Input((N_FEATURES,)), *before, dense(N_CLASSES, 0.01)])
        model.compile(
            optimizer=keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=xla,
            steps_per_execution=steps if whole else 1,
        )
        position_of = np.array(arm.position_of)
        model.fit(
            train.X,
            position_of[train.y],
            batch_size=BATCH,
            epochs=recipe.epochs,
            validation_data=(val.X, position_of[val.y]),
            validation_batch_size=N_VAL,
            verbose=0,
        )
        predicted = model.predict(test.X, batch_size=N_TEST, verbose=0).argmax(axis=1)
        return float((np.array(arm.order)[predicted] == test.y).mean())

    first, *others = arms(count + 1)
    run(first, 0)  # libraries are loaded
    began = time.perf_counter()
    accuracies = [run(arm, 0) for arm in others]
    return {
        "seconds": time.perf_counter() - began,
        "runs": count,
        "accuracy": statistics.fmean(accuracies),
        "difference": 0.0,
    }


SIDES: dict[str, Callable[[Tables, HeadRecipe, int], dict[str, float]]] = {
    "labelrank, all at once": labelrank,
    "keras.fit, one by one, XLA": lambda *given: keras_fit(*given, xla=True),
    "keras.fit, one by one, without XLA": lambda *given: keras_fit(*given, xla=False),
    "keras.fit, one by one, without XLA, an epoch a call": lambda *given: keras_fit(*given, xla=False, whole=True),
}
OURS, *THEIRS = SIDES


def measured(side: str, head: str, epochs: int, count: int) -> dict[str, float]:
    """Return what a side says of itself in a fresh process."""
    command = [sys.executable, __file__, "--measure", side, "--head", head, "--epochs", str(epochs)]
    command += ["--count", str(count)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(side: str, recipe: HeadRecipe, count: int) -> dict[str, float]:
    data = tables()
    found: dict[str, float] = {}
    peak = peak_above(lambda: found.update(roof=matmul_rate(), **SIDES[side](data, recipe, count)))
    return {**found, "peak": peak}


def gflop(recipe: HeadRecipe, n_runs: int) -> float:
    """Return the work of the matrix products."""
    if recipe.head == "reference":
        values, backward = N_FEATURES * recipe.hidden_dim + recipe.hidden_dim * N_CLASSES, recipe.hidden_dim * N_CLASSES
    else:
        values, backward = N_FEATURES * N_CLASSES, 0
    looked_at = recipe.epochs * N_VAL + N_TEST
    trained = recipe.epochs * N_TRAIN * (4 * values + 2 * backward)
    return n_runs * (trained + 2 * looked_at * N_FEATURES * N_CLASSES) / 1e9


def blas() -> str:
    """Return which matrix library NumPy uses, and for what processor it takes this one."""
    from threadpoolctl import threadpool_info

    found = [lib for lib in threadpool_info() if lib["user_api"] == "blas"]
    return ", ".join(sorted({f"{lib['internal_api']} for {lib.get('architecture', 'any')}" for lib in found}))


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--quick", action="store_true", help="5 epochs, one round")
    parser.add_argument("--head", choices=HEADS, default="linear")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3, help="rounds")
    parser.add_argument("--keras-runs", type=int, default=3, help="runs of keras.fit in a round")
    parser.add_argument("--measure", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    epochs, rounds = (5, 1) if options.quick else (options.epochs, options.runs)
    recipe = HeadRecipe(
        head=options.head, epochs=epochs, batch_size=BATCH, learning_rate=1e-3, warmup_epochs=epochs / 10
    )
    if options.measure:
        print(json.dumps(measure(options.measure, recipe, options.count)))
        return

    n_runs = N_ARMS * N_SEEDS
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            count = N_ARMS if side == OURS else options.keras_runs
            found[side].append(measured(side, options.head, epochs, count))
    seconds = {side: [one["seconds"] * n_runs / one["runs"] for one in each] for side, each in found.items()}
    medians = {side: statistics.median(each) for side, each in seconds.items()}
    roof = statistics.median(one["roof"] for one in found[OURS]) / 1e9

    print(f"CPU: {cpu().name}, {cpu_cores()} cores; Python {platform.python_version()}, NumPy {np.__version__} with")
    print(f"{blas()}, Keras {metadata.version('keras')}, TensorFlow {metadata.version('tensorflow')}.")
    print(f"{n_runs} runs of a {options.head} head, {N_TRAIN:,} x {N_FEATURES} float32, {N_CLASSES} classes,")
    print(f"{epochs} epochs in batches of {BATCH}; {rounds} rounds. keras.fit: {options.keras_runs} runs, scaled.\n")
    print_header(
        "| side | median s | fastest s | slowest s | GFLOP/s | of the roof | peak MiB above the features | accuracy |"
    )
    for side, times in seconds.items():
        rate = gflop(recipe, n_runs) / medians[side]
        peak, right = (statistics.median(one[name] for one in found[side]) for name in ("peak", "accuracy"))
        print(f"| {side} | {medians[side]:.1f} | {min(times):.1f} | {max(times):.1f} | {rate:.0f}", end=" ")
        print(f"| {rate / roof:.0%} | {peak:.0f} | {right:.1%} |")
    fastest = min(medians[side] for side in THEIRS)
    estimate = estimated_seconds(N_TRAIN, N_VAL, N_TEST, N_FEATURES, N_CLASSES, n_runs, recipe, flops_per_s=roof * 1e9)
    print(f"\nAll at once is {fastest / medians[OURS]:.1f} times as fast as the fastest way with keras.fit.")
    print(f"The roof is {roof:.0f} GFLOP/s. Estimated before the start: {estimate:.1f} s.")
    print(
        f"Largest difference of a run alone: {max(one['difference'] for one in found[OURS]):.1e} in a test row's loss."
    )


if __name__ == "__main__":
    main()
