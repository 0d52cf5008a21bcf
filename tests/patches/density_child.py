"""Run on one Keras backend (KERAS_BACKEND): print the largest differences to the golden scores as JSON."""

import json
import sys
from pathlib import Path

import numpy as np

from labelrank.models.checkpoint import open_checkpoint
from labelrank.patches.scorer import PatchScorer


def differences(folder: Path) -> dict[str, float]:
    golden = np.load(folder / "patches" / "golden.npz")
    images = np.moveaxis(np.load(folder / "vit_mae" / "golden.npz")["pixel_values"], 1, -1)
    found = {}
    for count, variant in ((4, "exact"), (6, "exact"), (6, "fast"), (6, "leaky")):
        scorer = PatchScorer(open_checkpoint(str(folder / "vit_mae")), visible=count, rounds=1, variant=variant)
        visible = golden[f"v{count}_visible"]
        scores = np.concatenate([scorer.of_sets(image, v[None]) for image, v in zip(images, visible, strict=True)])
        found[f"{variant} {count}"] = float(np.abs(scores - golden[f"v{count}_score_{variant}"]).max())
    return found


if __name__ == "__main__":
    print(json.dumps(differences(Path(sys.argv[1]))))
