"""Many heads on the same cached features, all trained at once: orders times seeds.

Runs are trained in blocks, each with a few arms of one seed, whose weights have an arm axis: (A, D, C). A step gathers
one batch for the block, multiplies it with each arm's kernel, and updates in pieces that stay in the processor's
cache. Blocks depend on nothing but themselves, so each core works on one and nobody waits before the last epoch. Every
arm has a matrix product of its own, in one thread: a run alone is the run among others, to the last bit.

Gradients are written out: a head is one or two matrix products, and nothing but NumPy has to start.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np

from labelrank.cores import cpu_cores
from labelrank.errors import Cancelled, FinetuneError, SettingsError
from labelrank.finetune.design import Arm
from labelrank.finetune.meanings import Meaning, meaning_of, ordered_thresholds
from labelrank.finetune.recipe import HeadRecipe
from labelrank.finetune.runs import TOP, Epoch, Run

OnEpoch = Callable[[int, dict[str, np.ndarray]], None]
"""Called with the epoch, from 1, and train_loss, val_loss and val_accuracy, each float32 (arms, seeds)."""

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7
_NORM_EPSILON = 1e-6
# Standard deviation of the rows that outputs start from, as in MAE's linear probe.
_INITIAL_STD = 0.01
# Of the generators, so that no two draws of a seed are related.
_KERNEL, _HIDDEN, _ORDER, _DROPOUT = range(4)
# Values of a weight that are updated at a time: five arrays of this size lie in a core's second-level cache.
_PIECE = 32_768
# Values of the weights of a block, about: more arms, fewer calls; fewer arms, more blocks for the cores to share.
_BLOCK = 300_000
# Outputs that are looked at together when a block predicts.
_PREDICTED_AT_ONCE = 1_000_000
_POLL_S = 0.2
# A call of train_heads, as `runs_at_once` plans it.
_CALL_S = 15.0
# A run's weights in memory: itself, its gradient, two moments.
_COPIES = 4
# For estimates, on one core: the update of a weight's value, the loss of an output, the calls of a step.
_SHARE_OF_MATMUL = 0.85
_UPDATE_S, _OUTPUT_S, _CALLS_S = 1.3e-9, 3e-9, 5e-5


@dataclass(frozen=True)
class Table:
    """Pooled features of one split."""

    X: np.ndarray
    """float32 (n, D)."""
    y: np.ndarray
    """Labels, int32 (n,)."""


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


def train_heads(
    train: Table,
    val: Table,
    test: Table,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    recipe: HeadRecipe,
    *,
    n_classes: int,
    spacing: Sequence[float] | np.ndarray | None = None,
    on_epoch: OnEpoch | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[Run]:
    """Return one run for each arm and seed, arm by arm, all trained for `recipe.epochs` epochs.

    For a seed, all arms share the rows that their outputs start from (position j from row `head_rows[j]`), the order of
    the training rows and the dropout masks. All of these come from generators keyed by seed, purpose and epoch.

    An epoch has every training row once, in equal batches (one row more or less) of at most `recipe.batch_size`, so no
    short last batch weighs its rows more than the others do. AdamW as Keras has it (decoupled decay of kernels alone,
    epsilon 1e-7 beside the uncorrected root), linear warm-up, then half a cosine to 0.

    Features of `linear` and `batchnorm` are standardised by the mean and deviation of the training rows, which changes
    what a learning rate means and not what a linear head can say; `reference` begins with a norm of each row. Where
    batch norm has moving averages for later, this has what they estimate, the statistics of all training rows. All of
    it is folded into `Run.head`. The test rows are looked at once, at the end; `val` may be empty.

    Returns:
        Runs whose `head` has kernel (D, n_columns) and bias (n_outputs,), or thresholds (K - 1,) for ordinal, for
        features as they were given; for `reference` also norm_gamma, norm_beta (D,) and norm_epsilon, of the layer norm
        that comes before. A run whose loss is no longer finite ends there, with a problem; the others go on.
        `seconds` are those of a processor core, in equal shares for runs that were trained together.

    Raises:
        FinetuneError: The tables do not fit each other, or hold values that are not finite.
        SettingsError: The recipe or an arm cannot work.
        Cancelled: `should_stop` returned true.
    """
    _check(train, val, test, arms, seeds, n_classes)
    meaning = meaning_of(
        recipe.meaning,
        n_classes,
        bandwidth=recipe.bandwidth,
        unit=recipe.unit,
        spacing=spacing,
        label_smoothing=recipe.label_smoothing,
    )
    for arm in arms:
        if not meaning.exchangeable and arm.head_rows != tuple(range(n_classes)):
            raise SettingsError(
                f"The {arm.name} arm permutes the head's rows along with its classes, which changes nothing only where "
                f"positions have no meaning; it is {meaning.name}. Leave the arm out, or use softmax."
            )
    prepare = _Preparation.of(train.X, recipe.head)
    task = _Task(prepare(train.X), train.y, prepare(val.X), val.y, recipe, meaning, _Schedule.of(len(train.y), recipe))
    size = _arms_at_once(len(arms), len(seeds), _values(train.X.shape[1], meaning.n_columns, recipe))
    blocks = [_Block(task, seed, arms[first : first + size]) for seed in seeds for first in range(0, len(arms), size)]
    runs = _train(
        blocks,
        lambda block: block.finish(test, prepare),
        recipe.epochs,
        lambda epoch: on_epoch(epoch, _curves(blocks, arms, seeds, epoch)) if on_epoch else None,
        should_stop or (lambda: False),
    )
    found = {(run.arm, run.seed): run for run in runs}
    return [found[arm.name, seed] for arm in arms for seed in seeds]


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
    run_bytes = 4.0 * (_COPIES * _values(n_features, columns, recipe) + n_features * columns)
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
    values = _values(n_features, columns, recipe)
    folded = n_features * columns
    steps = recipe.epochs * _Schedule.of(n_train, recipe).steps_per_epoch
    flops = recipe.epochs * (4.0 * n_train * values + 2.0 * n_val * folded) + 2.0 * n_test * folded
    outputs = recipe.epochs * (n_train + n_val) * n_classes
    elementwise_s = steps * (values * _UPDATE_S + _CALLS_S) + outputs * _OUTPUT_S
    return n_runs * (flops / (_SHARE_OF_MATMUL * flops_per_s) + elementwise_s / cpu_cores())


def _values(n_features: int, columns: int, recipe: HeadRecipe) -> int:
    """Return the number of a run's weights that are multiplied with."""
    if recipe.head == "reference":
        return (n_features + columns) * recipe.hidden_dim
    return n_features * columns


def _arms_at_once(n_arms: int, n_seeds: int, values: int) -> int:
    """Return how many arms of one seed a block has."""
    # Two blocks a core at least, so that no core waits long for the last one.
    fair = math.ceil(n_arms * n_seeds / (2 * cpu_cores()))
    return max(1, min(n_arms, fair, round(_BLOCK / values)))


def _check(train: Table, val: Table, test: Table, arms: Sequence[Arm], seeds: Sequence[int], n_classes: int) -> None:
    if not arms or not seeds:
        raise SettingsError(f"There are {len(arms)} orders and {len(seeds)} seeds; give at least one of each.")
    if len({arm.name for arm in arms}) < len(arms) or len(set(seeds)) < len(seeds):
        raise SettingsError("An order or a seed is given twice; give each once.")
    if min(seeds) < 0:
        raise SettingsError(f"There is a seed {min(seeds)}; give seeds of at least 0.")
    classes = list(range(n_classes))
    for arm in arms:
        if sorted(arm.order) != classes or sorted(arm.head_rows) != classes:
            raise SettingsError(
                f"The {arm.name} arm is no order of {n_classes} classes: {arm.order}. Each label must be there once."
            )
    n_features = train.X.shape[-1]
    for name, table in (("training", train), ("validation", val), ("test", test)):
        if table.X.ndim != 2 or table.X.shape != (len(table.y), n_features):
            raise FinetuneError(
                f"The {name} features have shape {table.X.shape} for {len(table.y)} labels; expected one row of "
                f"{n_features} values for each. Use features of the same encoder and pooling."
            )
        if len(table.y) and not (table.y.min() >= 0 and table.y.max() < n_classes):
            raise FinetuneError(
                f"The {name} labels go from {table.y.min()} to {table.y.max()}; expected 0 to {n_classes - 1}. Use "
                "features and a label map of the same classes."
            )
        if not all(np.isfinite(table.X[rows]).all() for rows in _rows(len(table.y))):
            raise FinetuneError(
                f"The {name} features hold values that are not finite numbers. Extract them again, with --precision "
                "float32."
            )
    if not len(train.y) or not n_features:
        raise FinetuneError(f"The training features have shape {train.X.shape}; give at least one row and one feature.")


def _rows(count: int, at_once: int = 4096) -> Iterator[slice]:
    return (slice(start, start + at_once) for start in range(0, count, at_once))


# --- What a head sees


@dataclass(frozen=True)
class _Preparation:
    """What is done to features before they are learned from, by statistics that do not learn."""

    mean: np.ndarray | None
    """float32 (D,); None where each row is normalised by itself."""
    factor: np.ndarray | None

    @classmethod
    def of(cls, X: np.ndarray, head: str) -> _Preparation:
        """Return the preparation for a head that learns from X (n, D)."""
        if head == "reference":
            return cls(None, None)
        mean, variance = np.zeros(X.shape[1]), np.zeros(X.shape[1])
        for rows in _rows(len(X)):
            mean += X[rows].sum(axis=0, dtype=np.float64) / len(X)
        for rows in _rows(len(X)):
            variance += np.square(X[rows] - mean).sum(axis=0) / len(X)
        deviation = np.sqrt(variance)
        # A feature that is the same in all training rows, but for rounding, says nothing.
        varies = deviation > 1e-6 * np.abs(mean)
        factor = np.divide(1, deviation, out=np.zeros(len(mean)), where=varies)
        return cls(mean.astype(np.float32), factor.astype(np.float32))

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Return what the head sees of features (n, D), float32."""
        seen = np.empty(X.shape, np.float32)
        for rows in _rows(len(X)):
            if self.mean is None or self.factor is None:
                centred = X[rows] - X[rows].mean(axis=1, keepdims=True)
                deviation = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + _NORM_EPSILON)
                np.divide(centred, deviation, out=seen[rows])
            else:
                np.multiply(X[rows] - self.mean, self.factor, out=seen[rows])
        return seen

    def folded(self, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return a kernel (D, C) for what the head sees as one for features, and what that adds to the outputs (C,)."""
        if self.mean is None or self.factor is None:
            return kernel, np.zeros(kernel.shape[1], np.float32)
        raw = kernel.astype(np.float64) * self.factor[:, None]
        return raw.astype(np.float32), (-self.mean @ raw).astype(np.float32)


@dataclass(frozen=True)
class _Schedule:
    """Learning rates: a linear warm-up, then half a cosine."""

    peak: float
    weight_decay: float
    steps_per_epoch: int
    warmup_steps: int
    total_steps: int

    @classmethod
    def of(cls, n_train: int, recipe: HeadRecipe) -> _Schedule:
        steps = math.ceil(n_train / recipe.batch_size)
        total = steps * recipe.epochs
        return cls(
            recipe.learning_rate, recipe.weight_decay, steps, min(total, round(recipe.warmup_epochs * steps)), total
        )

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0; it is never 0."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        share = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.peak * (1 + math.cos(math.pi * share)) / 2

    def step(self, step: int) -> _Step:
        """Return how far a step goes, counted from 0."""
        rate, taken = self.rate(step), step + 1
        corrected = rate * math.sqrt(1 - _BETA_2**taken) / (1 - _BETA_1**taken)
        return _Step(corrected, 1 - rate * self.weight_decay)


@dataclass(frozen=True)
class _Step:
    """How far one step goes."""

    scale: float
    """Alpha of Adam: the learning rate with the corrections of both moments."""
    decay: float
    """What is left of a weight that decays."""


@dataclass(frozen=True)
class _Task:
    """What all blocks share."""

    X: np.ndarray
    """What heads see of the training rows, float32 (n, D)."""
    y: np.ndarray
    X_val: np.ndarray
    y_val: np.ndarray
    recipe: HeadRecipe
    meaning: Meaning
    schedule: _Schedule

    def batches(self, seed: int, epoch: int) -> Iterator[np.ndarray]:
        """Yield the rows of each batch of an epoch: each row once, batches of equal size but for one row."""
        order = np.random.default_rng([seed, _ORDER, epoch]).permutation(len(self.y))
        yield from np.array_split(order, self.schedule.steps_per_epoch)

    def seen(self, batch: np.ndarray) -> np.ndarray:
        """Return what heads see of some training rows, (B, D), in new memory."""
        x = self.X[batch]
        if self.recipe.head == "batchnorm":
            x -= x.mean(axis=0)
            x /= np.sqrt(np.square(x).mean(axis=0) + _NORM_EPSILON)
        return x

    def mask(self, rng: np.random.Generator, rows: int) -> np.ndarray | None:
        """Return the next dropout mask (B, width): 0, or what keeps the mean; None without dropout."""
        rate = self.recipe.dropout
        if not rate:
            return None
        width = self.recipe.hidden_dim if self.recipe.head == "reference" else self.X.shape[1]
        kept = rng.random((rows, width), dtype=np.float32) >= rate
        return kept.astype(np.float32) / np.float32(1 - rate)


# --- What learns


class _Weight:
    """A weight of each arm of a block, (A, ...), with the moments of AdamW.

    Gradients come multiplied by 1 - beta 1, which costs less on outputs than on weights: the first moment takes them as
    they are, and the second is kept as that of the multiplied ones.

    Source: Loshchilov and Hutter 2019, algorithm 2; bias correction as in Kingma and Ba 2015, the end of section 2.
    """

    def __init__(self, value: np.ndarray, *, decays: bool) -> None:
        self.value = np.ascontiguousarray(value, dtype=np.float32)
        self.gradient = np.empty_like(self.value)
        """To be filled before `update`, which uses its memory."""
        self._first, self._second = np.zeros_like(self.value), np.zeros_like(self.value)
        self._decays = decays

    def update(self, step: _Step) -> None:
        root_scale = math.sqrt(1 - _BETA_2) / (1 - _BETA_1) / step.scale
        arrays = [array.reshape(-1) for array in (self.value, self.gradient, self._first, self._second)]
        for start in range(0, self.value.size, _PIECE):
            value, gradient, first, second = (array[start : start + _PIECE] for array in arrays)
            first *= _BETA_1
            first += gradient
            gradient *= gradient
            second *= _BETA_2
            second += gradient
            np.sqrt(second, out=gradient)
            gradient *= root_scale
            gradient += _EPSILON / step.scale
            np.divide(first, gradient, out=gradient)
            if self._decays:
                value *= step.decay
            value -= gradient

    def keep(self, arms: np.ndarray) -> None:
        """Forget all arms but these."""
        self.value, self._first, self._second = (a[arms] for a in (self.value, self._first, self._second))
        self.gradient = np.empty_like(self.value)


class _Linear:
    """Columns of features: one kernel for each arm, kept by rows (A, C, D), which is what BLAS multiplies fastest."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = _Weight(rows, decays=True)
        self.weights = [self._rows]

    @classmethod
    def drawn(cls, task: _Task, seed: int, places: np.ndarray) -> _Linear:
        return cls(_drawn_rows(seed, places, task.X.shape[1]))

    def columns(self, x: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return columns (A, B, C) of what is seen (B, D), of which a dropout mask (B, D) leaves a part.

        The second is for `differentiate`.
        """
        x = x if mask is None else x * mask
        return np.matmul(x, _turned(self._rows.value)), x

    def differentiate(self, gradient: np.ndarray, x: np.ndarray) -> None:
        """Fill the gradients of the weights with those by `gradient`, of the columns (A, B, C)."""
        np.matmul(_turned(gradient), x, out=self._rows.gradient)

    def folded(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the rows of one kernel (A, C, D), and what is added to the columns (A, C), without dropout."""
        return self._rows.value, None

    def exported(self, arm: int, prepare: _Preparation) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Return an arm's kernel (D, C) and what is added to its columns (C,), for features, and nothing else."""
        return *prepare.folded(self._rows.value[arm].T), {}


class _Reference:
    """Columns of features: norm -> dense -> dropout -> dense, the norm with a scale and a shift that learn.

    Source: Xiang et al. 2025 (Label Ranker): fc_norm, the 400-way layer of the Kinetics head, dropout, dense. Nothing
    bends in between. What is seen is the norm without scale and shift, the same for all arms.
    """

    def __init__(self, hidden: np.ndarray, rows: np.ndarray) -> None:
        arms, (width, n_features) = len(rows), hidden.shape
        self._gamma = _Weight(np.ones((arms, n_features)), decays=False)
        self._beta = _Weight(np.zeros((arms, n_features)), decays=False)
        self._hidden = _Weight(np.repeat(hidden[None], arms, axis=0), decays=True)
        self._hidden_bias = _Weight(np.zeros((arms, width)), decays=False)
        self._rows = _Weight(rows, decays=True)
        self.weights = [self._gamma, self._beta, self._hidden, self._hidden_bias, self._rows]

    @classmethod
    def drawn(cls, task: _Task, seed: int, places: np.ndarray) -> _Reference:
        n_features, width = task.X.shape[1], task.recipe.hidden_dim
        hidden = np.random.default_rng([seed, _HIDDEN]).standard_normal((width, n_features), dtype=np.float32)
        return cls(hidden / np.float32(n_features**0.5), _drawn_rows(seed, places, width))

    def columns(self, x: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, tuple]:
        """Return columns (A, B, C) of what is seen (B, D); a dropout mask (B, hidden) leaves a part of the middle.

        The second is for `differentiate`.
        """
        rows, bias = self._normed()
        middle = np.matmul(x, _turned(rows))  # (A, B, hidden)
        middle += bias[:, None]
        if mask is not None:
            middle *= mask
        return np.matmul(middle, _turned(self._rows.value)), (x, mask, middle)

    def differentiate(self, gradient: np.ndarray, passed: tuple) -> None:
        """Fill the gradients of the weights with those by `gradient`, of the columns (A, B, C)."""
        x, mask, middle = passed
        np.matmul(_turned(gradient), middle, out=self._rows.gradient)
        np.matmul(gradient, self._rows.value, out=middle)  # by the middle, from here on
        if mask is not None:
            middle *= mask
        middle.sum(axis=1, out=self._hidden_bias.gradient)
        # By the first layer with scale and shift in it. All four gradients come from this and the sums, without another
        # product with the batch.
        normed = np.matmul(_turned(middle), x, out=self._hidden.gradient)  # (A, hidden, D)
        hidden, sums = self._hidden.value, self._hidden_bias.gradient
        np.einsum("ahd,ahd->ad", hidden, normed, out=self._gamma.gradient)
        np.matmul(sums[:, None], hidden, out=self._beta.gradient[:, None])
        normed *= self._gamma.value[:, None]
        normed += self._beta.value[:, None] * sums[..., None]

    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of one kernel (A, C, D), and what is added to the columns (A, C), without dropout."""
        rows, bias = self._normed()
        return np.matmul(self._rows.value, rows), np.matmul(self._rows.value, bias[..., None])[..., 0]

    def exported(self, arm: int, prepare: _Preparation) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Return an arm's kernel (D, C) and what is added to its columns (C,), after the norm, and the norm."""
        rows = self._rows.value[arm]
        norm = {
            "norm_gamma": self._gamma.value[arm].copy(),
            "norm_beta": self._beta.value[arm].copy(),
            "norm_epsilon": np.array(_NORM_EPSILON, np.float32),
        }
        return (rows @ self._hidden.value[arm]).T, rows @ self._hidden_bias.value[arm], norm

    def _normed(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the first layer with scale and shift of the norm in it: (A, hidden, D) and (A, hidden)."""
        hidden = self._hidden.value
        shift = np.matmul(hidden, self._beta.value[..., None])[..., 0]
        return hidden * self._gamma.value[:, None], shift + self._hidden_bias.value


def _turned(matrices: np.ndarray) -> np.ndarray:
    return matrices.transpose(0, 2, 1)


def _drawn_rows(seed: int, places: np.ndarray, n_inputs: int) -> np.ndarray:
    """Return each arm's initial rows (A, C, n_inputs): those at its places (A, C) among the rows drawn for the seed."""
    drawn = np.random.default_rng([seed, _KERNEL]).standard_normal((places.shape[1], n_inputs), dtype=np.float32)
    return (drawn * np.float32(_INITIAL_STD))[places]


class _Block:
    """A few arms of one seed, trained together."""

    def __init__(self, task: _Task, seed: int, arms: Sequence[Arm]) -> None:
        self.seed, self.arms = seed, arms
        self.epochs: list[list[Epoch]] = [[] for _ in arms]
        """Of each arm."""
        self._task = task
        self._step = 0
        self._seconds = 0.0
        self._alive = np.arange(len(arms))
        self._problems: dict[int, str] = {}
        self._positions = np.array([arm.position_of for arm in arms])
        self._orders = np.array([arm.order for arm in arms], dtype=np.int32)
        meaning = task.meaning
        places = np.array([arm.head_rows[: meaning.n_columns] for arm in arms])
        layers = _Reference if task.recipe.head == "reference" else _Linear
        self._layers: Any = layers.drawn(task, seed, places)
        self._bias = _Weight(np.repeat(meaning.initial_bias()[None], len(arms), axis=0), decays=False)

    def train_epoch(self, epoch: int, stop: threading.Event) -> None:
        """Train all arms for one more epoch, from 1, and see how they do on the validation rows."""
        began = time.thread_time()
        with np.errstate(all="ignore"):  # a run that is not finite ends below
            losses = self._pass(epoch, stop)
            val_losses, accuracies = self._validate()
        finite = np.isfinite(losses) & (np.isfinite(val_losses) | (len(self._task.y_val) == 0))
        for arm, ok, *values in zip(self._alive, finite, losses, val_losses, accuracies, strict=True):
            if ok:
                self.epochs[arm].append(Epoch(epoch, *map(float, values)))
        self._end(~finite, f"in epoch {epoch}")
        self._seconds += time.thread_time() - began

    def finish(self, test: Table, prepare: _Preparation) -> list[Run]:
        """Return the run of each arm, with what it predicts for the test rows."""
        began = time.thread_time()
        top = min(TOP, self._positions.shape[1])
        predicted = np.empty((len(self.arms), len(test.y), top), np.int32)
        nll = np.empty((len(self.arms), len(test.y)), np.float32)
        alive = self._alive
        with np.errstate(all="ignore"):
            for rows in self._windows(len(test.y)):
                log_probabilities = self._log_probabilities(prepare(test.X[rows]))
                nll[alive, rows] = self._nll(log_probabilities, test.y[rows])
                best = _best_first(log_probabilities, top)
                predicted[alive, rows] = self._orders[alive[:, None, None], best]
        self._end(~np.isfinite(nll[alive]).all(axis=1), "on the test rows")
        seconds = (self._seconds + time.thread_time() - began) / len(self.arms)
        runs = []
        for index, arm in enumerate(self.arms):
            problem = self._problems.get(index)
            runs.append(
                Run(
                    arm=arm.name,
                    seed=self.seed,
                    predicted=predicted[index, : 0 if problem else None],
                    nll=nll[index, : 0 if problem else None],
                    epochs=tuple(self.epochs[index]),
                    head={} if problem else self._head(int(np.searchsorted(self._alive, index)), prepare),
                    problem=problem,
                    seconds=seconds,
                )
            )
        return runs

    def _pass(self, epoch: int, stop: threading.Event) -> np.ndarray:
        """Take the steps of one epoch; return the mean loss of each living arm (A,)."""
        task, meaning = self._task, self._task.meaning
        masks = np.random.default_rng([self.seed, _DROPOUT, epoch])
        total = np.zeros(len(self._alive))
        for batch in task.batches(self.seed, epoch):
            if stop.is_set() or not len(self._alive):
                break
            x = task.seen(batch)
            columns, passed = self._layers.columns(x, task.mask(masks, len(batch)))
            outputs = meaning.outputs(columns, self._bias.value)
            positions = self._positions[self._alive][:, task.y[batch]]
            losses, gradient = meaning.loss_and_gradient(outputs, positions)
            total += losses.sum(axis=1, dtype=np.float64)
            gradient *= (1 - _BETA_1) / len(batch)
            self._bias.gradient[...] = meaning.bias_gradient(gradient, self._bias.value)
            self._layers.differentiate(meaning.columns_gradient(gradient), passed)
            step = task.schedule.step(self._step)
            for weight in (*self._layers.weights, self._bias):
                weight.update(step)
            self._step += 1
        return total / len(task.y)

    def _validate(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the loss and the accuracy of each living arm on the validation rows, (A,); NaN without rows."""
        task = self._task
        count = len(task.y_val)
        if not count:
            return (np.full(len(self._alive), np.nan),) * 2
        nll, right = np.zeros(len(self._alive)), np.zeros(len(self._alive))
        for rows in self._windows(count):
            log_probabilities = self._log_probabilities(task.X_val[rows])
            nll += self._nll(log_probabilities, task.y_val[rows]).sum(axis=1, dtype=np.float64)
            positions = self._positions[self._alive][:, task.y_val[rows]]
            right += (log_probabilities.argmax(axis=2) == positions).sum(axis=1)
        return nll / count, right / count

    def _log_probabilities(self, seen: np.ndarray) -> np.ndarray:
        """Return log-probabilities of positions (A, B, K) for what the head sees (B, D)."""
        rows, shift = self._layers.folded()
        columns = np.matmul(seen, _turned(rows))
        if shift is not None:
            columns += shift[:, None]
        return self._task.meaning.log_probabilities(self._task.meaning.outputs(columns, self._bias.value))

    def _nll(self, log_probabilities: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the negative log-probability of the true class, (A, B)."""
        positions = self._positions[self._alive][:, y]
        return -np.take_along_axis(log_probabilities, positions[..., None], axis=2)[..., 0]

    def _windows(self, count: int) -> Iterator[slice]:
        """Yield the rows that are predicted together: few enough that their outputs take little memory."""
        return _rows(count, max(1, _PREDICTED_AT_ONCE // (len(self.arms) * self._positions.shape[1])))

    def _end(self, failed: Any, when: str) -> None:
        """End the runs of some of the living arms; the others go on."""
        if not failed.any():
            return
        for arm in self._alive[failed]:
            self._problems[int(arm)] = (
                f"Its loss was no longer a finite number {when}. Train with a learning rate below "
                f"{self._task.recipe.learning_rate:g}."
            )
        self._alive = self._alive[~failed]
        for weight in (*self._layers.weights, self._bias):
            weight.keep(~failed)

    def _head(self, place: int, prepare: _Preparation) -> dict[str, np.ndarray]:
        """Return the head of the living arm at a place, for features as they were given."""
        kernel, shift, norm = self._layers.exported(place, prepare)
        kernel = np.ascontiguousarray(kernel)
        bias = self._bias.value[place]
        if self._task.meaning.n_columns < self._task.meaning.n_outputs:
            return {"kernel": kernel, "thresholds": ordered_thresholds(bias) - shift, **norm}
        return {"kernel": kernel, "bias": bias + shift, **norm}


def _best_first(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the highest scores along the last axis, highest first."""
    best = np.argpartition(-scores, count - 1, axis=-1)[..., :count]
    order = np.argsort(-np.take_along_axis(scores, best, axis=-1), axis=-1, kind="stable")
    return np.take_along_axis(best, order, axis=-1)


# --- All at once


def _train(
    blocks: Sequence[_Block],
    finish: Callable[[_Block], list[Run]],
    epochs: int,
    on_epoch: Callable[[int], None],
    should_stop: Callable[[], bool],
) -> list[Run]:
    """Train all blocks for some epochs and return their runs.

    A block that has ended an epoch waits behind those that have not, so all are at about the same one.

    Args:
        on_epoch: Called with each epoch when all blocks have ended it.
    """
    from threadpoolctl import threadpool_limits

    stop = threading.Event()
    runs: list[Run] = []
    ended = [0] * (epochs + 1)
    # Each block's matrix products run in its own thread. More threads would also round differently.
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(min(cpu_cores(), len(blocks))) as pool:
        try:
            pending: dict[Future, tuple[_Block, int]] = {
                pool.submit(block.train_epoch, 1, stop): (block, 1) for block in blocks
            }
            while pending:
                done, _ = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                if should_stop():
                    raise Cancelled("Fine-tuning was cancelled.")
                for future in done:
                    block, epoch = pending.pop(future)
                    result = future.result()
                    if epoch > epochs:
                        runs += result
                        continue
                    following = (block.train_epoch, epoch + 1, stop) if epoch < epochs else (finish, block)
                    pending[pool.submit(*following)] = block, epoch + 1
                    ended[epoch] += 1
                    if ended[epoch] == len(blocks):
                        on_epoch(epoch)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    return runs


def _curves(blocks: Sequence[_Block], arms: Sequence[Arm], seeds: Sequence[int], epoch: int) -> dict[str, np.ndarray]:
    """Return the curves at an epoch, each float32 (arms, seeds); NaN where a run has ended before."""
    row = {arm.name: index for index, arm in enumerate(arms)}
    column = {seed: index for index, seed in enumerate(seeds)}
    names = ("train_loss", "val_loss", "val_accuracy")
    found = {name: np.full((len(arms), len(seeds)), np.nan, np.float32) for name in names}
    for block in blocks:
        for arm, epochs in zip(block.arms, block.epochs, strict=True):
            if len(epochs) >= epoch:
                for name in names:
                    found[name][row[arm.name], column[block.seed]] = getattr(epochs[epoch - 1], name)
    return found
