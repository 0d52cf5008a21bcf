"""How many heads train at once, and how long that takes."""

from __future__ import annotations

import math

from labelrank.cores import cpu_cores
from labelrank.finetune.head_math import Schedule
from labelrank.finetune.meanings import meaning_of
from labelrank.finetune.recipe import HeadRecipe

# About how many weight values a block has: more arms mean fewer calls, fewer arms mean more blocks to share out.
_BLOCK = 300_000
# Duration of a call of `train_heads` that `runs_at_once` plans for.
_CALL_S = 15.0
# Copies of a weight in memory: the weight, its gradient, two moments.
_COPIES = 4
# For time estimates, on one core: update of one weight value, loss of one output, function calls of one step.
_SHARE_OF_MATMUL = 0.85
_UPDATE_S, _OUTPUT_S, _CALLS_S = 1.3e-9, 3e-9, 5e-5


def recipe_for(
    n_train: int, n_features: int, n_classes: int, *, head: str = "linear", meaning: str = "softmax"
) -> HeadRecipe:
    """Return settings that suit a dataset of this size.

    Training sees about 200,000 rows, in 10 to 50 epochs of about 40 batches. A step of Adam moves each weight by about
    the learning rate, and an output by up to this times the number of features. So the learning rate falls with the
    number of features (Yang et al. 2022, arXiv:2203.03466, table 3: 1 / fan-in for Adam's output layer). It is halved
    for `reference`, which has two layers.

    Measured test accuracy with a linear head: CIFAR-100 (768 features) 31 %, digits (96 features) 99 %. Both are within
    one point of the best learning rate from 1e-4 to 3e-3. The same settings suited all meanings.
    """
    batch_size = 2 ** min(9, max(5, round(math.log2(n_train / 40)))) if n_train else 32
    epochs = min(50, max(10, math.ceil(200_000 / max(1, n_train))))
    rate = 0.75 / n_features / (2 if head == "reference" else 1)
    return HeadRecipe(
        head=head,
        meaning=meaning,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=float(f"{min(rate, 1e-2):.1e}"),
        warmup_epochs=epochs / 10,
    )


def runs_at_once(
    n_train: int,
    n_features: int,
    n_classes: int,
    n_arms: int,
    recipe: HeadRecipe,
    *,
    memory_bytes: float,
    copies_rows: bool = True,
) -> tuple[int, int]:
    """Return how many arms and how many seeds one call of `train_heads` should take: at least 1 of each.

    As many as fit into `memory_bytes` beside the features in memory. If not all arms of one seed fit, some of them.
    Else all arms of as many seeds as take about 15 s, so that little is lost when a job is stopped. The first call
    measures the speed of this machine for 0.2 s.

    Args:
        copies_rows: Whether the training rows are held prepared beside themselves.
    """
    from labelrank.models.device import matmul_rate

    columns = meaning_of(recipe.meaning, n_classes, spacing=range(n_classes)).n_columns
    copies_bytes = 4.0 * n_train * n_features * copies_rows
    run_bytes = 4.0 * (_COPIES * values_of(n_features, columns, recipe) + n_features * columns)
    runs_by_memory = max(1.0, (memory_bytes - copies_bytes) / run_bytes)
    if runs_by_memory < n_arms:
        return math.floor(runs_by_memory), 1
    seconds = estimated_seconds(n_train, 0, 0, n_features, n_classes, n_arms, recipe, flops_per_s=matmul_rate())
    return n_arms, max(1, math.floor(min(runs_by_memory / n_arms, _CALL_S / seconds)))


def estimated_seconds(
    n_train: int,
    n_val: int,
    n_test: int,
    n_features: int,
    n_classes: int,
    n_runs: int,
    recipe: HeadRecipe,
    *,
    flops_per_s: float,
) -> float:
    """Return about how long `train_heads` takes for this many runs.

    Args:
        flops_per_s: Speed of all cores together in matrix products, as `labelrank.models.device.matmul_rate` gives it.
    """
    columns = meaning_of(recipe.meaning, n_classes, spacing=range(n_classes)).n_columns
    values = values_of(n_features, columns, recipe)
    folded = n_features * columns
    steps = recipe.epochs * Schedule.of(n_train, recipe).steps_per_epoch
    flops = recipe.epochs * (4.0 * n_train * values + 2.0 * n_val * folded) + 2.0 * n_test * folded
    outputs = recipe.epochs * (n_train + n_val) * n_classes
    elementwise_s = steps * (values * _UPDATE_S + _CALLS_S) + outputs * _OUTPUT_S
    return n_runs * (flops / (_SHARE_OF_MATMUL * flops_per_s) + elementwise_s / cpu_cores())


def values_of(n_features: int, columns: int, recipe: HeadRecipe) -> int:
    """Return the number of values in a run's kernels."""
    if recipe.head == "reference":
        return (n_features + columns) * recipe.hidden_dim
    return n_features * columns


def arms_at_once(n_arms: int, n_seeds: int, values: int) -> int:
    """Return how many arms of one seed a block has."""
    # At least two blocks per core, so that no core waits long for the last one.
    fair = math.ceil(n_arms * n_seeds / (2 * cpu_cores()))
    return max(1, min(n_arms, fair, round(_BLOCK / values)))
