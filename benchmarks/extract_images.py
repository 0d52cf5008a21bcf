"""Features of images, ViT-B/16 at 224, from files to pooled vectors: labelrank against torch and transformers.

    python benchmarks/extract_images.py --peer-python PEER/bin/python
    python benchmarks/extract_images.py --peer-python PEER/bin/python --quick     24 images, 2 runs
    python benchmarks/extract_images.py                                           labelrank alone

PEER is an environment with torch, transformers, pillow and pyarrow. CIFAR-100 comes from cifar100-test.parquet in
--data, where it is; photos of 500 x 375 in JPEG are made here, in class folders. Each run reads other images.

labelrank: `plan` and `extract`, as `labelrank extract` calls them, at precision auto and float32.
The peer: transformers' Pillow processor on batches of 8, ViTModel with sdpa in inference mode on as many threads, the
mean of the patch tokens; in float32, its default, and with bfloat16 weights. Both load the same random weights.

Rates are counted from the end of the first batch to the end of all, so that loading an encoder does not count; that is
in the last table. "Never used before" has an empty workspace, so nothing of the encoder is cached.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sides
from common import parser_of
from PIL import Image

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
BATCH = 8
CONFIG = {
    "architectures": ["ViTModel"],
    "model_type": "vit",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
PREPROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": 2,
    "do_rescale": True,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


class Ours:
    """labelrank, for images and videos."""

    def __init__(self, checkpoint: Path, precision: str, workspace: Path, batch_size: int) -> None:
        self.checkpoint, self.precision, self.workspace, self.batch_size = checkpoint, precision, workspace, batch_size
        self._encoder: Any = None

    def extract(self, source: Path, mark: sides.Mark) -> tuple[Sequence[str], np.ndarray]:
        from labelrank.progress import Kind, Stage
        from labelrank.settings import Settings
        from labelrank.steps.extract.plan import plan
        from labelrank.steps.extract.request import Request
        from labelrank.steps.extract.run import extract

        def on_progress(done: int, total: int | None, stage: Stage) -> None:
            if stage.kind == Kind.ENCODE and done:
                mark(done)

        request = Request(str(source), str(self.checkpoint), precision=self.precision)
        settings = Settings(workspace=self.workspace)
        plan = plan(request, settings)
        features = extract(plan, settings, recompute=True, on_progress=on_progress)
        assert not features.failures, features.failures
        return features.keys, features.X

    def model(self, batches: int) -> int:
        from labelrank.models.checkpoint import open_checkpoint
        from labelrank.models.runtime import compile_encoder

        if self._encoder is None:
            checkpoint = open_checkpoint(str(self.checkpoint))
            self._encoder = compile_encoder(checkpoint, precision=self.precision, batch_size=self.batch_size)
            shape = (self.batch_size, *checkpoint.config.input_shape)
            self._inputs = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        for _ in range(batches):
            self._encoder(self._inputs)
        return batches * self.batch_size

    def about(self) -> dict[str, str]:
        from labelrank.models.backend import resolve_precision

        packages = ("labelrank", "openvino", "keras", "numpy", "pillow", "av", "pyarrow")
        return {"precision": resolve_precision(self.precision), "versions": sides.versions(*packages)}


class Torch:
    """torch and transformers, as their documentation shows it."""

    def __init__(self, checkpoint: Path, precision: str) -> None:
        import torch
        from transformers import ViTModel
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

        torch.set_num_threads(sides.cores())
        self.torch, self.precision, self.dtype = torch, precision, getattr(torch, precision)
        self.processor = ViTImageProcessorPil.from_pretrained(checkpoint)
        self.encoder, loaded = ViTModel.from_pretrained(
            checkpoint,
            add_pooling_layer=False,
            attn_implementation="sdpa",
            dtype=self.dtype,
            output_loading_info=True,
        )
        assert not loaded["missing_keys"], loaded
        assert not loaded["unexpected_keys"], loaded
        self.encoder.eval()

    def extract(self, source: Path, mark: sides.Mark) -> tuple[Sequence[str], np.ndarray]:
        keys: list[str] = []
        features = []
        for pictures in batched(pictures_of(source)):
            images = [Image.open(io.BytesIO(data)).convert("RGB") for _, data in pictures]
            pixels = self.processor(images=images, return_tensors="pt")["pixel_values"]
            features.append(self._encode(pixels)[:, 1:].float().mean(dim=1).numpy())
            keys += [key for key, _ in pictures]
            mark(len(keys))
        return keys, np.concatenate(features)

    def _encode(self, pixels: Any) -> Any:
        with self.torch.inference_mode():
            return self.encoder(pixel_values=pixels.to(self.dtype)).last_hidden_state

    def model(self, batches: int) -> int:
        pixels = self.torch.randn(BATCH, 3, 224, 224, generator=self.torch.Generator().manual_seed(0))
        for _ in range(batches):
            self._encode(pixels)
        return batches * BATCH

    def about(self) -> dict[str, str]:
        packages = ("torch", "transformers", "numpy", "pillow", "pyarrow")
        return {"precision": self.precision, "versions": sides.versions(*packages)}


def pictures_of(source: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the images of class folders or of a table, with the keys that labelrank gives them."""
    if source.is_dir():
        for path in sorted(source.glob("*/*")):
            yield path.relative_to(source).as_posix(), path.read_bytes()
        return
    import pyarrow.parquet as pq

    for number, row in enumerate(pq.read_table(source, columns=["img"])["img"].to_pylist()):
        yield f"row-{number:08d}", row["bytes"]


def batched(pictures: Iterator[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    batch = []
    for picture in pictures:
        batch.append(picture)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write images as a table in the layout of CIFAR-100 on the Hub, of the classes that it holds."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = sorted({str(row["fine_label"]) for row in rows})
    label_of = {name: label for label, name in enumerate(names)}
    features = {"img": {"_type": "Image"}, "fine_label": {"_type": "ClassLabel", "names": names}}
    schema = pa.schema(
        [("img", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("fine_label", pa.int64())],
        {"huggingface": json.dumps({"info": {"features": features}})},
    )
    labels = [label_of[str(row["fine_label"])] for row in rows]
    images = [{"bytes": row["img"]["bytes"], "path": None} for row in rows]
    pq.write_table(pa.table({"img": images, "fine_label": labels}, schema), path, row_group_size=100)


def write_photos(folder: Path, count: int, seed: int) -> None:
    """Write made photos as JPEG, 500 x 375, in 4 class folders."""
    random = np.random.default_rng(seed)
    for number in range(count):
        small = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        path = folder / f"class-{number % 4}" / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small.resize((500, 375), Image.Resampling.BICUBIC).save(path, "JPEG", quality=90)


def write_inputs(folder: Path, data: Path, samples: int, runs: int) -> dict[str, list[Path]]:
    """Write the images of each run and return title -> sources."""
    inputs: dict[str, list[Path]] = {}
    if (data / "cifar100-test.parquet").is_file():
        import pyarrow.parquet as pq

        columns = ["img", "fine_label"]
        rows = pq.read_table(data / "cifar100-test.parquet", columns=columns).slice(0, samples * runs).to_pylist()
        sources = [folder / f"cifar-{run}.parquet" for run in range(runs)]
        for run, source in enumerate(sources):
            write_table(source, rows[run * samples : (run + 1) * samples])
        inputs["CIFAR-100, PNG 32 x 32 in Parquet"] = sources
    sources = [folder / f"photos-{run}" for run in range(runs)]
    for run, source in enumerate(sources):
        write_photos(source, samples, run)
    inputs["made photos, JPEG 500 x 375 in folders"] = sources
    return inputs


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--peer-python", help="Python of an environment with torch and transformers")
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--samples", type=int, default=96, help="images of a run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="24 images, 2 runs")
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        kind, precision, checkpoint, *workspace = options.serve
        if kind == "labelrank":
            sides.serve(lambda: Ours(Path(checkpoint), precision, Path(*workspace), BATCH))
        else:
            sides.serve(lambda: Torch(Path(checkpoint), precision))
        return
    if options.samples <= BATCH:
        parser.error(f"--samples is {options.samples}; expected more than the {BATCH} of the first batch.")

    samples, runs = (24, 2) if options.quick else (options.samples, options.runs)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        checkpoint = folder / "vit-base"
        gflop = sides.write_checkpoint(checkpoint, CONFIG, PREPROCESSOR)
        write_photos(folder / "warm-up", 2 * BATCH, runs)

        def ours(name: str, precision: str) -> sides.Side:
            arguments = ("--serve", "labelrank", precision, str(checkpoint), str(folder / f"workspace-{precision}"))
            return sides.Side(name, sys.executable, arguments)

        def peer(name: str, precision: str) -> sides.Side:
            return sides.Side(name, options.peer_python, ("--serve", "torch", precision, str(checkpoint)))

        compared = [ours("labelrank", "auto"), ours("labelrank, float32", "float32")]
        baselines: list[sides.Side] = []
        if options.peer_python:
            compared += [peer("torch", "float32"), peer("torch, bfloat16", "bfloat16")]
            baselines = compared[2:3]
        print(f"ViT-B/16 at 224, random weights; {samples} images in batches of {BATCH}, {runs} runs in turns.")
        sides.compare(
            compared,
            write_inputs(folder, options.data, samples, runs),
            folder / "warm-up",
            unit="image",
            baselines=baselines,
            exact=baselines[0] if baselines else compared[1],
            gflop=gflop,
            model_batches=max(2, samples // BATCH),
            folder=folder,
        )


if __name__ == "__main__":
    main()
