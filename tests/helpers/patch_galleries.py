"""The folder of a gallery of scored patches, written without a model."""

import json
from pathlib import Path

import numpy as np

from labelrank.features.store import FeatureSet, write_features
from labelrank.json_values import plain
from labelrank.patches.ranker_recipe import Agreement, RankerEpoch, RankerResult
from labelrank.steps.patch_gallery.folder import CARD, SCORES, VERSION, Gallery

RATIOS = (0.25, 0.5)
SELECTORS = ("top", "grid", "centre", "random")


def write_gallery(folder: Path, *, media: str = "image", shown: int = 6, edge: bool = False) -> Gallery:
    """Write a gallery of three classes with two samples each, 4 x 4 patches of 8 pixels; of a clip, two slices.

    Args:
        shown: So many samples have pictures.
        edge: Whether the scores of the class one lie in the border; then each class has four samples.
    """
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    slices = 2 if media == "clip" else 1
    total, names = 16 * slices, ("zero", "one", "two")
    y = np.arange(12 if edge else 6) % 3
    keys = tuple(f"train/{names[label]}/{number:04}.png" for number, label in enumerate(y))
    X = rng.uniform(0.5, 1.5, (len(y), total)).astype(np.float32)
    if edge:
        border = np.tile(np.pad(np.zeros((2, 2), bool), 1, constant_values=True).ravel(), slices)
        X[np.ix_(y == 1, border)] *= 4
    grid = (slices, 4, 4)
    provenance = {
        "dataset": {"id": "digits"},
        "device": "CPU",
        "patches": {"visible": 3, "rounds": 2, "variant": "exact", "seed": 0, "distance": "l1", "grid": list(grid)},
    }
    write_features(FeatureSet(X, y.astype(np.int32), keys, names, provenance), folder / SCORES)
    shape = (32, 32, 3) if media == "image" else (slices, 32, 32, 3)
    for number in range(shown):
        kept = np.zeros((len(RATIOS), len(SELECTORS), total), bool)
        for place, ratio in enumerate(RATIOS):
            for row in range(len(SELECTORS)):
                kept[place, row, np.argsort(-X[number] if row == 0 else rng.random(total))[: int(ratio * total)]] = True
        count = int(RATIOS[0] * total)
        np.savez_compressed(
            folder / f"{number}.npz",
            key=np.array(keys[number]),
            picture=rng.integers(0, 256, shape, np.uint8),
            kept=kept,
            rebuilt=rng.integers(0, 256, (len(RATIOS), len(SELECTORS), *shape), np.uint8),
            error=rng.uniform(5, 20, (len(RATIOS), len(SELECTORS))).astype(np.float32),
            **{
                f"without_{RATIOS[0]}": rng.integers(0, 256, (count, *shape), np.uint8),
                f"moved_{RATIOS[0]}": np.linspace(0.01, 0.02, count).astype(np.float32),
            },
        )
    gallery = Gallery(
        version=VERSION,
        media=media,
        grid=grid,
        selectors=SELECTORS,
        ratios=RATIOS,
        taken_away=RATIOS[:1],
        shown=keys[:shown],
        ranker=None,
        standardised=media == "clip",
        reliability=0.5,
        error=((10.0, 8.0, 9.0, 12.0), (5.0, 4.0, 4.5, 6.0)),
    )
    (folder / CARD).write_text(json.dumps(plain(gallery)))
    return gallery


def ranker_result(spearman: float = 0.6) -> RankerResult:
    """Return what came of a ranker's training."""
    agreement = {"ranker": spearman, "position": 0.5, "random": 0.0}
    return RankerResult(
        epochs=tuple(RankerEpoch(10.0 - n, 0.2 * n, 0.6) for n in range(4)),
        agreement={name: Agreement(value, 0.01, 0.7) for name, value in agreement.items()},
        held_out=100,
        rounds=8,
        reliability=0.64,
        num_parameters=120_000,
        duration_s=240.0,
    )
