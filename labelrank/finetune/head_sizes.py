"""How many heads train at once, and how long that takes."""

from __future__ import annotations

import math

from labelrank.cores import cpu_cores
from labelrank.finetune.head_math import Schedule
from labelrank.finetune.meanings import meaning_of
from labelrank.finetune.recipe import HeadRecipe

# Values of the weights of a block, about: more arms, fewer calls; fewer arms, more blocks for the cores to share.
_BLOCK = 300_000
# A call of train_heads, as `runs_at_once` plans it.
_CALL_S = 15.0
# A run's weights in memory: itself, its gradient, two moments.
_COPIES = 4
# For estimates, on one core: the update of a weight's value, the loss of an output, the calls of a step.
_SHARE_OF_MATMUL = 0.85
_UPDATE_S, _OUTPUT_S, _CALLS_S = 1.3e-9, 3e-9, 5e-5


def recipe_for(
    n_train: int, n_features: int, n_classes: int, *, head: str = "linear", meaning: str = "softmax"
) -> HeadRecipe:
    """Return settings that suit a dataset of this size.

    About 200,000 rows are looked at, in 10 to 50 epochs of about 40 batches. A step of Adam moves each weight by about
    the learning rate and so an output by up to that times the number of features, so the rate falls with these (Yang et
    al. 2022, arXiv:2203.03466, table 3: 1 / fan-in for Adam's output layer). The two layers of `reference` move it
    twice.

    Measured, test accuracy: CIFAR-100, 768 features, linear: 31 %, the best of rates from 1e-4 to 3e-3 within a point;
    digits, 96 features: 99 %, likewise. What suits one meaning suited all.
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
    n_train: int, n_features: int, n_classes: int, n_arms: int, recipe: HeadRecipe, *, memory_bytes: float
) -> tuple[int, int]:
    """Return how many arms and how many seeds one call of `train_heads` should take: at least 1 of each.

    So many that they fit into `memory_bytes` beside the features that are there already, some of the arms of one seed
    where all do not; and all arms of so many seeds that the call ends within about 15 s, so that little is lost where a
    job is stopped. The first call measures for 0.2 s how fast this is.
    """
    from labelrank.models.device import matmul_rate

    columns = meaning_of(recipe.meaning, n_classes, spacing=range(n_classes)).n_columns
    copies_bytes = 4.0 * n_train * n_features
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
        flops_per_s: What the processor's cores together reach in matrix products, as
            `labelrank.models.device.matmul_rate` says.
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
    """Return the number of a run's weights that are multiplied with."""
    if recipe.head == "reference":
        return (n_features + columns) * recipe.hidden_dim
    return n_features * columns


def arms_at_once(n_arms: int, n_seeds: int, values: int) -> int:
    """Return how many arms of one seed a block has."""
    # Two blocks a core at least, so that no core waits long for the last one.
    fair = math.ceil(n_arms * n_seeds / (2 * cpu_cores()))
    return max(1, min(n_arms, fair, round(_BLOCK / values)))
