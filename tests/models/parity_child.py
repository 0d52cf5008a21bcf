"""Run on one Keras backend (KERAS_BACKEND): print the largest differences to each folder's goldens as JSON."""

import json
import sys
from pathlib import Path

import numpy as np
from keras import ops

from labelrank.models.checkpoint import open_checkpoint
from labelrank.models.convert import load_tensors, save_tensors
from labelrank.models.mae import MaskedAutoencoder, tubelet_loss
from labelrank.models.runtime import build_encoder, compile_encoder


def main(folders: list[Path]) -> None:
    print(json.dumps({folder.name: differences(folder) for folder in folders}))


def of_some_patches(checkpoint, images) -> float:
    """Return how far the encoder that is compiled for some patches is from the one that leaves out the others."""
    count = checkpoint.config.num_patches
    visible = np.stack([np.random.default_rng(n).permutation(count)[: count // 3] for n in range(len(images))])
    some = compile_encoder(checkpoint, precision="float32", batch_size=len(images) + 1, keep=count // 3)
    wanted = build_encoder(checkpoint)(ops.convert_to_tensor(images), ops.convert_to_tensor(visible, "int32"))
    return float(np.abs(some(images, visible.astype(np.int32)) - ops.convert_to_numpy(wanted)).max())


def differences(folder: Path) -> dict[str, float]:
    golden = np.load(folder / "golden.npz")
    checkpoint = open_checkpoint(str(folder))
    config = checkpoint.config
    images = np.ascontiguousarray(np.moveaxis(golden["pixel_values"], -3, -1))

    def difference(ours, wanted) -> float:
        ours = ops.convert_to_numpy(ours)
        return float(np.abs(ours - wanted).max()) if ours.shape == wanted.shape else float("inf")

    # One more than there are: the last batch is padded.
    compiled = compile_encoder(checkpoint, precision="float32", batch_size=len(images) + 1)
    tokens = compiled(images)
    patches = tokens[:, compiled.num_prefix :]
    found = {"tokens": difference(tokens, golden["tokens"]), "mean": difference(patches.mean(axis=1), golden["mean"])}
    if compiled.num_prefix:
        found["cls"] = difference(tokens[:, 0], golden["cls"])
    if "fc_norm" in golden:
        pooled = tokens[:, 0] if compiled.fc_norm_pools == "cls" else patches.mean(axis=1)
        found["fc_norm"] = difference(compiled.fc_norm(pooled), golden["fc_norm"])
    if (path := folder / "interpolated.npz").exists():
        resized = np.load(path)
        size = resized["images"].shape[1:3]
        encoder = compile_encoder(checkpoint, precision="float32", batch_size=2, image_size=size)
        found["resized"] = difference(encoder(resized["images"]), resized["tokens"])

    if not (config.rotary or config.relative_bias):
        found["some patches"] = of_some_patches(checkpoint, images)

    tensors = checkpoint.tensors()
    if config.decoder is None:
        saved = save_tensors(build_encoder(checkpoint))
        compare = compare_encoders if folder.parent.name == "encoders" else compare_tensors
        return {**found, "saved as loaded": compare(saved, tensors)}
    model = MaskedAutoencoder(config)
    model.build()
    load_tensors(tensors, model.encoder, model.decoder, source=str(folder))
    found["saved as loaded"] = compare_tensors(save_tensors(model.encoder, model.decoder), tensors)
    inputs = ops.convert_to_tensor(images)
    if config.media == "clip":
        hidden, visible = (
            ops.convert_to_tensor(np.tile(np.flatnonzero(places), (len(images), 1)))
            for places in (golden["mask"], ~golden["mask"])
        )
        reconstruction = model.decoder(model.encoder(inputs, visible), visible, hidden)
        loss = tubelet_loss(inputs, reconstruction, hidden, config)
    else:
        output = model({"images": inputs, "noise": ops.convert_to_tensor(golden["noise"])})
        reconstruction, loss = output["reconstruction"], output["loss"]
        found["mask"] = difference(output["mask"], golden["mask"])
    found["reconstruction"] = difference(reconstruction, golden["reconstruction"])
    found["loss"] = difference(loss, golden["loss"])
    return found


def compare_tensors(saved, tensors) -> float:
    """Return 0 where we write the very tensors that were read, heads and the spelling of blocks aside."""
    heads = ("classifier.", "fc_norm.")
    original = {
        name.replace("decoder_encoder.layer.", "decoder_layers."): tensors[name]
        for name in tensors
        if not name.startswith(heads)
    }
    return float(saved.keys() != original.keys() or any((saved[n] != original[n]).any() for n in saved))


def compare_encoders(saved, tensors) -> float:
    """Return 0 where each tensor that we write is one that was read, whatever prefix the file has."""

    def same(name: str) -> bool:
        spelt = (n for n in tensors if n == name or name.endswith(f".{n}") or n.endswith(f".{name}"))
        return any(tensors[n].shape == saved[name].shape and (tensors[n] == saved[name]).all() for n in spelt)

    return float(not all(same(name) for name in saved))


main([Path(argument) for argument in sys.argv[1:]])
