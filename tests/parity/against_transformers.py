"""Compare random models of the peer library with ours: pixel values, tokens, pooled features, reconstruction, loss.

    python tests/parity/against_transformers.py [--configs 30] [--seed 0]

Needs torch and transformers beside labelrank's own dependencies; pytest does not collect it. Each row is one model of
random sizes and random non-zero weights, written by the peer and read by us, and what we write read back by the peer.
Our side runs on the Keras backend in KERAS_BACKEND, by default torch. Prints a table; exits 1 where two numbers differ
by more than 1e-4.

With --write-golden, writes tests/data/golden/{vit,vit_mae}/interpolated.npz from the checkpoints beside them instead.
"""
# ruff: noqa: E402 (Keras reads its backend when it is imported)

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import keras
from keras import ops

from labelrank.models.checkpoint import open_checkpoint
from labelrank.models.config import ACTIVATIONS
from labelrank.models.convert import load_tensors, save_tensors
from labelrank.models.families import write_config
from labelrank.models.mae import MaskedAutoencoder, tubelet_loss
from labelrank.models.runtime import build_encoder, compile_encoder

TOLERANCE = 1e-4
CLASSES = (
    "ViTMAEForPreTraining",
    "VideoMAEForPreTraining",
    "ViTForImageClassification",
    "VideoMAEForVideoClassification",
    "ViTMAEModel",
    "VideoMAEModel",
    "ViTModel",
)
COLUMNS = ("pixels", "tokens", "pooled", "recon", "loss", "resized", "back")


@dataclass
class Case:
    """One random model and what was compared of it."""

    class_name: str
    config: transformers.PretrainedConfig
    dtype: torch.dtype
    is_sharded: bool
    is_fused: bool
    differences: dict[str, float] = field(default_factory=dict)

    def __str__(self):
        c = self.config
        marks = [f"{v}" for v in (_by(c.image_size), f"p{_by(c.patch_size)}")]
        if c.model_type == "videomae":
            marks += [f"{c.num_frames}f/{c.tubelet_size}", "mean" if c.use_mean_pooling else "norm"]
        marks += [f"{c.hidden_size}d", f"{c.num_hidden_layers}x{c.num_attention_heads}h", c.hidden_act]
        marks += [f"eps {c.layer_norm_eps:g}"]
        marks += [] if getattr(c, "qkv_bias", True) and getattr(c, "qv_bias", True) else ["no bias"]
        marks += ["norm_pix"] if self.class_name.endswith("ForPreTraining") and c.norm_pix_loss else []
        marks += [str(self.dtype).removeprefix("torch.")] if self.dtype != torch.float32 else []
        marks += ["sharded"] * self.is_sharded + ["fused"] * self.is_fused
        return " ".join(marks)


def _by(size):
    return str(size) if isinstance(size, int) else "x".join(map(str, size))


def draw_case(rng, class_name):
    is_video, is_pretraining = class_name.startswith("VideoMAE"), class_name.endswith("ForPreTraining")
    heads = int(rng.integers(1, 4))
    # The peer's own reconstruction takes square patches, and ViT-MAE's square images.
    patch = (int(rng.integers(2, 9)), int(rng.integers(2, 9)))
    if is_pretraining or rng.random() < 0.6:
        patch = (patch[0], patch[0])
    # The peer lays a square position table over ViT-MAE's patches, so their number has to be a square.
    grids = [(2, 2), (3, 3), (4, 4), (5, 5), (1, 4), (2, 8), (9, 1), (4, 1)]
    grid = grids[rng.integers(4 if class_name == "ViTMAEForPreTraining" else len(grids))]
    if not class_name.startswith("ViTMAE") and rng.random() < 0.5:
        grid = (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
    image = (grid[0] * patch[0], grid[1] * patch[1])
    # Its table over rows and columns needs four channels at a time.
    step = 4 if class_name.startswith("ViTMAE") else 1
    values = {
        "image_size": image[0] if image[0] == image[1] else list(image),
        "patch_size": patch[0] if patch[0] == patch[1] else list(patch),
        "hidden_size": step * heads * int(rng.integers(2, 28 // step)),
        "intermediate_size": int(rng.integers(5, 70)),
        "num_hidden_layers": int(rng.integers(1, 4)),
        "num_attention_heads": heads,
        "hidden_act": str(rng.choice(list(ACTIVATIONS))),
        "layer_norm_eps": float(rng.choice([1e-12, 1e-6, 1e-3])),
        "qv_bias" if is_video else "qkv_bias": bool(rng.random() < 0.75),
    }
    if is_video:
        tubelet = int(rng.integers(1, 4))
        values |= {"tubelet_size": tubelet, "num_frames": tubelet * int(rng.integers(1, 5))}
        values |= {"use_mean_pooling": bool(rng.random() < 0.5)}
    if is_pretraining:
        decoder_heads = int(rng.integers(1, 4))
        values |= {
            "decoder_hidden_size": step * decoder_heads * int(rng.integers(2, 20 // step)),
            "decoder_intermediate_size": int(rng.integers(5, 50)),
            "decoder_num_hidden_layers": int(rng.integers(1, 3)),
            "decoder_num_attention_heads": decoder_heads,
            "norm_pix_loss": bool(rng.random() < 0.5),
        }
        values |= {} if is_video else {"mask_ratio": float(rng.choice([0.5, 0.75, 0.6]))}
    family = "VideoMAE" if is_video else "ViTMAE" if class_name.startswith("ViTMAE") else "ViT"
    return Case(
        class_name,
        getattr(transformers, f"{family}Config")(**values),
        [torch.float32, torch.float32, torch.float16, torch.bfloat16][rng.integers(4)],
        is_sharded=bool(rng.random() < 0.3),
        is_fused=bool(rng.random() < 0.3),
    )


def draw_processor(rng, config):
    """Return the peer's processor of random settings that makes images of the model's size."""
    height, width = (config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size
    values = {
        "resample": int(rng.integers(0, 6)),
        "image_mean": [float(v) for v in rng.uniform(0.2, 0.8, 3)],
        "image_std": [float(v) for v in rng.uniform(0.2, 0.8, 3)],
        "do_normalize": bool(rng.random() < 0.9),
    }
    crop = {"height": height, "width": width}
    if config.model_type == "videomae":
        shortest = max(height, width) + int(rng.integers(-2, 9))
        return VideoMAEImageProcessorPil(size={"shortest_edge": max(shortest, 1)}, crop_size=crop, **values)
    if rng.random() < 0.5:
        return ViTImageProcessorPil(size=crop, **values)
    larger = {"height": height + int(rng.integers(0, 9)), "width": width + int(rng.integers(0, 9))}
    return ViTImageProcessorPil(size=larger, do_center_crop=True, crop_size=crop, **values)


def draw_weights(rng, model):
    """Fill every weight and bias with random numbers, none of them zero, of a size that keeps activations moderate."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 1 / np.sqrt(parameter[0].numel()) if parameter.ndim > 1 else 0.3
            values = torch.from_numpy(rng.normal(scale=scale, size=tuple(parameter.shape)).astype(np.float32))
            parameter.copy_(values + 1 if "norm" in name and name.endswith("weight") else values)


def fuse(folder):
    """Rewrite a checkpoint's query, key and value as one tensor, as timm and the original VideoMAE name them."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name in [n for n in tensors if n.endswith("attention.attention.query.weight")]:
        attention = name.removesuffix("query.weight")
        parts = ("query", "key", "value")
        tensors[f"{attention}qkv.weight"] = np.concatenate([tensors.pop(f"{attention}{p}.weight") for p in parts])
        if f"{attention}key.bias" in tensors:
            tensors[f"{attention}qkv.bias"] = np.concatenate([tensors.pop(f"{attention}{p}.bias") for p in parts])
    save_file(tensors, path)


def difference(ours, theirs):
    """Return the largest absolute difference; shapes that differ are an infinite one."""
    ours, theirs = (v.detach().numpy() if isinstance(v, torch.Tensor) else np.asarray(v) for v in (ours, theirs))
    return float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else float("inf")


def numpy(value):
    return np.asarray(ops.convert_to_numpy(value))


def tensor(value):
    return ops.convert_to_tensor(value)


def channels_last(pixels):
    return np.ascontiguousarray(np.moveaxis(pixels.numpy(), -3, -1))


@torch.no_grad()
def all_tokens(model, pixels, **options):
    """Return the peer's encoder output with nothing masked and the order kept."""
    base = getattr(model, model.base_model_prefix, model)
    if isinstance(base, transformers.ViTMAEModel):
        mask_ratio, base.config.mask_ratio = base.config.mask_ratio, 0.0
        count = (pixels.shape[-2] // _side(base.config.patch_size, 0)) * (
            pixels.shape[-1] // _side(base.config.patch_size, 1)
        )
        options["noise"] = torch.arange(count, dtype=torch.float32).repeat(len(pixels), 1)
        tokens = base(pixels, **options).last_hidden_state
        base.config.mask_ratio = mask_ratio
        return tokens
    return base(pixels, **options).last_hidden_state


def _side(size, axis):
    return size if isinstance(size, int) else size[axis]


def compare(rng, case, folder):
    """Fill in the differences of one case."""
    cls = getattr(transformers, case.class_name)
    model = cls(case.config)
    draw_weights(rng, model)
    model.to(case.dtype).save_pretrained(folder, max_shard_size="20KB" if case.is_sharded else "1GB")
    case.is_sharded = (folder / "model.safetensors.index.json").exists()
    draw_processor(rng, case.config).save_pretrained(folder)
    model = cls.from_pretrained(folder, dtype=torch.float32).eval()
    case.is_fused = case.is_fused and not case.is_sharded
    if case.is_fused:
        fuse(folder)

    checkpoint = open_checkpoint(str(folder))
    config = checkpoint.config
    pixels = compare_pixels(rng, case, folder, checkpoint)
    images = channels_last(pixels)

    encoder = compile_encoder(checkpoint, batch_size=len(images), precision="float32")
    tokens, theirs = encoder(images), all_tokens(model, pixels)
    case.differences["tokens"] = difference(tokens, theirs)
    case.differences["pooled"] = compare_pooled(model, encoder, config, pixels, tokens, theirs)
    if config.position_embedding == "sinusoid" or (
        isinstance(case.config.patch_size, int) and config.image_size[0] == config.image_size[1]
    ):
        case.differences["resized"] = compare_resized(rng, case, model, checkpoint)

    if config.decoder is None:
        tensors = save_tensors(build_encoder(checkpoint))
        case.differences["back"] = compare_back(
            case, folder, tensors, None, lambda peer: all_tokens(peer, pixels), theirs
        )
        return
    ours = MaskedAutoencoder(config)
    ours.build()
    load_tensors(checkpoint.tensors(), ours.encoder, ours.decoder, source=case.class_name)
    run = compare_clips if config.media == "clip" else compare_images
    again = run(rng, case, model, ours, pixels)
    tensors = save_tensors(ours.encoder, ours.decoder)
    case.differences["back"] = compare_back(case, folder, tensors, write_config(config), again, again(model))


def compare_pixels(rng, case, folder, checkpoint):
    """Compare the processors on images of odd sizes; return the peer's values (B, [T,] C, H, W)."""
    processor = type(draw_processor(rng, case.config)).from_pretrained(folder)
    count, frames = 2, getattr(case.config, "num_frames", 1)
    pixels, worst = [], 0.0
    for _ in range(count):
        height, width = rng.integers(5, 80, 2)
        clip = rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
        is_video = case.config.model_type == "videomae"
        theirs = processor(list(clip) if is_video else clip[0], return_tensors="pt", input_data_format="channels_last")
        pixels.append(theirs["pixel_values"].to(torch.float32))
        ours = checkpoint.preprocessing()(clip if is_video else clip[0])
        worst = max(worst, difference(ours, channels_last(pixels[-1])[0]))
    case.differences["pixels"] = worst
    return torch.cat(pixels)


@torch.no_grad()
def compare_pooled(model, encoder, config, pixels, tokens, theirs):
    """Compare the mean and CLS of the tokens, and the head's norm with what the peer gives its classifier."""
    start = config.num_prefix
    differences = [difference(tokens[:, start:].mean(axis=1), theirs[:, start:].mean(dim=1))]
    if encoder.num_prefix:
        differences.append(difference(tokens[:, 0], theirs[:, 0]))
    head_norm = getattr(model, "fc_norm", None)
    assert (head_norm is None) == (encoder.fc_norm is None)
    if head_norm is not None:
        seen = []
        model.classifier.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
        model(pixels)
        differences.append(difference(encoder.fc_norm(tokens.mean(axis=1)), seen[0]))
    return max(differences)


@torch.no_grad()
def compare_resized(rng, case, model, checkpoint):
    """Compare another image size: the peer's interpolation, or for VideoMAE its bicubic resize of our table."""
    config = checkpoint.config
    size = tuple(int(rng.integers(1, 8)) * p for p in config.patch_size)
    shape = (2, *([config.num_frames] if config.num_frames else []), *size, 3)
    images = rng.normal(size=shape).astype(np.float32)
    pixels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, -3)))
    ours = compile_encoder(checkpoint, batch_size=2, precision="float32", image_size=size)(images)
    if config.media == "image":
        return difference(ours, all_tokens(model, pixels, interpolate_pos_encoding=True))
    values = {**case.config.to_dict(), "image_size": list(size)}
    peer = transformers.VideoMAEModel(transformers.VideoMAEConfig(**values)).eval()
    base = getattr(model, "videomae", model)
    peer.load_state_dict(base.state_dict())
    dim = case.config.hidden_size
    table = base.embeddings.position_embeddings.reshape(config.num_slices, *config.grid_size, dim)
    table = torch.nn.functional.interpolate(
        table.permute(0, 3, 1, 2),
        size=tuple(n // p for n, p in zip(size, config.patch_size, strict=True)),
        mode="bicubic",
        align_corners=False,
    )
    peer.embeddings.position_embeddings = table.permute(0, 2, 3, 1).reshape(1, -1, dim)
    return difference(ours, all_tokens(peer, pixels))


def compare_images(rng, case, model, ours, pixels):
    """Compare ViT-MAE's reconstruction and loss; return a function that gives the peer's reconstruction."""
    noise = rng.permuted(np.linspace(0, 1, len(pixels) * ours.config.num_patches)).astype(np.float32)
    noise = noise.reshape(len(pixels), -1)
    with torch.no_grad():
        theirs = model(pixels, noise=torch.from_numpy(noise))
    output = ours({"images": tensor(channels_last(pixels)), "noise": tensor(noise)})
    assert (numpy(output["mask"]) == theirs.mask.numpy()).all()
    case.differences["recon"] = difference(numpy(output["reconstruction"]), theirs.logits)
    case.differences["loss"] = difference(numpy(output["loss"]), theirs.loss)
    return lambda peer: peer(pixels, noise=torch.from_numpy(noise)).logits


def compare_clips(rng, case, model, ours, pixels):
    """Compare VideoMAE's reconstruction and loss for a mask of each clip's own; return as `compare_images` does."""
    config = ours.config
    count = int(rng.integers(1, config.num_patches)) if config.num_patches > 1 else 1
    order = np.argsort(rng.random((len(pixels), config.num_patches)), axis=1)
    hidden, visible = np.sort(order[:, :count]), np.sort(order[:, count:])
    mask = torch.zeros(len(pixels), config.num_patches, dtype=torch.bool)
    mask[np.arange(len(pixels))[:, None], hidden] = True
    with torch.no_grad():
        theirs = model(pixels, bool_masked_pos=mask)
    images = tensor(channels_last(pixels))
    hidden, visible = tensor(hidden), tensor(visible)
    reconstruction = ours.decoder(ours.encoder(images, visible), visible, hidden)
    case.differences["recon"] = difference(numpy(reconstruction), theirs.logits)
    case.differences["loss"] = difference(numpy(tubelet_loss(images, reconstruction, hidden, config)), theirs.loss)
    return lambda peer: peer(pixels, bool_masked_pos=mask).logits


def compare_back(case, folder, tensors, config, run, theirs):
    """Return the difference of a model that the peer loads from our files; infinite with a tensor too many or few."""
    written = folder / "written"
    written.mkdir()
    config = config or json.loads((folder / "config.json").read_text())
    (written / "config.json").write_text(json.dumps(config))
    save_file(tensors, written / "model.safetensors", metadata={"format": "pt"})
    options = {}
    cls = getattr(transformers, case.class_name)
    if not case.class_name.endswith("ForPreTraining"):
        # Without a decoder we write the encoder alone.
        cls = {"vit": transformers.ViTModel, "vit_mae": transformers.ViTMAEModel}.get(
            case.config.model_type, transformers.VideoMAEModel
        )
        options = {"add_pooling_layer": False} if case.config.model_type == "vit" else {}
    model, report = cls.from_pretrained(written, output_loading_info=True, dtype=torch.float32, **options)
    if report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"]:
        return float("inf")
    with torch.no_grad():
        return difference(run(model.eval()), theirs)


def write_golden():
    """Write the peer's tokens at another image size, for the checkpoints of our test suite."""
    for name, cls in (("vit", transformers.ViTModel), ("vit_mae", transformers.ViTMAEModel)):
        folder = ROOT / "tests" / "data" / "golden" / name
        model = cls.from_pretrained(folder).eval()
        images = np.random.default_rng(0).normal(size=(2, 40, 24, 3)).astype(np.float32)
        pixels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, -3)))
        tokens = all_tokens(model, pixels, interpolate_pos_encoding=True).numpy()
        np.savez(folder / "interpolated.npz", images=images, tokens=tokens)
        print(folder / "interpolated.npz", tokens.shape)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write-golden", action="store_true")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if arguments.write_golden:
        return write_golden()
    print(
        f"transformers {transformers.__version__}, torch {torch.__version__}; keras {keras.__version__} on "
        f"{keras.backend.backend()}; seed {arguments.seed}; largest absolute differences, limit {TOLERANCE:g}\n"
    )
    print(f"{'class':31}" + "".join(f"{name:>9}" for name in COLUMNS) + "  model")
    worst = dict.fromkeys(COLUMNS, 0.0)
    for i in range(arguments.configs):
        rng = np.random.default_rng([arguments.seed, i])
        case = draw_case(rng, CLASSES[i % len(CLASSES)])
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "model"
            folder.mkdir()
            try:
                compare(rng, case, folder)
            except Exception:
                print(f"{case.class_name}: {case} (configuration {i})", file=sys.stderr)
                raise
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        cells = [f"{case.differences[c]:9.1e}" if c in case.differences else f"{'-':>9}" for c in COLUMNS]
        print(f"{case.class_name:31}{''.join(cells)}  {case}", flush=True)
        for column, value in case.differences.items():
            # Written so that NaN counts as wrong.
            worst[column] = value if not value <= worst[column] else worst[column]
        keras.utils.clear_session()
    print(f"{'worst':31}" + "".join(f"{worst[c]:9.1e}" for c in COLUMNS))
    failed = [c for c in COLUMNS if not worst[c] <= TOLERANCE]
    print(f"FAILED: {', '.join(failed)} differ by more than {TOLERANCE:g}" if failed else "All agree.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
