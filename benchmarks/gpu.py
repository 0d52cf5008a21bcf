"""Encoders through labelrank's own compile function, against PyTorch with sdpa and the measured matmul roof.

    python benchmarks/gpu.py                                 ViT-B/16, ViT-L/16, VideoMAE-B at several batch sizes
    python benchmarks/gpu.py --quick                         ViT-B/16 at two
    KERAS_BACKEND=jax python benchmarks/gpu.py               on another Keras backend than the one it would choose
    python benchmarks/gpu.py --peer-python PEER/bin/python   PyTorch in an environment of its own; default: this one

Needs Keras with any backend, NumPy and safetensors; runs on a CPU too. Each side is a process of its own, one after
the other, so that none holds the other's device memory. Both get the same random weights and float32 inputs, and give
tokens in float32. "whole" is from an array in the computer's memory to tokens there; "model" leaves the copies out:
many batches through the model, none waited for but the last. On a CPU with OpenVINO there are no copies.
PyTorch: its bfloat16 (or float16) weights, scaled_dot_product_attention, inference mode; "compiled" is the same
through torch.compile. The roof is one large matrix product of the same precision in the same framework.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from common import parser_of, print_header

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from labelrank.models.backend import PRECISIONS, devices, resolve_precision
from labelrank.models.config import EncoderConfig, TransformerConfig
from labelrank.models.cost import encoder_flops
from labelrank.models.names import encoder_tensors
from labelrank.models.runtime import Steps, compile_encoder

BASE, LARGE = TransformerConfig(768, 3072, 12, 12), TransformerConfig(1024, 4096, 24, 16)
MODELS = {
    "ViT-B/16": EncoderConfig("vit_mae", BASE, (224, 224), (16, 16)),
    "ViT-L/16": EncoderConfig("vit_mae", LARGE, (224, 224), (16, 16)),
    "VideoMAE-B": EncoderConfig(
        "videomae",
        TransformerConfig(768, 3072, 12, 12, use_key_bias=False),
        (224, 224),
        (16, 16),
        num_frames=16,
        tubelet_size=2,
        use_cls_token=False,
        final_norm=False,
    ),
}
# Batch sizes by device and media.
BATCHES = {
    ("GPU", "image"): (8, 32, 128, 512),
    ("GPU", "clip"): (1, 4, 16, 64),
    ("CPU", "image"): (1, 8),
    ("CPU", "clip"): (1,),
}
LABELRANK, TORCH, COMPILED = "labelrank", "torch sdpa", "torch sdpa, compiled"


@dataclass(frozen=True)
class RandomCheckpoint:
    """An encoder's weights without a file, as `compile_encoder` asks for them."""

    config: EncoderConfig
    source: str = "random weights"
    digest: str = "random"

    def tensors(self) -> Mapping[str, np.ndarray]:
        random = np.random.default_rng(0)

        def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
            noise = random.standard_normal(shape, dtype=np.float32) * 0.02
            return noise + 1 if "layernorm" in name and name.endswith("weight") else noise

        return {tensor.name: value(tensor.name, tensor.shape) for tensor in encoder_tensors(self.config)}


# --- In the process of a side


def main_of_side(side: str, model: str, batches: list[int], precision: str) -> None:
    """Print one line of JSON for each batch size: rates, the time to the first result, and a summary of the tokens."""
    config = MODELS[model]
    for batch in batches:
        started = time.perf_counter()
        try:
            run = (_labelrank if side == LABELRANK else _torch)(config, batch, precision, side)
            images = np.random.default_rng(1).standard_normal((batch, *config.input_shape), dtype=np.float32)
            tokens = run(images)
        except (RuntimeError, MemoryError, *_out_of_memory()) as error:
            print(json.dumps({"batch": batch, "error": str(error).splitlines()[0][:200]}), flush=True)
            continue
        line = {
            "batch": batch,
            "start_s": time.perf_counter() - started,
            "whole": batch / _seconds(partial(run, images), lambda _: None),
            "tokens": tokens[0, ::16].astype(np.float64).mean(axis=0).tolist(),
        }
        if isinstance(run, Steps):
            line["model"] = batch / _seconds(partial(run.encode, run.put(images)), run.fetch)
        print(json.dumps(line), flush=True)


def _out_of_memory() -> Iterator[type[Exception]]:
    """Yield what the frameworks in this process raise when a batch does not fit, beside RuntimeError."""
    if "tensorflow" in sys.modules:
        yield sys.modules["tensorflow"].errors.ResourceExhaustedError


def _seconds(work: Callable[[], Any], wait: Callable[[Any], Any], *, least_s: float = 1.0) -> float:
    """Return the seconds of one call among many that are not waited for one by one.

    Waiting for the last result takes a while of its own (a copy), which is measured and taken off.
    """
    result = work()
    wait(result)
    started = time.perf_counter()
    wait(result)
    waiting_s = time.perf_counter() - started
    count = 2
    while True:
        started = time.perf_counter()
        for _ in range(count):
            result = work()
        wait(result)
        elapsed_s = time.perf_counter() - started - waiting_s
        if elapsed_s >= least_s:
            return elapsed_s / count
        count = max(2 * count, int(count * 1.2 * least_s / max(elapsed_s, 1e-3)))


def _labelrank(config: EncoderConfig, batch: int, precision: str, side: str) -> Callable[[np.ndarray], np.ndarray]:
    return compile_encoder(RandomCheckpoint(config), precision=precision, batch_size=batch).run  # type: ignore[arg-type]


def _torch(config: EncoderConfig, batch: int, precision: str, side: str) -> Steps:
    import torch

    if precision == "float32":
        torch.set_float32_matmul_precision("highest")
    dtype = getattr(torch, precision)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weights = {
        name: torch.from_numpy(np.ascontiguousarray(value)).to(device, dtype)
        for name, value in RandomCheckpoint(config).tensors().items()
    }
    encode = _torch_encoder(config, weights)
    encode = torch.compile(encode) if side == COMPILED else encode
    return Steps(
        lambda images: torch.from_numpy(images).to(device),
        torch.inference_mode()(lambda images: encode(images.to(dtype)).float()),
        lambda tokens: tokens.cpu().numpy(),
    )


def _torch_encoder(config: EncoderConfig, weights: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Return the encoder as PyTorch code writes it: one product for query, key and value, sdpa, a convolution."""
    import torch
    import torch.nn.functional as F

    size, prefix = config.transformer, "vit." if config.media == "image" else "videomae."
    dim = size.hidden_dim

    def affine(name: str) -> tuple[Any, Any]:
        return weights[f"{prefix}{name}.weight"], weights.get(f"{prefix}{name}.bias")

    def norm(x: Any, name: str) -> Any:
        return F.layer_norm(x, (dim,), *affine(name), eps=size.layer_norm_epsilon)

    fused = []
    for i in range(size.num_layers):
        attention = f"encoder.layer.{i}.attention.attention"
        matrices = [weights[f"{prefix}{attention}.{part}.weight"] for part in ("query", "key", "value")]
        none = torch.zeros_like(matrices[0][0])
        if size.use_key_bias:
            biases = [weights[f"{prefix}{attention}.{part}.bias"] for part in ("query", "key", "value")]
        else:
            biases = [weights[f"{prefix}{attention}.q_bias"], none, weights[f"{prefix}{attention}.v_bias"]]
        fused.append((torch.cat(matrices), torch.cat(biases)))
    kernel, bias = affine("embeddings.patch_embeddings.projection")
    if config.use_cls_token:
        positions, cls = (weights[f"{prefix}embeddings.{name}"] for name in ("position_embeddings", "cls_token"))
    else:
        channel, place = np.arange(dim), np.arange(config.num_patches)[:, None]
        angle = place / np.power(10000.0, 2 * (channel // 2) / dim)
        table = np.where(channel % 2, np.cos(angle), np.sin(angle))[None].astype(np.float32)
        positions, cls = torch.from_numpy(table).to(kernel), None

    def encode(images: Any) -> Any:
        if config.media == "image":
            x = F.conv2d(images.permute(0, 3, 1, 2), kernel, bias, stride=config.patch_size)
        else:
            stride = (config.tubelet_size, *config.patch_size)
            x = F.conv3d(images.permute(0, 4, 1, 2, 3), kernel, bias, stride=stride)
        x = x.flatten(2).transpose(1, 2)
        if cls is not None:
            x = torch.cat([cls.expand(len(x), -1, -1), x], dim=1)
        x = x + positions
        for i, (matrix, shift) in enumerate(fused):
            layer = f"encoder.layer.{i}"
            heads = F.linear(norm(x, f"{layer}.layernorm_before"), matrix, shift)
            query, key, value = heads.unflatten(-1, (3, size.num_heads, -1)).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
            x = x + F.linear(mixed, *affine(f"{layer}.attention.output.dense"))
            hidden = F.gelu(F.linear(norm(x, f"{layer}.layernorm_after"), *affine(f"{layer}.intermediate.dense")))
            x = x + F.linear(hidden, *affine(f"{layer}.output.dense"))
        return norm(x, "layernorm") if config.final_norm else x

    return encode


def main_of_roof(precision: str) -> None:
    """Print the FLOP/s of one large matrix product in the framework that Keras would use here."""
    from labelrank.models.backend import select_backend

    backend = select_backend()
    if backend == "openvino":
        from sides import Roof

        print(json.dumps({"flops": Roof(precision).gflops() * 1e9}))
        return
    from keras import ops

    size = 8192 if devices()[0].kind == "GPU" else 2048
    a = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(precision != "float32")
        multiply = tf.function(tf.matmul)
    elif backend == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "highest" if precision == "float32" else "default")
        multiply = jax.jit(jax.numpy.matmul)
    else:
        import torch

        multiply = torch.inference_mode()(torch.matmul)
    matrix = ops.cast(ops.convert_to_tensor(a), precision)
    seconds = _seconds(lambda: multiply(matrix, matrix), lambda product: ops.convert_to_numpy(product[:1, :1]))
    print(json.dumps({"flops": 2 * size**3 / seconds}))


# --- In the process that compares


def lines_of(python: str, *arguments: str) -> list[dict[str, Any]]:
    """Return the JSON lines that a process of its own prints; none where it fails, which its messages tell."""
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([python, __file__, *arguments], env=env, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        print(f"{' '.join(arguments)} ended with {done.returncode}.", file=sys.stderr)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def torch_version(python: str) -> str | None:
    """Return the version of an environment's torch; None where it has none."""
    program = "import torch; print(torch.__version__)"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    return None if done.returncode else done.stdout.strip()


def compare(models: list[str], batches: list[int] | None, precision: str, peer_python: str, *, quick: bool) -> None:
    """Run all sides and print the tables."""
    device = devices()[0]
    precision = resolve_precision(precision)
    roof = next((line["flops"] for line in lines_of(sys.executable, "--roof", "--precision", precision)), float("nan"))
    sides = [(LABELRANK, sys.executable)]
    if torch := torch_version(peer_python):
        sides += [(TORCH, peer_python), *([(COMPILED, peer_python)] if device.kind == "GPU" else [])]
    else:
        print(f"{peer_python} has no torch, so labelrank runs alone.\n")
    print(f"Matmul roof in {precision}: {roof / 1e12:.3g} TFLOP/s\n")
    print_header(
        "| model | batch | side | start s | whole /s | model /s | TFLOP/s | of the roof | ratio to torch | difference |"
    )
    for model in models:
        config = MODELS[model]
        wanted = batches or BATCHES[device.kind, config.media][: 2 if quick else None]
        found = {}
        for side, python in sides:
            arguments = ("--side", side, "--models", model, "--precision", precision)
            lines = lines_of(python, *arguments, "--batches", ",".join(map(str, wanted)))
            found[side] = {line["batch"]: line for line in lines}
        for batch in wanted:
            peer = found.get(TORCH, {}).get(batch)
            for side, _ in sides:
                if line := found[side].get(batch):
                    print(
                        f"| {model} | {batch} | {side} | {' | '.join(_cells(line, peer, config, roof))} |", flush=True
                    )
    print(
        f"\n{device.name}{f', {device.cores} cores' if device.cores else ''}; Python {platform.python_version()}",
        end="",
    )
    for package in ("keras", "openvino", "tensorflow", "jax", "numpy"):
        try:
            print(f", {package} {version(package)}", end="")
        except PackageNotFoundError:
            continue
    print(f", torch {torch}" if torch else "")


def _cells(line: dict[str, Any], peer: dict[str, Any] | None, config: EncoderConfig, roof: float) -> list[str]:
    if "error" in line:
        return [line["error"].replace("|", "/"), *[""] * 6]
    rate = line.get("model", line["whole"])
    flops = rate * encoder_flops(config)
    ratio = difference = ""
    if peer and "error" not in peer:
        ratio = f"{rate / peer['model']:.2f}"
        ours, theirs = np.array(line["tokens"]), np.array(peer["tokens"])
        difference = f"{np.linalg.norm(ours - theirs) / np.linalg.norm(theirs):.2%}"
    return [
        f"{line['start_s']:.1f}",
        f"{line['whole']:.4g}",
        f"{rate:.4g}",
        f"{flops / 1e12:.3g}",
        f"{flops / roof:.0%}",
        ratio,
        difference,
    ]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--models", default=",".join(MODELS), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--batches", help="numbers, such as 8,64; default: what suits the device")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)
    parser.add_argument("--peer-python", default=sys.executable, help="Python of an environment with torch")
    parser.add_argument("--quick", action="store_true", help="ViT-B/16 at two batch sizes")
    parser.add_argument("--side", choices=(LABELRANK, TORCH, COMPILED), help=argparse.SUPPRESS)
    parser.add_argument("--roof", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    models = options.models.split(",")
    if unknown := [name for name in models if name not in MODELS]:
        parser.error(f"unknown {', '.join(unknown)}; choose of {', '.join(MODELS)}")
    batches = [int(word) for word in options.batches.split(",")] if options.batches else None
    if options.roof:
        main_of_roof(options.precision)
    elif options.side:
        main_of_side(options.side, models[0], batches or [], options.precision)
    else:
        models = models[:1] if options.quick else models
        compare(models, batches, options.precision, options.peer_python, quick=options.quick)


if __name__ == "__main__":
    main()
