"""Train many heads on the same cached features at once: each order with each seed.

Runs are trained in blocks. A block has a few arms of one seed, and its weights have an arm axis: (A, D, C). A step
gathers one batch for the block, multiplies it with each arm's kernel, and updates the weights in pieces that stay in
the processor's cache. Blocks are independent, so each core works on one and no core waits before the last epoch. Every
arm has its own matrix product in one thread, so a run gives the same result, to the last bit, alone or among others.

The gradients are written by hand: a head is one or two matrix products, and only NumPy has to be loaded.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from labelrank.cores import cpu_cores
from labelrank.errors import Cancelled, FinetuneError, SettingsError
from labelrank.finetune.batches import follow_positions
from labelrank.finetune.decision import temperature_of
from labelrank.finetune.design import Arm, check_head_rows
from labelrank.finetune.head_math import (
    BETA_1,
    DROPOUT,
    Linear,
    Preparation,
    Prepared,
    Reference,
    Schedule,
    Table,
    Task,
    Weight,
    rows_at_once,
    turned,
)
from labelrank.finetune.head_sizes import arms_at_once, values_of
from labelrank.finetune.meanings import loss_towards, meaning_of, ordered_thresholds
from labelrank.finetune.recipe import HeadRecipe
from labelrank.finetune.runs import MAX_PROBABILITIES, TOP, Epoch, Run
from labelrank.finetune.soft_targets import check_targets

OnEpoch = Callable[[int, dict[str, np.ndarray]], None]
"""Called with the epoch, from 1, and train_loss, val_loss and val_accuracy, each float32 (arms, seeds)."""

# Outputs that a block computes together when it predicts.
_PREDICTED_AT_ONCE = 1_000_000
_POLL_S = 0.2


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
    targets: Mapping[str, np.ndarray] | None = None,
    in_full: Collection[str] = (),
    on_epoch: OnEpoch | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[Run]:
    """Train one run for each arm and seed, for `recipe.epochs` epochs, and return the runs arm by arm.

    All arms of a seed share the initial rows of the head (position j starts from row `head_rows[j]`), the order of the
    training rows and the dropout masks. These come from generators keyed by seed, purpose and epoch. Where
    `recipe.batches` follow positions, they share only the draws from which each arm's own order of the rows comes.

    An epoch shows every training row once, in batches of equal size (one row more or less) of at most
    `recipe.batch_size`, so the rows of a short last batch do not count more. The optimizer is AdamW as in Keras
    (decoupled decay of kernels only, epsilon 1e-7 beside the uncorrected root), with a linear warm-up, then half a
    cosine to 0.

    For `linear` and `batchnorm`, features are standardised by the mean and deviation of the training rows. This changes
    the effect of the learning rate, but not which functions a linear head can learn. `reference` begins with a norm of
    each row. Batch norm uses the statistics of all training rows; usual moving averages only estimate these. All of
    this is folded into `Run.head`. The test rows are used once, at the end; `val` may be empty.

    Args:
        targets: The targets of each arm, float32 (K, K) by label: row y is the distribution for a sample of class y.
            None: those of the recipe's meaning. Needs the meaning softmax without smoothing.
        in_full: Arms whose runs have a temperature, and of up to `MAX_PROBABILITIES` the probabilities of all classes.

    Returns:
        Runs whose `head` has kernel (D, n_columns) and bias (n_outputs,), or for ordinal thresholds (K - 1,); it takes
        the features as given. For `reference`, it also has norm_gamma, norm_beta (D,) and norm_epsilon of the layer
        norm before it. A run whose loss is no longer finite ends there, with a problem; the others go on. `seconds` is
        time of one processor core, shared equally among runs that were trained together.

    Raises:
        FinetuneError: The tables do not match each other, or hold values that are not finite.
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
        check_head_rows(arm, meaning.name, exchangeable=meaning.exchangeable, batches=recipe.batches)
    _check_targets(targets, arms, recipe, n_classes)
    prepare = Preparation.of(train.X, recipe.head)
    seen, seen_val = Prepared(train.X, prepare), Prepared(val.X, prepare)
    task = Task(seen, train.y, seen_val, val.y, recipe, meaning, Schedule.of(len(train.y), recipe))
    size = arms_at_once(len(arms), len(seeds), values_of(train.X.shape[1], meaning.n_columns, recipe))
    if follow_positions(recipe.batches):
        size = 1  # each order has batches of its own
    blocks = [
        _Block(task, seed, arms[first : first + size], targets, in_full)
        for seed in seeds
        for first in range(0, len(arms), size)
    ]
    runs = _train(
        blocks,
        lambda block: block.finish(test, prepare),
        recipe.epochs,
        lambda epoch: on_epoch(epoch, _curves(blocks, arms, seeds, epoch)) if on_epoch else None,
        should_stop or (lambda: False),
    )
    found = {(run.arm, run.seed): run for run in runs}
    return [found[arm.name, seed] for arm in arms for seed in seeds]


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
        if not all(np.isfinite(table.X[rows]).all() for rows in rows_at_once(len(table.y))):
            raise FinetuneError(
                f"The {name} features hold values that are not finite numbers. Extract them again, with --precision "
                "float32."
            )
    if not len(train.y) or not n_features:
        raise FinetuneError(f"The training features have shape {train.X.shape}; give at least one row and one feature.")


def _check_targets(
    targets: Mapping[str, np.ndarray] | None, arms: Sequence[Arm], recipe: HeadRecipe, n_classes: int
) -> None:
    if targets is None:
        return
    if recipe.meaning != "softmax" or recipe.label_smoothing:
        raise SettingsError(
            f"Targets go with the meaning softmax without label smoothing, not with {recipe.meaning} and "
            f"{recipe.label_smoothing:g}. Leave these out."
        )
    for arm in arms:
        check_targets(targets.get(arm.name), arm.name, n_classes)


# --- What learns


class _Block:
    """A few arms of one seed, trained together."""

    def __init__(
        self,
        task: Task,
        seed: int,
        arms: Sequence[Arm],
        targets: Mapping[str, np.ndarray] | None = None,
        in_full: Collection[str] = (),
    ) -> None:
        self._in_full = in_full
        self.seed, self.arms = seed, arms
        self.epochs: list[list[Epoch]] = [[] for _ in arms]
        """The epochs of each arm."""
        self._task = task
        self._step = 0
        self._seconds = 0.0
        self._alive = np.arange(len(arms))
        self._problems: dict[int, str] = {}
        self._positions = np.array([arm.position_of for arm in arms])
        self._orders = np.array([arm.order for arm in arms], dtype=np.int32)
        # By label, and by position: what a row of this label should give at each position.
        self._targets = None
        if targets is not None:
            self._targets = np.stack([targets[arm.name][:, list(arm.order)] for arm in arms]).astype(np.float32)
        meaning = task.meaning
        places = np.array([arm.head_rows[: meaning.n_columns] for arm in arms])
        layers = Reference if task.recipe.head == "reference" else Linear
        self._layers: Any = layers.drawn(task, seed, places)
        self._bias = Weight(np.repeat(meaning.initial_bias()[None], len(arms), axis=0), decays=False)

    def train_epoch(self, epoch: int, stop: threading.Event) -> None:
        """Train all arms for one more epoch, counted from 1, and evaluate them on the validation rows."""
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

    def finish(self, test: Table, prepare: Preparation) -> list[Run]:
        """Return the run of each arm, with its predictions for the test rows."""
        began = time.thread_time()
        top = min(TOP, self._positions.shape[1])
        predicted = np.empty((len(self.arms), len(test.y), top), np.int32)
        nll = np.empty((len(self.arms), len(test.y)), np.float32)
        confidence = None if self._targets is None else np.empty(nll.shape, np.float32)
        shape = (len(test.y), self._positions.shape[1])
        in_full = self._in_full if math.prod(shape) <= MAX_PROBABILITIES else ()
        whole = {index: np.empty(shape, np.float32) for index, arm in enumerate(self.arms) if arm.name in in_full}
        alive, temperatures = self._alive, self._temperatures()
        with np.errstate(all="ignore"):
            for rows in self._windows(len(test.y)):
                log_probabilities = self._log_probabilities(prepare(test.X[rows]))
                nll[alive, rows] = self._nll(log_probabilities, test.y[rows])
                for place, arm_index in enumerate(alive.tolist()):
                    if arm_index in whole:
                        whole[arm_index][rows] = log_probabilities[place][:, self._positions[arm_index]]
                best = _best_first(log_probabilities, top)
                predicted[alive, rows] = self._orders[alive[:, None, None], best]
                if confidence is not None:
                    confidence[alive, rows] = np.exp(log_probabilities.max(axis=2))
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
                    confidence=None if problem or confidence is None else confidence[index],
                    log_probabilities=None if problem else whole.get(index),
                    temperature=None if problem else temperatures.get(index),
                )
            )
        return runs

    def _pass(self, epoch: int, stop: threading.Event) -> np.ndarray:
        """Take the steps of one epoch; return the mean loss of each living arm (A,)."""
        task, meaning = self._task, self._task.meaning
        masks = np.random.default_rng([self.seed, DROPOUT, epoch])
        total = np.zeros(len(self._alive))
        for batch in task.batches(self.seed, epoch, self._positions[0]):
            if stop.is_set() or not len(self._alive):
                break
            x = task.seen(batch)
            columns, passed = self._layers.columns(x, task.mask(masks, len(batch)))
            outputs = meaning.outputs(columns, self._bias.value)
            losses, gradient = self._loss_and_gradient(outputs, task.y[batch])
            total += losses.sum(axis=1, dtype=np.float64)
            gradient *= (1 - BETA_1) / len(batch)
            self._bias.gradient[...] = meaning.bias_gradient(gradient, self._bias.value)
            self._layers.differentiate(meaning.columns_gradient(gradient), passed)
            step = task.schedule.step(self._step)
            for weight in (*self._layers.weights, self._bias):
                weight.update(step)
            self._step += 1
        return total / len(task.y)

    def _loss_and_gradient(self, outputs: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the loss of each row (A, B) and its gradient by the outputs (A, B, n_outputs), which it overwrites."""
        if self._targets is not None:
            return loss_towards(outputs, self._targets[self._alive[:, None], y])
        return self._task.meaning.loss_and_gradient(outputs, self._positions[self._alive][:, y])

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

    def _temperatures(self) -> dict[int, float | None]:
        """Return the temperature of each living arm whose probabilities are kept."""
        task, places = (
            self._task,
            [
                (place, index)
                for place, index in enumerate(self._alive.tolist())
                if self.arms[index].name in self._in_full
            ],
        )
        if not places:
            return {}
        found: dict[int, list[np.ndarray]] = {index: [] for _, index in places}
        for rows in self._windows(len(task.y_val)):
            log_probabilities = self._log_probabilities(task.X_val[rows])
            for place, index in places:
                found[index].append(log_probabilities[place])
        return {
            index: temperature_of(np.concatenate(of_arm), self._positions[index][task.y_val]) if of_arm else None
            for index, of_arm in found.items()
        }

    def _log_probabilities(self, seen: np.ndarray) -> np.ndarray:
        """Return log-probabilities of positions (A, B, K) for prepared features (B, D)."""
        rows, shift = self._layers.folded()
        columns = np.matmul(seen, turned(rows))
        if shift is not None:
            columns += shift[:, None]
        result: np.ndarray = self._task.meaning.log_probabilities(self._task.meaning.outputs(columns, self._bias.value))
        return result

    def _nll(self, log_probabilities: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the negative log-probability of the true class, (A, B)."""
        positions = self._positions[self._alive][:, y]
        return -np.take_along_axis(log_probabilities, positions[..., None], axis=2)[..., 0]

    def _windows(self, count: int) -> Iterator[slice]:
        """Yield slices of rows to predict together, short enough that their outputs take little memory."""
        return rows_at_once(count, max(1, _PREDICTED_AT_ONCE // (len(self.arms) * self._positions.shape[1])))

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

    def _head(self, place: int, prepare: Preparation) -> dict[str, np.ndarray]:
        """Return the head of the living arm at index `place`, for features as given to `train_heads`."""
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

    A block that has finished an epoch queues behind the others, so all blocks are at about the same epoch.

    Args:
        on_epoch: Called with each epoch when all blocks have finished it.
    """
    from threadpoolctl import threadpool_limits

    stop = threading.Event()
    runs: list[Run] = []
    ended = [0] * (epochs + 1)
    # Each block's matrix products run in its own thread. More threads would also round differently.
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(min(cpu_cores(), len(blocks))) as pool:
        try:
            pending: dict[Future[Any], tuple[_Block, int]] = {
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
    """Return the curves at an epoch, each float32 (arms, seeds); NaN where a run has failed before it."""
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
