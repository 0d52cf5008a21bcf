"""Run on one Keras backend (KERAS_BACKEND): print the largest differences to the goldens as JSON."""

import json
import sys
from pathlib import Path

import numpy as np
from keras import ops

from labelrank.models.checkpoint import open_checkpoint
from labelrank.models.convert import load_tensors, save_tensors
from labelrank.models.mae import MaskedAutoencoder


def main(folder: Path) -> None:
    golden = np.load(folder / "golden.npz")
    checkpoint = open_checkpoint(str(folder))
    model = MaskedAutoencoder(checkpoint.config)
    model.build()
    tensors = checkpoint.tensors()
    load_tensors(tensors, "vit_mae", model.encoder, model.decoder, source=str(folder))
    images = np.ascontiguousarray(golden["pixel_values"].transpose(0, 2, 3, 1))
    tokens = ops.convert_to_numpy(model.encoder(ops.convert_to_tensor(images)))
    output = model({"images": ops.convert_to_tensor(images), "noise": ops.convert_to_tensor(golden["noise"])})
    values = {name: ops.convert_to_numpy(value) for name, value in output.items()}
    saved = save_tensors("vit_mae", model.encoder, model.decoder)
    original = {name.replace("decoder_encoder.layer.", "decoder_layers."): tensors[name] for name in tensors}
    print(
        json.dumps(
            {
                "tokens": float(np.abs(tokens - golden["tokens"]).max()),
                "cls": float(np.abs(tokens[:, 0] - golden["cls"]).max()),
                "mean": float(np.abs(tokens[:, 1:].mean(axis=1) - golden["mean"]).max()),
                "mask": float(np.abs(values["mask"] - golden["mask"]).max()),
                "reconstruction": float(np.abs(values["reconstruction"] - golden["reconstruction"]).max()),
                "loss": float(np.abs(values["loss"] - golden["loss"])),
                "saved as loaded": float(
                    saved.keys() != original.keys() or any((saved[n] != original[n]).any() for n in saved)
                ),
            }
        )
    )


main(Path(sys.argv[1]))
