"""Which patches of a sample are visible when their density scores are computed, and how far two draws agree."""

from __future__ import annotations

import hashlib

import numpy as np

from labelrank.errors import SettingsError
from labelrank.models.config import EncoderConfig

MIN_VISIBLE = 3
"""A set of one ranks nothing, and one of two hardly anything."""


def num_places(config: EncoderConfig) -> int:
    """Return how many places a sample has to choose from: its patches, or in a clip those of one slice."""
    return config.noise_shape[0]


def default_visible(config: EncoderConfig) -> int:
    """Return how many places are visible by default: a tenth, as published."""
    return max(MIN_VISIBLE, num_places(config) // 10)


def check_visible(visible: int, config: EncoderConfig) -> None:
    """Raise SettingsError unless that many visible places can be ranked and leave something to reconstruct."""
    places = num_places(config)
    if not MIN_VISIBLE <= visible < places:
        grid = " x ".join(map(str, config.grid_size))
        raise SettingsError(
            f"{visible} visible patches of {places} ({grid}) cannot be ranked; choose from {MIN_VISIBLE} to "
            f"{places - 1}"
            + (
                f", such as {default_visible(config)}."
                if places > MIN_VISIBLE
                else ", with a checkpoint of more patches."
            )
        )


def draw_visible(config: EncoderConfig, key: str, *, visible: int, rounds: int, seed: int) -> np.ndarray:
    """Return random sets of visible patches, rising, int32 (rounds, sets, V).

    A round cuts a random order of all places into sets of `visible`, so each patch is visible in every round; the last
    set is filled up with the places that came first. A clip shows a place in all of its slices, as in its pre-training
    (`models.mae.tubes_from_noise`), so that its sets have V = slices x `visible` tubelets.

    The draw depends on the seed and the sample's key alone.

    Source: Luo et al. 2024, arXiv:2404.00680, who draw one set; we cover every patch.
    """
    check_visible(visible, config)
    places, slices = num_places(config), config.num_slices
    digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
    rng = np.random.default_rng(np.frombuffer(digest, np.uint32))
    sets = -(-places // visible)
    drawn = np.empty((rounds, sets, visible), np.int32)
    for i in range(rounds):
        drawn[i] = np.resize(rng.permutation(places), sets * visible).reshape(sets, visible)
    starts = np.arange(slices, dtype=np.int32) * places
    drawn = np.sort(drawn, axis=2)[:, :, None] + starts[:, None]  # (rounds, sets, slices, visible)
    return drawn.reshape(rounds, sets, slices * visible)


def hidden_of(visible: np.ndarray, num_patches: int) -> np.ndarray:
    """Return the patches that are not in each set, rising, int32 (sets, N - V); `visible` int (sets, V)."""
    is_hidden = np.ones((len(visible), num_patches), bool)
    np.put_along_axis(is_hidden, visible, False, axis=1)
    return np.nonzero(is_hidden)[1].reshape(len(visible), -1).astype(np.int32)


def mean_of_rounds(scores: np.ndarray, visible: np.ndarray, num_patches: int) -> np.ndarray:
    """Return the mean score of each patch in each round, float64 (rounds, N).

    Args:
        scores: Of the visible patches, (rounds, sets, V).
        visible: int (rounds, sets, V), in which every round has every patch (`draw_visible`).
    """
    rounds = len(visible)
    place = visible.reshape(rounds, -1) + np.arange(rounds)[:, None] * num_patches
    total = np.bincount(place.ravel(), scores.ravel(), minlength=rounds * num_patches)
    return (total / np.bincount(place.ravel(), minlength=rounds * num_patches)).reshape(rounds, num_patches)


def split_half(of_rounds: np.ndarray) -> float:
    """Return Spearman's correlation between the means of the odd and of the even rounds of one sample.

    NaN for fewer than two rounds, or where all scores of a half are equal.
    """
    if len(of_rounds) < 2:
        return float("nan")
    from scipy.stats import rankdata  # pages plan with the rest of this module, and SciPy takes 50 MB

    first, second = (rankdata(of_rounds[start::2].mean(axis=0)) for start in (0, 1))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def reliability(split_halves: np.ndarray) -> float | None:
    """Return how reliable the mean of all rounds is, from the correlations between two halves of them; None if unknown.

    A model that predicted the true scores would have a correlation of at most the square root of this with the means.

    Source: Spearman 1910 and Brown 1910: 2 r / (1 + r).
    """
    known = split_halves[np.isfinite(split_halves)]
    if not known.size:
        return None
    r = float(known.mean())
    return 2 * r / (1 + r) if r > 0 else 0.0
