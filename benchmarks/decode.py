"""Time and memory of reading videos and pictures, up to what an encoder gets.

    python benchmarks/decode.py                          real data of ../shared/data where it is, else made here
    python benchmarks/decode.py --data FOLDER            with jhmdb12-mini.zip, video-samples.zip, cifar100-*.parquet
    python benchmarks/decode.py --quick                  a tenth of the samples, 3 runs

Videos: `read_clips` (16 frames of stride 4; 1 clip and 4 clips) against PyAV decoding the whole file, with all frames
converted to RGB as the published notebook does, and with the picked frames alone converted.

Pictures: `extract_features` with an encoder that does nothing (decode, resize to 224, normalise, batches of 8) against
tf.data with Pillow: parallel map, batch and prefetch, all tuned by tf.data, normalised in TensorFlow.

Runs are interleaved, so that a busy machine slows all sides; the medians are compared. Memory is the peak above the
input, each side in its own process.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image

from labelrank.data.dataset import ClipSampling, Dataset, Sample
from labelrank.data.image import decode_image
from labelrank.data.preprocess import Preprocessing
from labelrank.data.video import EXTENSIONS, read_clips
from labelrank.errors import MediaError
from labelrank.features.extract import extract_features
from labelrank.settings import Settings

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
SETTINGS = Settings(workspace=Path("/nonexistent"))
SAMPLINGS = {"1 clip": ClipSampling(), "4 clips": ClipSampling(clips=4)}
PREPROCESSING = Preprocessing.from_config({"image_processor_type": "ViTImageProcessor", "size": 224})
BATCH = 8


def ours(data: bytes, sampling: ClipSampling) -> np.ndarray:
    return read_clips(data, sampling, name="video", settings=SETTINGS)


def full_decode(data: bytes, sampling: ClipSampling, *, convert_all: bool) -> np.ndarray:
    import av

    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(video=0))
        if convert_all:
            pixels = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
            return pixels[sampling.indices(len(pixels))]
        numbers = sampling.indices(len(frames))
        picked = {n: frames[n].to_ndarray(format="rgb24") for n in np.unique(numbers)}
        return np.stack([picked[n] for n in numbers.ravel()])


VIDEO_SIDES: dict[str, Callable[[bytes, ClipSampling], np.ndarray]] = {
    "labelrank": ours,
    "full decode, picked to RGB": lambda data, sampling: full_decode(data, sampling, convert_all=False),
    "full decode, all to RGB": lambda data, sampling: full_decode(data, sampling, convert_all=True),
}


class NoEncoder:
    """Gives tokens without looking at the pictures: what is left is the way of the data."""

    batch_size = BATCH
    has_cls = True
    fc_norm = None

    def __call__(self, images: np.ndarray, /) -> np.ndarray:
        return np.ones((len(images), 2, 1), np.float32)


def our_pictures(pictures: Sequence[bytes]) -> None:
    samples = tuple(Sample(f"{i:06d}", 0) for i in range(len(pictures)))
    dataset = Dataset(
        id="pictures",
        class_names=("one",),
        samples=samples,
        load=lambda sample: decode_image(pictures[int(sample.key)], name=sample.key, settings=SETTINGS),
        digest="",
    )
    extract_features(dataset, NoEncoder(), PREPROCESSING)


def tf_pictures(pictures: Sequence[bytes]) -> None:
    import tensorflow as tf

    def decode(data: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
        return np.asarray(image)

    def load(data: Any) -> Any:
        pixels = tf.numpy_function(decode, [data], tf.uint8, stateful=False)
        pixels.set_shape((224, 224, 3))
        return (tf.cast(pixels, tf.float32) / 255.0 - 0.5) / 0.5

    batches = tf.data.Dataset.from_tensor_slices(list(pictures)).map(load, tf.data.AUTOTUNE, deterministic=True)
    for batch in batches.batch(BATCH).prefetch(tf.data.AUTOTUNE):
        batch.numpy()


PICTURE_SIDES: dict[str, Callable[[Sequence[bytes]], None]] = {"labelrank": our_pictures, "tf.data": tf_pictures}


def long_video(container: str, codec: str, options: dict[str, str], num_frames: int) -> bytes:
    """Return a video of a moving pattern, 320 x 240."""
    import av

    rows, columns = np.mgrid[:240, :320]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for n in range(num_frames):
            wave = 120 + 60 * np.sin((columns + 3 * n) / 17) + 60 * np.sin((rows - 2 * n) / 23)
            pixels = np.stack([wave, np.roll(wave, n, 1), wave[::-1]], axis=2).clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 30)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def video_groups(data: Path, quick: bool) -> dict[str, list[bytes]]:
    groups = {}
    for name, title, step in (("jhmdb12-mini", "JHMDB, MPEG-4 in AVI", 4), ("video-samples", "mixed samples", 1)):
        if (data / f"{name}.zip").is_file():
            with zipfile.ZipFile(data / f"{name}.zip") as archive:
                names = sorted(n for n in archive.namelist() if Path(n).suffix in EXTENSIONS)
                videos = [archive.read(n) for n in names[:: step * (10 if quick else 1)]]
            groups[title] = [video for video in videos if _is_sound(video)]
    frames = 300 if quick else 1800
    groups[f"{frames} frames, H.264 in MP4"] = [long_video("mp4", "libx264", {"g": "60", "bf": "3"}, frames)]
    groups[f"{frames} frames, MPEG-4 in AVI"] = [long_video("avi", "mpeg4", {"g": "12"}, frames)]
    return groups


def _is_sound(video: bytes) -> bool:
    try:
        ours(video, SAMPLINGS["1 clip"])
    except MediaError:
        return False  # one of the samples is damaged on purpose
    return True


def picture_groups(data: Path, quick: bool) -> dict[str, list[bytes]]:
    import pyarrow.parquet as pq

    groups = {}
    count = 400 if quick else 4000
    if (data / "cifar100-test.parquet").is_file():
        rows = pq.read_table(data / "cifar100-test.parquet", columns=["img"]).slice(0, count)["img"].to_pylist()
        groups["CIFAR-100, PNG 32 x 32"] = [row["bytes"] for row in rows]
    if (data / "image-format-samples.zip").is_file():
        with zipfile.ZipFile(data / "image-format-samples.zip") as archive:
            names = sorted(n for n in archive.namelist() if n.endswith((".jpg", ".png", ".webp", ".bmp")))
            groups["photo, five formats"] = [archive.read(n) for n in names] * (count // 100)
    random = np.random.default_rng(0)
    photos = []
    for _ in range(count // 10):
        small = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize((500, 375), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        photos.append(buffer.getvalue())
    groups["made JPEG 500 x 375"] = photos
    return groups


def groups_of_inputs(data: Path, quick: bool) -> Iterator[tuple[str, str, list[bytes]]]:
    """Yield title, kind (video or picture) and files of each group."""
    for title, videos in video_groups(data, quick).items():
        yield title, "video", videos
    for title, pictures in picture_groups(data, quick).items():
        yield title, "picture", pictures


def work_of(kind: str, side: str, files: list[bytes], sampling: str) -> Callable[[], None]:
    """Return what is measured: one side reading a group of files."""
    if kind == "picture":
        return lambda: PICTURE_SIDES[side](files)

    def read_all() -> None:
        for file in files:
            VIDEO_SIDES[side](file, SAMPLINGS[sampling])

    return read_all


def measure_memory(kind: str, side: str, path: str, sampling: str) -> float:
    """Return the MiB by which reading the files of a zip raises the peak resident memory of this process."""
    with zipfile.ZipFile(path) as archive:
        files = [archive.read(name) for name in archive.namelist()]
    # Libraries and thread pools are loaded, but no memory is left over that the work could do with.
    work_of(kind, side, [long_video("avi", "mpeg4", {}, 5)] if kind == "video" else files[:1], sampling)()
    work = work_of(kind, side, files, sampling)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _status_kib("VmRSS")
    work()
    return (_status_kib("VmHWM") - before) / 1024


def peak_above_input(kind: str, side: str, files: list[bytes], sampling: str) -> float:
    """Return the peak that `measure_memory` finds in a fresh process."""
    with tempfile.NamedTemporaryFile(suffix=".zip") as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            for number, file in enumerate(files):
                archive.writestr(str(number), file)
        temporary.flush()
        command = [sys.executable, __file__, "--measure-memory", kind, side, temporary.name, sampling]
        return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def compare(title: str, kind: str, files: list[bytes], sampling: str, runs: int) -> None:
    """Print a row for each side."""
    sides = list(VIDEO_SIDES if kind == "video" else PICTURE_SIDES)
    wall: dict[str, list[float]] = {side: [] for side in sides}
    cpu: dict[str, list[float]] = {side: [] for side in sides}
    for run in range(runs + 1):
        for side in sides:
            work = work_of(kind, side, files, sampling)
            start, start_cpu = time.perf_counter(), time.process_time()
            work()
            if run:  # the first loads libraries and thread pools
                wall[side].append(time.perf_counter() - start)
                cpu[side].append(time.process_time() - start_cpu)
    best = statistics.median(wall["labelrank"])
    what = f"{title}, {sampling}" if kind == "video" else title
    for side in sides:
        median = statistics.median(wall[side])
        cells = (
            *(f"{what} ({len(files)})", side, f"{median:.3f}", f"{statistics.median(cpu[side]):.3f}"),
            *(f"{len(files) / median:,.1f}", f"{median / best:.2f}"),
            f"{peak_above_input(kind, side, files, sampling):.0f}",
        )
        print(f"| {' | '.join(cells)} |", flush=True)


def _status_kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples, 3 runs")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--measure-memory", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if options.measure_memory:
        print(json.dumps(measure_memory(*options.measure_memory)))
        return
    import av
    import tensorflow as tf

    runs = 3 if options.quick else options.runs
    print(
        f"CPU: {_cpu_model()}, {os.cpu_count()} cores; Python {platform.python_version()}, PyAV {av.__version__}, "
        f"Pillow {PIL.__version__}, TensorFlow {tf.__version__}. {runs} runs each.\n"
    )
    print("| what (samples) | side | median s | of a processor | samples/s | times as long as labelrank | peak MiB |")
    print("|---|---|---|---|---|---|---|")
    for title, kind, files in groups_of_inputs(options.data, options.quick):
        for sampling in SAMPLINGS if kind == "video" else ("",):
            compare(title, kind, files, sampling, runs)


if __name__ == "__main__":
    main()
