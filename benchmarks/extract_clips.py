"""Features of videos, VideoMAE-B, from avi files to pooled vectors: labelrank against the published notebook's way.

    python benchmarks/extract_clips.py --peer-python PEER/bin/python
    python benchmarks/extract_clips.py --peer-python PEER/bin/python --quick      4 videos, 2 runs
    python benchmarks/extract_clips.py                                            without torch

Videos are those of jhmdb12-mini.zip in --data: MPEG-4 in AVI, 320 x 240, 15 to 40 frames. Each run reads others, one of
each class. PEER is an environment with torch, transformers, pillow and av.

labelrank: `extraction.plan` and `extraction.extract`, as `labelrank extract` calls them, at precision auto and float32.
The notebook's way: all frames decoded, each resized, 16 of stride 4 picked, one clip per `predict` of a Keras model on
TensorFlow in float32. Its model is labelrank's encoder, its frames are decoded with PyAV and resized with Pillow.
The peer: frames decoded with PyAV up to the last that is picked, transformers' Pillow processor, VideoMAEModel with
sdpa in inference mode on as many threads, one clip at a time (more at once is not faster), float32.
All load the same random weights, resize to 224 x 224 as the notebook does, and average all tokens.

Rates are counted from the end of the first clip to the end of all, so that loading an encoder does not count; that is
in the last table. "Never used before" has an empty workspace, so nothing of the encoder is cached.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sides
from common import parser_of
from extract_images import SHARED, Ours
from PIL import Image

FRAMES, STRIDE, SIZE = 16, 4, 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.225, 0.225, 0.225)
CONFIG = {
    "architectures": ["VideoMAEModel"],
    "model_type": "videomae",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "image_size": SIZE,
    "patch_size": 16,
    "num_channels": 3,
    "num_frames": FRAMES,
    "tubelet_size": 2,
    "qkv_bias": True,
    "use_mean_pooling": True,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
PREPROCESSOR = {
    "image_processor_type": "VideoMAEImageProcessor",
    "do_resize": True,
    "size": {"height": SIZE, "width": SIZE},
    "resample": 2,
    "do_center_crop": False,
    "do_rescale": True,
    "do_normalize": True,
    "image_mean": list(MEAN),
    "image_std": list(DEVIATION),
}


def videos_of(source: Path) -> list[Path]:
    return sorted(source.glob("*/*"))


def key_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def picked(num_frames: int) -> np.ndarray:
    return np.minimum(STRIDE * np.arange(FRAMES), num_frames - 1)


class Notebook:
    """Keras on TensorFlow, one clip per `predict`."""

    def __init__(self, checkpoint: Path) -> None:
        os.environ["KERAS_BACKEND"] = "tensorflow"
        import keras

        from labelrank.models.checkpoint import open_checkpoint
        from labelrank.models.runtime import build_encoder

        opened = open_checkpoint(str(checkpoint))
        clips = keras.Input(opened.config.input_shape)
        self.encoder = keras.Model(clips, build_encoder(opened)(clips))

    def extract(self, source: Path, mark: sides.Mark) -> tuple[Sequence[str], np.ndarray]:
        features = []
        videos = videos_of(source)
        for video in videos:
            tokens = self.encoder.predict(self._read(video)[np.newaxis], verbose=0)
            features.append(tokens.mean(axis=1))
            mark(len(features))
        return [key_of(video) for video in videos], np.concatenate(features)

    def _read(self, path: Path) -> np.ndarray:
        import av

        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        resized = [Image.fromarray(frame).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for frame in frames]
        clip = np.stack([np.asarray(frame) for frame in resized])[picked(len(resized))]
        return (clip.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)

    def model(self, batches: int) -> int:
        shape = (1, *self.encoder.input_shape[1:])
        clip = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        for _ in range(batches):
            self.encoder.predict(clip, verbose=0)
        return batches

    def about(self) -> dict[str, str]:
        packages = ("tensorflow", "keras", "numpy", "pillow", "av")
        return {"precision": "float32", "versions": sides.versions(*packages)}


class Torch:
    """torch and transformers, as their documentation shows it."""

    def __init__(self, checkpoint: Path) -> None:
        import torch
        from transformers import VideoMAEModel
        from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

        torch.set_num_threads(sides.cores())
        self.torch = torch
        self.processor = VideoMAEImageProcessorPil.from_pretrained(checkpoint)
        self.encoder, loaded = VideoMAEModel.from_pretrained(
            checkpoint, attn_implementation="sdpa", dtype=torch.float32, output_loading_info=True
        )
        assert not loaded["missing_keys"], loaded
        assert not loaded["unexpected_keys"], loaded
        self.encoder.eval()

    def extract(self, source: Path, mark: sides.Mark) -> tuple[Sequence[str], np.ndarray]:
        features = []
        videos = videos_of(source)
        for video in videos:
            pixels = self.processor(self._read(video), return_tensors="pt", input_data_format="channels_last")
            features.append(self._encode(pixels["pixel_values"]).mean(dim=1).numpy())
            mark(len(features))
        return [key_of(video) for video in videos], np.concatenate(features)

    def _read(self, path: Path) -> list[np.ndarray]:
        import av

        frames = []
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                frames.append(frame)
                if number == STRIDE * (FRAMES - 1):
                    break
        numbers = picked(len(frames))
        arrays = {n: frames[n].to_ndarray(format="rgb24") for n in np.unique(numbers)}
        return [arrays[n] for n in numbers]

    def _encode(self, pixels: Any) -> Any:
        with self.torch.inference_mode():
            return self.encoder(pixel_values=pixels.to(self.torch.float32)).last_hidden_state

    def model(self, batches: int) -> int:
        generator = self.torch.Generator().manual_seed(0)
        pixels = self.torch.randn(1, FRAMES, 3, SIZE, SIZE, generator=generator)
        for _ in range(batches):
            self._encode(pixels)
        return batches

    def about(self) -> dict[str, str]:
        packages = ("torch", "transformers", "numpy", "pillow", "av")
        return {"precision": "float32", "versions": sides.versions(*packages)}


def write_inputs(folder: Path, archive: Path, samples: Sequence[int]) -> list[Path]:
    """Write sources of so many videos each, all of other classes, as class folders; no video is in two of them."""
    with zipfile.ZipFile(archive) as opened:
        by_class: dict[str, list[str]] = {}
        for name in sorted(n for n in opened.namelist() if n.endswith(".avi")):
            by_class.setdefault(name.split("/")[-2], []).append(name)
        sources = [folder / f"videos-{number}" for number in range(len(samples))]
        for number, (source, count) in enumerate(zip(sources, samples, strict=True)):
            for class_name in sorted(by_class)[:count]:
                path = source / class_name / f"{number}.avi"
                path.parent.mkdir(parents=True)
                path.write_bytes(opened.read(by_class[class_name][number]))
    return sources


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--peer-python", help="Python of an environment with torch and transformers")
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--samples", type=int, default=12, help="videos of a run, at most 12")
    parser.add_argument("--runs", type=int, default=5, help="at most 17")
    parser.add_argument("--quick", action="store_true", help="4 videos, 2 runs")
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        kind, precision, checkpoint, *workspace = options.serve
        if kind == "labelrank":
            sides.serve(lambda: Ours(Path(checkpoint), precision, Path(*workspace), 1))
        else:
            sides.serve(lambda: {"notebook": Notebook, "torch": Torch}[kind](Path(checkpoint)))
        return
    if not (options.data / "jhmdb12-mini.zip").is_file():
        print(f"There is no jhmdb12-mini.zip in {options.data}, so nothing is measured; give its folder with --data.")
        return

    if not 2 <= options.samples <= 12 or not 1 <= options.runs <= 17:
        parser.error(f"{options.samples} videos in {options.runs} runs; expected 2 to 12 in 1 to 17.")

    samples, runs = (4, 2) if options.quick else (options.samples, options.runs)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        checkpoint = folder / "videomae-base"
        gflop = sides.write_checkpoint(checkpoint, CONFIG, PREPROCESSOR)
        warm_up, *sources = write_inputs(folder, options.data / "jhmdb12-mini.zip", [2, *[samples] * runs])

        def side(name: str, python: str, *arguments: str) -> sides.Side:
            return sides.Side(name, python, ("--serve", *arguments))

        def ours(name: str, precision: str) -> sides.Side:
            workspace = folder / f"workspace-{precision}"
            return side(name, sys.executable, "labelrank", precision, str(checkpoint), str(workspace))

        notebook = side("the notebook's way", sys.executable, "notebook", "float32", str(checkpoint))
        compared = [ours("labelrank", "auto"), ours("labelrank, float32", "float32"), notebook]
        if options.peer_python:
            compared.append(side("torch", options.peer_python, "torch", "float32", str(checkpoint)))
        print(f"VideoMAE-B, 16 frames at 224, random weights; {samples} videos, {runs} runs in turns.")
        sides.compare(
            compared,
            {"JHMDB, MPEG-4 in AVI": sources},
            warm_up,
            unit="clip",
            baselines=compared[2:],
            exact=notebook,
            gflop=gflop,
            model_batches=3 if options.quick else 10,
            folder=folder,
        )


if __name__ == "__main__":
    main()
