"""How long large datasets take on larger machines, by arithmetic: docs/scale.md shows it.

    python benchmarks/scale.py [--gpu-tflops 790] [--share 0.5] [--cores-per-gpu 16] [--network 1.25]

The rates of two cores are those of docs/performance.md. What a core reads is measured here, in processor seconds, which
other programs change little: JPEGs of 500 x 375, and clips of 16 frames from AVI files where ../shared/data is. What a
GPU encodes is its matrix products at `--share` of their peak: assumed until `benchmarks/gpu.py` has measured it.
"""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import cpu_model, parser_of, print_header
from gpu import MODELS
from PIL import Image, ImageFilter

from labelrank.data.dataset import ClipSampling
from labelrank.data.image import decode_image
from labelrank.data.preprocess import Preprocessing
from labelrank.data.video import read_clips
from labelrank.models.cost import encoder_flops
from labelrank.settings import Settings

VIDEOS = Path(__file__).parent.parent.parent / "shared" / "data" / "jhmdb12-mini.zip"
TWO_CORES = {"ViT-B/16": 20.3, "VideoMAE-B": 2.01}
"""Samples a second from files to vectors, measured (docs/performance.md, Images and Clips)."""
CLIP_CORE_S = 0.033
"""Processor seconds of reading a clip where no videos are there to measure with."""


@dataclass(frozen=True)
class Data:
    name: str
    samples: int
    bytes: float
    """Of a sample's file, about."""
    encoders: tuple[str, ...]


@dataclass(frozen=True)
class Machine:
    name: str
    gpus: int
    nodes: int


DATA = (
    Data("ImageNet-1k, train", 1_281_167, 110e3, ("ViT-B/16", "ViT-L/16")),
    Data("ImageNet-22k", 14_197_122, 92e3, ("ViT-B/16", "ViT-L/16")),
    Data("Kinetics-400, train", 240_436, 1.8e6, ("VideoMAE-B",)),
)
MACHINES = (
    Machine("2 cores", 0, 1),
    Machine("1 GPU", 1, 1),
    Machine("8 GPUs", 8, 1),
    Machine("32 Ray workers", 32, 4),
)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--gpu-tflops", type=float, default=790, help="matrix products in bfloat16, H200 measured")
    parser.add_argument("--share", type=float, default=0.5, help="share of it that an encoder reaches; assumed")
    parser.add_argument("--cores-per-gpu", type=int, default=16)
    parser.add_argument("--network", type=float, default=1.25, help="GB/s of a node, from the store of the files")
    options = parser.parse_args()
    image_s, clip_s = core_seconds_of_image(), core_seconds_of_clip()
    print(f"{cpu_model()}: a core reads {1 / image_s:.0f} images a second, {1 / clip_s:.0f} clips", end="\n\n")
    print_header("| data | encoder | on | encode | read | network | takes | held up by | machine hours per million |")
    for data in DATA:
        for encoder in data.encoders:
            flops = encoder_flops(MODELS[encoder])
            for machine in MACHINES:
                cores = machine.gpus * options.cores_per_gpu if machine.gpus else 2
                measured = next(name for name in TWO_CORES if name.split("-")[0] == encoder.split("-")[0])
                limits = {
                    "encoder": machine.gpus * options.share * options.gpu_tflops * 1e12 / flops
                    if machine.gpus
                    else TWO_CORES[measured] * encoder_flops(MODELS[measured]) / flops,
                    "reading": cores / (clip_s if "Video" in encoder else image_s),
                    "network": machine.nodes * options.network * 1e9 / data.bytes,
                }
                if not machine.gpus:  # the measured rate has reading in it
                    limits["reading"] = float("inf")
                slowest = min(limits, key=limits.__getitem__)
                rate = limits[slowest]
                shown = " | ".join("in it" if np.isinf(value) else f"{value:,.0f}/s" for value in limits.values())
                each = machine.nodes * 1e6 / rate / 3600
                print(
                    f"| {data.name} | {encoder} | {machine.name} | {shown} | {duration(data.samples / rate)} | "
                    f"{slowest} | {each:,.2f} |"
                )
    print()
    print_header("| data | files | features, 768 | features, 1,024 |")
    for data in DATA:
        sizes = [data.samples * size / 1e9 for size in (data.bytes, 768 * 4, 1024 * 4)]
        print(f"| {data.name} | {sizes[0]:,.0f} GB | {sizes[1]:,.1f} GB | {sizes[2]:,.1f} GB |")


def duration(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def core_seconds_of_image() -> float:
    """Return the processor seconds of decoding a JPEG of 500 x 375 and making it an encoder's input."""
    noise = np.random.default_rng(0).integers(0, 256, (375, 500, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)).save(file, "JPEG", quality=90)
    settings, prepare = Settings(workspace=Path("/nonexistent")), Preprocessing.reference((224, 224))
    return core_seconds(lambda: prepare(decode_image(file.getvalue(), name="image", settings=settings)), 100)


def core_seconds_of_clip() -> float:
    """Return the same of a clip of 16 frames from an AVI file."""
    if not VIDEOS.is_file():
        return CLIP_CORE_S
    settings, prepare = Settings(workspace=Path("/nonexistent")), Preprocessing.reference((224, 224))
    with zipfile.ZipFile(VIDEOS) as archive:
        names = [name for name in archive.namelist() if name.endswith(".avi")][:20]
        files = iter([archive.read(name) for name in names])
    return core_seconds(
        lambda: prepare(read_clips(next(files), ClipSampling(), name="v", settings=settings)), len(names)
    )


def core_seconds(work: Callable[[], object], times: int) -> float:
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times


if __name__ == "__main__":
    main()
