"""Compare random encoders of every family with transformers: tokens, pooled features, other image sizes, our files.

    python tests/parity/encoders_against_transformers.py [--rounds 3] [--seed 0] [--families dinov2 beit]

Needs torch and transformers beside labelrank's own dependencies; pytest does not collect it. Each row is one model of
random sizes and random weights, written by the peer and read by us, and what we write read back by the peer. Our side
runs on the Keras backend in KERAS_BACKEND, by default torch. Prints a table; exits 1 where two numbers differ by more
than 1e-4. `against_transformers.py` compares preprocessing, decoders and losses of the masked autoencoders.

With --write-golden, writes tests/data/golden/encoders/FAMILY instead.
"""
# ruff: noqa: E402 (Keras reads its backend when it is imported)

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import torch
import transformers as peer
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import keras

from labelrank.models.checkpoint import open_checkpoint
from labelrank.models.convert import save_tensors
from labelrank.models.pooling import pool_tokens
from labelrank.models.runtime import build_encoder, compile_encoder

TOLERANCE = 1e-4
COLUMNS = ("tokens", "mean", "cls", "fc_norm", "resized", "back")
GOLDEN = ROOT / "tests" / "data" / "golden" / "encoders"


def sizes(rng, *, head_step=1):
    """Return the values that the configs of all families have."""
    heads = int(rng.integers(1, 4))
    return {
        "hidden_size": heads * head_step * int(rng.integers(2, 24 // head_step)),
        "num_hidden_layers": int(rng.integers(1, 4)),
        "num_attention_heads": heads,
        "hidden_act": str(rng.choice(["gelu", "quick_gelu", "gelu_pytorch_tanh", "silu"])),
        "layer_norm_eps": float(rng.choice([1e-12, 1e-6, 1e-3])),
    }


def square(rng):
    """Return the sides of a square image and of its patches."""
    patch = int(rng.integers(2, 9))
    return {"image_size": patch * int(rng.integers(1, 6)), "patch_size": patch}


def oblong(rng):
    """Return the sides of an image that need not be square."""
    patch = (int(rng.integers(2, 9)), int(rng.integers(2, 9)))
    grid = (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
    return {"image_size": [p * n for p, n in zip(patch, grid, strict=True)], "patch_size": list(patch)}


def mlp(rng):
    return {"intermediate_size": int(rng.integers(5, 70))}


def qkv(rng):
    return {"qkv_bias": bool(rng.random() < 0.7)}


def plain(rng, image=oblong):
    return {**sizes(rng), **mlp(rng), **qkv(rng), **image(rng)}


def dinov2(rng, **more):
    values = {**sizes(rng), **qkv(rng), **square(rng), "mlp_ratio": int(rng.integers(1, 5)), **more}
    return {**values, "use_swiglu_ffn": bool(rng.random() < 0.5)}


def registers(rng):
    return dinov2(rng, num_register_tokens=int(rng.integers(0, 5)))


def tower(rng):
    return {**sizes(rng), **mlp(rng), **square(rng)}


def siglip(rng):
    """Some with pixels that fill no patch."""
    values = tower(rng)
    return {**values, "image_size": values["image_size"] + int(rng.integers(0, values["patch_size"]))}


def dinov3(rng):
    values = {**sizes(rng, head_step=4), **mlp(rng), **oblong(rng), "num_register_tokens": int(rng.integers(0, 5))}
    return {**values, "use_gated_mlp": bool(rng.random() < 0.5), "key_bias": bool(rng.random() < 0.5)}


def beit(rng):
    shared, own = [(False, False), (True, False), (False, True)][rng.integers(3)]
    return {
        **sizes(rng),
        **mlp(rng),
        **square(rng),
        "use_absolute_position_embeddings": bool(rng.random() < 0.5),
        "use_shared_relative_position_bias": shared,
        "use_relative_position_bias": own,
        "layer_scale_init_value": float(rng.choice([0.0, 0.1])),
        "use_mean_pooling": bool(rng.random() < 0.7),
        "use_mask_token": bool(rng.random() < 0.5),
    }


def vjepa2(rng):
    values, image, tubelet = sizes(rng), square(rng), int(rng.integers(1, 4))
    values |= {"crop_size": image["image_size"], "patch_size": image["patch_size"], "tubelet_size": tubelet}
    values |= {"frames_per_clip": tubelet * int(rng.integers(1, 5)), "mlp_ratio": float(rng.choice([2, 4, 2.5]))}
    small = {"pred_hidden_size": 12, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
    return {**values, **qkv(rng), **small, "num_pooler_layers": 1}


TEXT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9}
# The class that writes a file -> the class of its configuration, and what draws one.
CLASSES = {
    "Dinov2Model": ("Dinov2Config", dinov2),
    "Dinov2ForImageClassification": ("Dinov2Config", dinov2),
    "Dinov2WithRegistersModel": ("Dinov2WithRegistersConfig", registers),
    "Dinov2WithRegistersForImageClassification": ("Dinov2WithRegistersConfig", registers),
    "DeiTModel": ("DeiTConfig", plain),
    "DeiTForImageClassificationWithTeacher": ("DeiTConfig", plain),
    "ViTMSNModel": ("ViTMSNConfig", plain),
    "ViTMSNForImageClassification": ("ViTMSNConfig", plain),
    "CLIPVisionModel": ("CLIPVisionConfig", tower),
    "CLIPVisionModelWithProjection": ("CLIPVisionConfig", tower),
    "CLIPModel": ("CLIPConfig", tower),
    "CLIPForImageClassification": ("CLIPConfig", tower),
    "SiglipVisionModel": ("SiglipVisionConfig", siglip),
    "SiglipModel": ("SiglipConfig", siglip),
    "SiglipForImageClassification": ("SiglipConfig", siglip),
    "IJepaModel": ("IJepaConfig", plain),
    "IJepaForImageClassification": ("IJepaConfig", plain),
    "DINOv3ViTModel": ("DINOv3ViTConfig", dinov3),
    "BeitModel": ("BeitConfig", beit),
    "BeitForMaskedImageModeling": ("BeitConfig", beit),
    "BeitForImageClassification": ("BeitConfig", beit),
    "Data2VecVisionModel": ("Data2VecVisionConfig", beit),
    "Data2VecVisionForImageClassification": ("Data2VecVisionConfig", beit),
    "VJEPA2Model": ("VJEPA2Config", vjepa2),
    "VJEPA2ForVideoClassification": ("VJEPA2Config", vjepa2),
}
# Their own position tables, of any size without being asked.
ANY_SIZE = ("Dinov2", "DINOv3", "Beit", "Data2Vec", "VJEPA2")


def make(rng, class_name):
    """Return a model of the peer with random sizes and weights, and its vision configuration."""
    config_name, draw = CLASSES[class_name]
    values = draw(rng)
    if config_name in ("CLIPConfig", "SiglipConfig"):
        config = getattr(peer, config_name)(vision_config=values, text_config=TEXT)
    else:
        config = getattr(peer, config_name)(**values)
    model = getattr(peer, class_name)(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            scale = 1 / np.sqrt(weight[0].numel()) if weight.ndim > 1 and len(weight) else 0.3
            drawn = torch.from_numpy(rng.normal(scale=scale, size=tuple(weight.shape)).astype(np.float32))
            weight.copy_(drawn + 1 if "norm" in name and name.endswith("weight") else drawn)
    return model.eval(), getattr(config, "vision_config", config)


@torch.no_grad()
def run(model, class_name, images, *, resized=False):
    """Return the peer's tokens and its pooled vector (None without one)."""
    pixels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, -3)))
    if class_name.startswith("VJEPA2"):
        base = getattr(model, "vjepa2", model)
        return base(pixels, skip_predictor=True).last_hidden_state.numpy(), None
    if class_name.startswith(("CLIP", "Siglip")):
        base = getattr(model, "vision_model", model)
    else:
        base = model if class_name.endswith("Model") else getattr(model, model.base_model_prefix)
    options = {"interpolate_pos_encoding": True} if resized and not class_name.startswith(ANY_SIZE) else {}
    result = base(pixels, **options)
    pooled = getattr(result, "pooler_output", None)
    return result.last_hidden_state.numpy(), None if pooled is None else pooled.numpy()


def difference(ours, theirs):
    """Return the largest absolute difference; shapes that differ are an infinite one."""
    return float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else float("inf")


def other_size(rng, class_name, config):
    """Return another height and width; None where the peer cannot take one."""
    if class_name.startswith("VJEPA2"):
        return None
    patch = config.patch_size if isinstance(config.patch_size, list | tuple) else (config.patch_size,) * 2
    trained = config.image_size if isinstance(config.image_size, list | tuple) else (config.image_size,) * 2
    # The peer takes every position table for that of a square image, and asks most patches to be square.
    has_table = not class_name.startswith("DINOv3")
    if has_table and (trained[0] // patch[0] != trained[1] // patch[1] or patch[0] != patch[1]):
        return None
    return tuple(int(rng.integers(1, 9)) * p for p in patch)


def save(folder, model, config, images):
    model.save_pretrained(folder)
    height, width = images.shape[-3:-1]
    ViTImageProcessorPil(size={"height": height, "width": width}).save_pretrained(folder)


def compare(rng, class_name, folder):
    """Return the differences of one random model, and its configuration in words."""
    model, config = make(rng, class_name)
    side = getattr(config, "crop_size", None) or config.image_size
    side = tuple(side) if isinstance(side, list | tuple) else (side, side)
    frames = (config.frames_per_clip,) if class_name.startswith("VJEPA2") else ()
    images = rng.normal(size=(2, *frames, *side, 3)).astype(np.float32)
    save(folder, model, config, images)
    checkpoint = open_checkpoint(str(folder))
    encoder = compile_encoder(checkpoint, batch_size=2, precision="float32")
    ours = encoder(images)
    theirs, pooled = run(model, class_name, images)
    prefix = ours.shape[1] - checkpoint.config.num_patches
    found = {"tokens": difference(ours, theirs)}

    def pool(pooling):
        norm = {"fc_norm": encoder.fc_norm, "fc_norm_pools": encoder.fc_norm_pools}
        return pool_tokens(ours, pooling, num_prefix=encoder.num_prefix, **norm)

    found["mean"] = difference(pool("mean"), theirs[:, prefix:].mean(axis=1))
    if encoder.num_prefix:
        found["cls"] = difference(pool("cls"), theirs[:, 0])
    if encoder.fc_norm:
        found["fc_norm"] = difference(pool("fc_norm"), pooled)
    if size := other_size(rng, class_name, config):
        images = rng.normal(size=(2, *size, 3)).astype(np.float32)
        ours = compile_encoder(checkpoint, batch_size=2, precision="float32", image_size=size)(images)
        found["resized"] = difference(ours, run(model, class_name, images, resized=True)[0])
    found["back"] = compare_back(checkpoint)
    marks = [f"{k} {v}" for k, v in sorted(config.to_diff_dict().items()) if k in MARKS]
    return found, ", ".join(marks)


MARKS = (
    *("hidden_size", "num_attention_heads", "image_size", "crop_size", "patch_size", "num_register_tokens"),
    *("use_swiglu_ffn", "use_gated_mlp", "use_relative_position_bias", "use_shared_relative_position_bias"),
)


def compare_back(checkpoint):
    """Return the largest difference between the tensors that we write and those of the file, whatever its prefix."""
    read, worst = checkpoint.tensors(), 0.0
    for name, value in save_tensors(build_encoder(checkpoint)).items():
        spelt = [n for n in read if n == name or name.endswith(f".{n}") or n.endswith(f".{name}")]
        worst = max(worst, min((difference(value, read[n]) for n in spelt), default=float("inf")))
    return worst


TINY = {
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "layer_norm_eps": 1e-6,
    "image_size": 12,
    "patch_size": 4,
}
SMALL_MLP = {"intermediate_size": 10}
# Name of the folder -> class, its values, and another size (None: it does not differ from those before).
GOLDENS = {
    "dinov2": ("Dinov2ForImageClassification", {"mlp_ratio": 2}, (8, 20)),
    "dinov2_giant": ("Dinov2Model", {"mlp_ratio": 2, "use_swiglu_ffn": True}, None),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", {"mlp_ratio": 2, "num_register_tokens": 2}, (8, 20)),
    "deit": ("DeiTForImageClassificationWithTeacher", SMALL_MLP, None),
    "vit_msn": ("ViTMSNForImageClassification", SMALL_MLP, None),
    "clip": ("CLIPModel", SMALL_MLP, (8, 20)),
    "siglip": ("SiglipVisionModel", {**SMALL_MLP, "image_size": 14}, None),
    "ijepa": ("IJepaModel", {**SMALL_MLP, "image_size": [12, 8], "patch_size": [4, 2]}, None),
    "dinov3_vit": ("DINOv3ViTModel", {**SMALL_MLP, "num_register_tokens": 2, "use_gated_mlp": True}, (8, 20)),
    "beit": ("BeitForImageClassification", {**SMALL_MLP, "use_relative_position_bias": True}, (8, 20)),
    "data2vec-vision": (
        "Data2VecVisionForImageClassification",
        {**SMALL_MLP, "use_shared_relative_position_bias": True},
        None,
    ),
    "vjepa2": ("VJEPA2Model", {"hidden_size": 24, "mlp_ratio": 1, "crop_size": 12, "frames_per_clip": 4}, None),
}


def write_golden():
    """Write a tiny checkpoint of each family with the peer's numbers, for our test suite."""
    for name, (class_name, values, other) in GOLDENS.items():
        rng = np.random.default_rng(list(GOLDENS).index(name))
        values = {**TINY, **values}
        if name == "vjepa2":
            values |= {"pred_hidden_size": 6, "pred_num_attention_heads": 1, "pred_num_hidden_layers": 1}
        CLASSES[class_name] = (CLASSES[class_name][0], lambda rng, values=values: values)
        model, config = make(rng, class_name)
        side = values.get("crop_size") or values["image_size"]
        frames = (values["frames_per_clip"],) if name == "vjepa2" else ()
        images = rng.normal(size=(2, *frames, *(side if isinstance(side, list) else (side, side)), 3))
        images = images.astype(np.float32)
        folder = GOLDEN / name
        save(folder, model, config, images)
        tokens, pooled = run(model, class_name, images)
        prefix = {"deit": 2, "ijepa": 0, "siglip": 0, "vjepa2": 0}.get(name, 1 + values.get("num_register_tokens", 0))
        found = {"pixel_values": np.moveaxis(images, -1, -3), "tokens": tokens, "mean": tokens[:, prefix:].mean(axis=1)}
        if prefix:
            found["cls"] = tokens[:, 0]
        if name in ("clip", "beit", "data2vec-vision"):
            found["fc_norm"] = pooled
        np.savez_compressed(folder / "golden.npz", **found)
        if other:
            images = rng.normal(size=(2, *other, 3)).astype(np.float32)
            tokens = run(model, class_name, images, resized=True)[0]
            np.savez_compressed(folder / "interpolated.npz", images=images, tokens=tokens)
        print(folder, tokens.shape)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--families", nargs="*", help="Starts of names of classes; by default all.")
    parser.add_argument("--write-golden", action="store_true")
    arguments = parser.parse_args()
    peer.logging.set_verbosity_error()
    peer.logging.disable_progress_bar()
    if arguments.write_golden:
        return write_golden()
    names = [n for n in CLASSES if not arguments.families or n.startswith(tuple(arguments.families))]
    print(f"transformers {peer.__version__}, keras {keras.__version__} on {keras.backend.backend()}\n")
    print(f"{'class':43}" + "".join(f"{name:>9}" for name in COLUMNS))
    failed = False
    for i in range(arguments.rounds):
        for name in names:
            rng = np.random.default_rng([arguments.seed, i, list(CLASSES).index(name)])
            with tempfile.TemporaryDirectory() as folder:
                found, marks = compare(rng, name, Path(folder) / "model")
            cells = [f"{found[c]:9.1e}" if c in found else f"{'-':>9}" for c in COLUMNS]
            print(f"{name:43}{''.join(cells)}  {marks}", flush=True)
            # Written so that NaN counts as wrong.
            failed |= not all(value <= TOLERANCE for value in found.values())
            keras.utils.clear_session()
    print("FAILED" if failed else "All agree.")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
