"""The parts of a head that trains in NumPy: preparation of inputs, schedule, weights, optimizer and gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from labelrank.finetune.batches import row_sequence
from labelrank.finetune.meanings import Meaning
from labelrank.finetune.recipe import HeadRecipe

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7
NORM_EPSILON = 1e-6
"""Epsilon of the norm of a `reference` head."""
# Purposes of random generators, so that no two draws of a seed are related.
KERNEL, HIDDEN, ORDER, DROPOUT = range(4)
# Values of a weight that are updated at a time: five arrays of this size fit into a core's second-level cache.
_PIECE = 32_768


@dataclass(frozen=True)
class Table:
    """Pooled features of one split."""

    X: np.ndarray
    """float32 (n, D); rows that are mapped from a file are not copied as a whole."""
    y: np.ndarray
    """Labels, int32 (n,)."""


def rows_at_once(count: int, at_once: int = 4096) -> Iterator[slice]:
    return (slice(start, start + at_once) for start in range(0, count, at_once))


@dataclass(frozen=True)
class Preparation:
    """Standardises features before training, with fixed statistics."""

    mean: np.ndarray | None
    """float32 (D,); None if each row is normalised by itself."""
    factor: np.ndarray | None

    @classmethod
    def of(cls, X: np.ndarray, head: str) -> Preparation:
        """Return the preparation for a head that learns from X (n, D)."""
        if head == "reference":
            return cls(None, None)
        mean, variance = np.zeros(X.shape[1]), np.zeros(X.shape[1])
        for rows in rows_at_once(len(X)):
            mean += X[rows].sum(axis=0, dtype=np.float64) / len(X)
        for rows in rows_at_once(len(X)):
            variance += np.square(X[rows] - mean).sum(axis=0) / len(X)
        deviation = np.sqrt(variance)
        # A feature that is the same in all training rows, up to rounding, has no information.
        varies = deviation > 1e-6 * np.abs(mean)
        factor = np.divide(1, deviation, out=np.zeros(len(mean)), where=varies)
        return cls(mean.astype(np.float32), factor.astype(np.float32))

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Return features (n, D) as the head sees them, float32."""
        seen = np.empty(X.shape, np.float32)
        for rows in rows_at_once(len(X)):
            if self.mean is None or self.factor is None:
                centred = X[rows] - X[rows].mean(axis=1, keepdims=True)
                deviation = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + NORM_EPSILON)
                np.divide(centred, deviation, out=seen[rows])
            else:
                np.multiply(X[rows] - self.mean, self.factor, out=seen[rows])
        return seen

    def folded(self, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return a kernel (D, C) turned into one for unprepared features, and what to add to the outputs (C,)."""
        if self.mean is None or self.factor is None:
            return kernel, np.zeros(kernel.shape[1], np.float32)
        raw = kernel.astype(np.float64) * self.factor[:, None]
        return raw.astype(np.float32), (-self.mean @ raw).astype(np.float32)


class Prepared:
    """The rows of a table as heads see them, float32 (n, D); those that are mapped from a file are so once read."""

    def __init__(self, X: np.ndarray, prepare: Preparation) -> None:
        self._prepare = prepare if isinstance(X, np.memmap) else None
        self._X = X if self._prepare else prepare(X)
        self.shape = X.shape

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        found: np.ndarray = self._X[rows]
        return self._prepare(found) if self._prepare else found


@dataclass(frozen=True)
class Schedule:
    """Learning rates: a linear warm-up, then half a cosine."""

    peak: float
    weight_decay: float
    steps_per_epoch: int
    warmup_steps: int
    total_steps: int

    @classmethod
    def of(cls, n_train: int, recipe: HeadRecipe) -> Schedule:
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

    def step(self, step: int) -> Step:
        """Return the size of a step, counted from 0."""
        rate, taken = self.rate(step), step + 1
        corrected = rate * math.sqrt(1 - BETA_2**taken) / (1 - BETA_1**taken)
        return Step(corrected, 1 - rate * self.weight_decay)


@dataclass(frozen=True)
class Step:
    """The size of one step."""

    scale: float
    """Alpha of Adam: the learning rate with both bias corrections."""
    decay: float
    """Factor of the weights that decay."""


@dataclass(frozen=True)
class Task:
    """The data and settings that all blocks share."""

    X: Prepared
    """Training rows as heads see them."""
    y: np.ndarray
    X_val: Prepared
    y_val: np.ndarray
    recipe: HeadRecipe
    meaning: Meaning
    schedule: Schedule

    def batches(self, seed: int, epoch: int, position_of: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the rows of each batch of an epoch: each row once, in batches of equal size, one row more or less.

        Args:
            position_of: Position of each label, int (K,); makes no difference unless batches follow positions.
        """
        rng = np.random.default_rng([seed, ORDER, epoch])
        rows = row_sequence(position_of[self.y], self.recipe.batches, rng)
        yield from np.array_split(rows, self.schedule.steps_per_epoch)

    def seen(self, batch: np.ndarray) -> np.ndarray:
        """Return some training rows as heads see them, (B, D), as a copy."""
        x = self.X[batch]
        if self.recipe.head == "batchnorm":
            x -= x.mean(axis=0)
            x /= np.sqrt(np.square(x).mean(axis=0) + NORM_EPSILON)
        result: np.ndarray = x
        return result

    def mask(self, rng: np.random.Generator, rows: int) -> np.ndarray | None:
        """Return the next dropout mask (B, width): 0, or the factor that keeps the mean; None without dropout."""
        rate = self.recipe.dropout
        if not rate:
            return None
        width = self.recipe.hidden_dim if self.recipe.head == "reference" else self.X.shape[1]
        kept = rng.random((rows, width), dtype=np.float32) >= rate
        return kept.astype(np.float32) / np.float32(1 - rate)


class Weight:
    """A weight of each arm of a block, (A, ...), with the moments of AdamW.

    Gradients arrive already multiplied by 1 - beta 1, because that is cheaper on outputs than on weights. The first
    moment adds them unchanged; the second moment is that of the multiplied gradients.

    Source: Loshchilov and Hutter 2019, algorithm 2; bias correction as in Kingma and Ba 2015, the end of section 2.
    """

    def __init__(self, value: np.ndarray, *, decays: bool) -> None:
        self.value = np.ascontiguousarray(value, dtype=np.float32)
        self.gradient = np.empty_like(self.value)
        """Fill it before `update`, which overwrites it."""
        self._first, self._second = np.zeros_like(self.value), np.zeros_like(self.value)
        self._decays = decays

    def update(self, step: Step) -> None:
        root_scale = math.sqrt(1 - BETA_2) / (1 - BETA_1) / step.scale
        arrays = [array.reshape(-1) for array in (self.value, self.gradient, self._first, self._second)]
        for start in range(0, self.value.size, _PIECE):
            value, gradient, first, second = (array[start : start + _PIECE] for array in arrays)
            first *= BETA_1
            first += gradient
            gradient *= gradient
            second *= BETA_2
            second += gradient
            np.sqrt(second, out=gradient)
            gradient *= root_scale
            gradient += EPSILON / step.scale
            np.divide(first, gradient, out=gradient)
            if self._decays:
                value *= step.decay
            value -= gradient

    def keep(self, arms: np.ndarray) -> None:
        """Keep only these arms."""
        self.value, self._first, self._second = (a[arms] for a in (self.value, self._first, self._second))
        self.gradient = np.empty_like(self.value)


class Linear:
    """One kernel for each arm, stored by rows (A, C, D), which BLAS multiplies fastest."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = Weight(rows, decays=True)
        self.weights = [self._rows]

    @classmethod
    def drawn(cls, task: Task, seed: int, places: np.ndarray) -> Linear:
        return cls(_drawn_rows(seed, places, task.X.shape[1], task.recipe.head_init_std))

    def columns(self, x: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return columns (A, B, C) of prepared features (B, D), with a dropout mask (B, D).

        The second value is for `differentiate`.
        """
        x = x if mask is None else x * mask
        return np.matmul(x, turned(self._rows.value)), x

    def differentiate(self, gradient: np.ndarray, x: np.ndarray) -> None:
        """Fill the gradients of the weights with those by `gradient`, of the columns (A, B, C)."""
        np.matmul(turned(gradient), x, out=self._rows.gradient)

    def folded(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the rows of one kernel (A, C, D), and what is added to the columns (A, C), without dropout."""
        return self._rows.value, None

    def exported(self, arm: int, prepare: Preparation) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Return an arm's kernel (D, C) for unprepared features, what is added to its columns (C,), and no norm."""
        return *prepare.folded(self._rows.value[arm].T), {}


class Reference:
    """norm -> dense -> dropout -> dense; scale and shift of the norm learn.

    Source: Xiang et al. 2025 (Label Ranker): fc_norm, the 400-way layer of the Kinetics head, dropout, dense, without
    an activation in between. The prepared features are the norm without scale and shift, the same for all arms.
    """

    def __init__(self, hidden: np.ndarray, rows: np.ndarray) -> None:
        arms, (width, n_features) = len(rows), hidden.shape
        self._gamma = Weight(np.ones((arms, n_features)), decays=False)
        self._beta = Weight(np.zeros((arms, n_features)), decays=False)
        self._hidden = Weight(np.repeat(hidden[None], arms, axis=0), decays=True)
        self._hidden_bias = Weight(np.zeros((arms, width)), decays=False)
        self._rows = Weight(rows, decays=True)
        self.weights = [self._gamma, self._beta, self._hidden, self._hidden_bias, self._rows]

    @classmethod
    def drawn(cls, task: Task, seed: int, places: np.ndarray) -> Reference:
        n_features, width = task.X.shape[1], task.recipe.hidden_dim
        hidden = np.random.default_rng([seed, HIDDEN]).standard_normal((width, n_features), dtype=np.float32)
        return cls(hidden / np.float32(n_features**0.5), _drawn_rows(seed, places, width, task.recipe.head_init_std))

    def columns(self, x: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, tuple[Any, ...]]:
        """Return columns (A, B, C) of prepared features (B, D), with a dropout mask (B, hidden) of the hidden layer.

        The second value is for `differentiate`.
        """
        rows, bias = self._normed()
        middle = np.matmul(x, turned(rows))  # (A, B, hidden)
        middle += bias[:, None]
        if mask is not None:
            middle *= mask
        return np.matmul(middle, turned(self._rows.value)), (x, mask, middle)

    def differentiate(self, gradient: np.ndarray, passed: tuple[Any, ...]) -> None:
        """Fill the gradients of the weights with those by `gradient`, of the columns (A, B, C)."""
        x, mask, middle = passed
        np.matmul(turned(gradient), middle, out=self._rows.gradient)
        np.matmul(gradient, self._rows.value, out=middle)  # from here on, the gradient of the hidden layer
        if mask is not None:
            middle *= mask
        middle.sum(axis=1, out=self._hidden_bias.gradient)
        # Gradient of the first layer with scale and shift folded in. All four gradients follow from it and the sums,
        # without another product with the batch.
        normed = np.matmul(turned(middle), x, out=self._hidden.gradient)  # (A, hidden, D)
        hidden, sums = self._hidden.value, self._hidden_bias.gradient
        np.einsum("ahd,ahd->ad", hidden, normed, out=self._gamma.gradient)
        np.matmul(sums[:, None], hidden, out=self._beta.gradient[:, None])
        normed *= self._gamma.value[:, None]
        normed += self._beta.value[:, None] * sums[..., None]

    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of one kernel (A, C, D), and what is added to the columns (A, C), without dropout."""
        rows, bias = self._normed()
        return np.matmul(self._rows.value, rows), np.matmul(self._rows.value, bias[..., None])[..., 0]

    def exported(self, arm: int, prepare: Preparation) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Return an arm's kernel (D, C) for normed features, what is added to its columns (C,), and the norm."""
        rows = self._rows.value[arm]
        norm = {
            "norm_gamma": self._gamma.value[arm].copy(),
            "norm_beta": self._beta.value[arm].copy(),
            "norm_epsilon": np.array(NORM_EPSILON, np.float32),
        }
        return (rows @ self._hidden.value[arm]).T, rows @ self._hidden_bias.value[arm], norm

    def _normed(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the first layer with the norm's scale and shift folded in: (A, hidden, D) and (A, hidden)."""
        hidden = self._hidden.value
        shift = np.matmul(hidden, self._beta.value[..., None])[..., 0]
        return hidden * self._gamma.value[:, None], shift + self._hidden_bias.value


def turned(matrices: np.ndarray) -> np.ndarray:
    return matrices.transpose(0, 2, 1)


def _drawn_rows(seed: int, places: np.ndarray, n_inputs: int, std: float) -> np.ndarray:
    """Return each arm's initial rows (A, C, n_inputs): those at its places (A, C) among the rows drawn for the seed."""
    drawn = np.random.default_rng([seed, KERNEL]).standard_normal((places.shape[1], n_inputs), dtype=np.float32)
    result: np.ndarray = (drawn * np.float32(std))[places]
    return result
