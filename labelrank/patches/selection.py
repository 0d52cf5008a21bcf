"""Which patches are kept: by scores that were learned, or by what needs no training."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from labelrank.errors import SettingsError
from labelrank.models.config import EncoderConfig
from labelrank.models.cutting import cut_patches

TOP_SHARE = 0.7
"""Of the kept patches, those with the best scores in `top-and-clusters`; published for dense labels."""
_NEIGHBOURS = 5


@dataclass(frozen=True)
class Samples:
    """What a selector may look at: B samples of one encoder with N patches."""

    inputs: np.ndarray
    """Normalised images float32 (B, H, W, C) or clips (B, T, H, W, C)."""
    keys: Sequence[str]
    config: EncoderConfig
    scores: np.ndarray | None = None
    """A score of each patch, (B, N); the highest matter most."""
    attention: np.ndarray | None = None
    """How much CLS attends to each patch, (B, N) (`attention.cls_attention`)."""
    seed: int = 0

    def patches(self, inputs: np.ndarray | None = None) -> np.ndarray:
        """Return the pixels of each patch, (B, N, patch_dim): tubelet, row, column, channel."""
        return cut_patches(self.inputs if inputs is None else inputs, self.config)


def check_ratio(ratio: float) -> None:
    """Raise SettingsError unless a keep ratio is above 0 and at most 1."""
    if not 0 < ratio <= 1:
        raise SettingsError(f"The keep ratio is {ratio:g}; expected a number above 0 and at most 1, such as 0.5.")


def num_kept(ratio: float, num_patches: int) -> int:
    """Return how many patches a keep ratio leaves.

    Raises:
        SettingsError: The ratio is not above 0 and at most 1, or leaves no patch.
    """
    check_ratio(ratio)
    kept = round(ratio * num_patches)
    if not kept:
        raise SettingsError(
            f"A keep ratio of {ratio:g} leaves none of {num_patches} patches; choose at least {1 / num_patches:.3g}."
        )
    return kept


def select(selector: str, samples: Samples, keep: int) -> np.ndarray:
    """Return the patches of each sample that are kept, rising, int32 (B, keep).

    Equal patches are taken in reading order, so the same samples always keep the same patches.

    Raises:
        SettingsError: Unknown selector, another number of patches than there are, or it needs scores or attention that
            are not there, not finite or of another number of patches.
    """
    if selector not in SELECTORS:
        raise SettingsError(f"Selector is {selector!r}; choose one of {', '.join(SELECTORS)}.")
    total = samples.config.num_patches
    if not 1 <= keep <= total:
        raise SettingsError(f"{keep} patches cannot be kept; choose from 1 to {total}, which the encoder has.")
    return np.sort(SELECTORS[selector](samples, keep), axis=1).astype(np.int32)


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the places of the highest scores (B, N), highest first, int64 (B, count); of equal ones, the first."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


# --- Scores of patches, (B, N)


def _given(samples: Samples, values: np.ndarray | None, name: str, advice: str) -> np.ndarray:
    if values is None:
        raise SettingsError(f"This selector needs {name} of each patch, and there are none. {advice}")
    wanted = (len(samples.keys), samples.config.num_patches)
    if values.shape != wanted:
        raise SettingsError(
            f"The {name} is of the shape {values.shape}; expected {wanted}, samples and patches. It is of another "
            "encoder or image size; make it with this one."
        )
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise SettingsError(
            f"The {name} of {samples.keys[bad[0]]} holds NaN or infinity; expected finite numbers. Compute it again."
        )
    return values


def _scores(samples: Samples) -> np.ndarray:
    return _given(samples, samples.scores, "a score", "Score the patches first, or choose another selector.")


def _attention(samples: Samples) -> np.ndarray:
    return _given(samples, samples.attention, "the attention of CLS", "Take an encoder with CLS, or another selector.")


def _random(samples: Samples) -> np.ndarray:
    """Numbers that depend on seed and key alone."""

    def draw(key: str) -> np.ndarray:
        digest = hashlib.sha256(f"{samples.seed}\0{key}".encode()).digest()
        return np.random.default_rng(np.frombuffer(digest, np.uint32)).random(samples.config.num_patches)

    return np.stack([draw(key) for key in samples.keys])


def _in_every_slice(of_place: np.ndarray, samples: Samples) -> np.ndarray:
    """Return scores (rows, columns) as those of every slice and sample, (B, N)."""
    return np.tile(of_place.reshape(1, -1), (len(samples.keys), samples.config.num_slices))


def _grid(samples: Samples) -> np.ndarray:
    """Evenly spread at every number: a quarter is every second row and column, a half is a chessboard.

    Source: the thresholds of Bayer 1973, "An optimum method for two-level rendition of continuous-tone pictures".
    """
    rows, columns = samples.config.grid_size
    thresholds = np.zeros((1, 1))
    while len(thresholds) < max(rows, columns):
        thresholds = np.block([[4 * thresholds, 4 * thresholds + 2], [4 * thresholds + 3, 4 * thresholds + 1]])
    return _in_every_slice(-thresholds[:rows, :columns], samples)


def _centre(samples: Samples) -> np.ndarray:
    rows, columns = ((np.arange(n) + 0.5) / n - 0.5 for n in samples.config.grid_size)
    return _in_every_slice(-np.hypot(rows[:, None], columns[None]), samples)


def _variance(samples: Samples) -> np.ndarray:
    return np.asarray(samples.patches().var(axis=2, dtype=np.float64))


def _gradient(samples: Samples) -> np.ndarray:
    """The mean squared difference of neighbouring pixels, down and across."""
    x = samples.inputs.astype(np.float64)
    energy = np.zeros_like(x)
    energy[..., :-1, :, :] += np.square(np.diff(x, axis=-3))
    energy[..., :, :-1, :] += np.square(np.diff(x, axis=-2))
    return np.asarray(samples.patches(energy).mean(axis=2))


def _median(samples: Samples) -> np.ndarray:
    """The distance from the patch of each pixel's median."""
    patches = samples.patches().astype(np.float64)
    return np.asarray(np.linalg.norm(patches - np.median(patches, axis=1, keepdims=True), axis=2))


def _density_peaks(samples: Samples) -> np.ndarray:
    return np.stack([density_peaks(patches).peak for patches in samples.patches()])


# --- Density peaks


@dataclass(frozen=True)
class DensityPeaks:
    """How far each of N patches is the centre of a cluster."""

    distance: np.ndarray
    """Of two patches, (N, N): Euclidean, divided by the root of the number of pixels."""
    density: np.ndarray
    """exp(-mean squared distance to the nearest patches, of which it is the first itself), (N,)."""
    delta: np.ndarray
    """Distance to the nearest denser patch; of the densest, the largest distance of all, (N,)."""

    @property
    def peak(self) -> np.ndarray:
        """High for a dense patch that is far from every denser one, (N,)."""
        return np.asarray(self.density * self.delta)

    def clusters(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the centres of that many clusters, highest peak first, and the cluster of each patch, (N,)."""
        centres = best(self.peak[None], count)[0]
        cluster = self.distance[centres].argmin(axis=0)
        cluster[centres] = np.arange(count)
        return centres, cluster


def density_peaks(patches: np.ndarray) -> DensityPeaks:
    """Find the density peaks among the patches (N, patch_dim) of a sample.

    Source: DPC-KNN, Du et al. 2016, doi:10.1016/j.knosys.2016.02.001, with 5 neighbours as in Luo et al. 2024,
    arXiv:2404.00680; without their noise, equal patches keep their order.
    """
    x = patches.astype(np.float64)
    # The distances of equal patches are 0 exactly; the square of a difference by a product of matrices would not be.
    distance = np.stack([np.linalg.norm(x - row, axis=1) for row in x]) / math.sqrt(x.shape[1])
    nearest = np.sort(distance, axis=1)[:, :_NEIGHBOURS]
    density = np.exp(-np.square(nearest).mean(axis=1))
    is_denser = density[None] > density[:, None]
    return DensityPeaks(distance, density, np.where(is_denser, distance, distance.max()).min(axis=1))


def _top_and_clusters(samples: Samples, keep: int) -> np.ndarray:
    """The best scores, and centres of the largest of `keep` clusters whose own is not among them.

    Source: Luo et al. 2024, arXiv:2404.00680, whose clusters are represented by a random member.
    """
    first = int(keep * TOP_SHARE)  # rounded down as in the published code, also where 62.999... stands for 63
    chosen = best(_scores(samples), first)
    kept = np.empty((len(chosen), keep), np.int64)
    for row, (top, patches) in enumerate(zip(chosen, samples.patches(), strict=True)):
        centres, cluster = density_peaks(patches).clusters(keep)
        # At most `first` of the centres are kept already, so enough are left.
        sizes = np.where(np.isin(centres, top), 0, np.bincount(cluster, minlength=keep))
        kept[row] = np.concatenate([top, centres[best(sizes[None], keep - first)[0]]])
    return kept


def _best_of(score: Callable[[Samples], np.ndarray]) -> Callable[[Samples, int], np.ndarray]:
    return lambda samples, keep: best(score(samples), keep)


SCORES: dict[str, Callable[[Samples], np.ndarray]] = {
    "random": _random,
    "grid": _grid,
    "centre": _centre,
    "variance": _variance,
    "gradient": _gradient,
    "median": _median,
    "density-peaks": _density_peaks,
    "attention": _attention,
}
"""Scores of patches, (B, N), that need no ranker; the last one needs attention, the others nothing but the sample."""
SELECTORS: dict[str, Callable[[Samples, int], np.ndarray]] = {
    "top": _best_of(_scores),
    "top-and-clusters": _top_and_clusters,
    **{name: _best_of(score) for name, score in SCORES.items()},
}
"""The first two need scores; the others are the best of `SCORES`."""
