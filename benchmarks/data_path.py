"""The way of images from their files to the encoder: how fast, in how much memory, and whether the encoder waits.

    python benchmarks/data_path.py --peer-python PEER/bin/python
    python benchmarks/data_path.py --quick             a tenth of the images, 3 runs
    python benchmarks/data_path.py --encoder CHECKPOINT   waiting measured with this encoder (folder, or name) too

PEER is an environment with torch and pillow; without it the DataLoader is left out. CIFAR-100 and the photo in five
formats come from cifar100-test.parquet and image-format-samples.zip in --data, where these are; JPEG images of
500 x 375 are made here.

First table: decode, resize to 224, normalise, batches of 8, for an encoder that does nothing. labelrank:
`encode_parts`. tf.data with Pillow: parallel map, batch and prefetch, all tuned by tf.data, normalised in
TensorFlow. torch: DataLoader with 2 worker processes that are kept, Pillow in these, bytes sent and normalised by the
batch, which is the faster way. All get the files' bytes in memory, and all give the same numbers, which is checked.
Each side lives in a process of its own and they take turns, so that a busy machine slows all of them; medians.

Second: the peak of memory above that before the work, of a side and its children together (PSS), for the JPEG images
once and four times.

Third: `encode_parts` with real encoders. "Waits": the share of its time in which the encoder had no batch to work
on. "Of the encoder alone": the rate as a share of that of the encoder over one batch in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sides
from common import parser_of, print_header
from PIL import Image

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
BATCH = 8
EDGE = 224
JPEG = "made JPEG 500 x 375"
VIT_B = "ViT-B/16, random weights"
TINY = "mae-tiny-digits"


# --- The sides: each yields float32 batches (n, 224, 224, 3) to whatever works on them -------------------------------

Work = Callable[[np.ndarray], None]
Read = Callable[[Sequence[bytes], Work], None]


class NoEncoder:
    """Gives tokens without looking at the images: what is left is the way of the data."""

    batch_size = BATCH
    num_prefix = 1
    fc_norm_pools = "mean"
    fc_norm = None

    def __init__(self, work: Work) -> None:
        self.work = work

    def __call__(self, images: np.ndarray, /) -> np.ndarray:
        self.work(images)
        return np.ones((len(images), 2, 1), np.float32)


def dataset_of(pictures: Sequence[bytes]) -> Any:
    from labelrank.data.dataset import Dataset, Sample
    from labelrank.data.image import decode_image
    from labelrank.settings import Settings

    settings = Settings(workspace=Path("/nonexistent"))
    return Dataset(
        id="pictures",
        class_names=("one",),
        samples=tuple(Sample(f"{i:06d}", 0) for i in range(len(pictures))),
        load=lambda sample: decode_image(pictures[int(sample.key)], name=sample.key, settings=settings),
        digest="",
    )


def our_side() -> Read:
    from labelrank.data.preprocess import Preprocessing

    preprocessing = Preprocessing.from_config({"image_processor_type": "ViTImageProcessor", "size": EDGE})

    def read(pictures: Sequence[bytes], work: Work) -> None:
        sides.encode_all(dataset_of(pictures), NoEncoder(work), preprocessing)

    return read


def decode(data: bytes) -> np.ndarray:
    """Return what the peers' processors make of a file, uint8 (224, 224, 3)."""
    image = Image.open(io.BytesIO(data)).convert("RGB").resize((EDGE, EDGE), Image.Resampling.BILINEAR)
    return np.array(image)


def tensorflow_side() -> Read:
    import tensorflow as tf

    def load(data: Any) -> Any:
        pixels = tf.numpy_function(decode, [data], tf.uint8, stateful=False)
        pixels.set_shape((EDGE, EDGE, 3))
        return (tf.cast(pixels, tf.float32) / 255.0 - 0.5) / 0.5

    def read(pictures: Sequence[bytes], work: Work) -> None:
        samples = tf.data.Dataset.from_tensor_slices(list(pictures)).map(load, tf.data.AUTOTUNE, deterministic=True)
        for batch in samples.batch(BATCH).prefetch(tf.data.AUTOTUNE):
            work(batch.numpy())

    return read


class Pictures:
    """A dataset as torch takes it."""

    def __init__(self, pictures: Sequence[bytes]) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, place: int) -> np.ndarray:
        return decode(self.pictures[place])


def torch_side() -> Read:
    import torch
    from torch.utils.data import DataLoader

    loaders: dict[int, Any] = {}

    def read(pictures: Sequence[bytes], work: Work) -> None:
        if id(pictures) not in loaders:
            loaders[id(pictures)] = DataLoader(
                Pictures(pictures), batch_size=BATCH, num_workers=2, persistent_workers=True, collate_fn=collate
            )
        for batch in loaders[id(pictures)]:
            work(batch.to(torch.float32).div_(255).sub_(0.5).div_(0.5).numpy())

    def collate(pixels: list[np.ndarray]) -> Any:
        return torch.from_numpy(np.stack(pixels))

    return read


SIDES = {"labelrank": our_side, "tf.data": tensorflow_side, "torch DataLoader": torch_side}


def serve(name: str) -> None:
    """Answer requests on standard input about the images of a zip: one side, in a process of its own."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get among the answers
    read = SIDES[name]()
    kept: dict[str, list[bytes]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if (path := request["files"]) not in kept:
            kept[path] = load_zip(Path(path))
        answer = {"read": time_of, "check": means_of, "memory": peak_of}[request["do"]](read, kept[path])
        print(json.dumps(answer), file=answers, flush=True)


def time_of(read: Read, pictures: Sequence[bytes]) -> float:
    """Return how many seconds reading takes."""
    start = time.perf_counter()
    read(pictures, lambda batch: None)
    return time.perf_counter() - start


def means_of(read: Read, pictures: Sequence[bytes]) -> list[float]:
    """Return the mean of each batch, which the sides must agree on."""
    means: list[float] = []
    read(pictures, lambda batch: means.append(float(batch.mean(dtype=np.float64))))
    return means


def peak_of(read: Read, pictures: Sequence[bytes]) -> list[float]:
    """Return the MiB that reading takes at its peak above what was taken before, of the images once and four times.

    Memory that libraries take once for all, and the processes that torch starts for each reading, are in the first.
    """
    return [_peak_above(lambda times=times: read(list(pictures) * times, lambda batch: None)) for times in (1, 4)]


def _peak_above(work: Callable[[], None]) -> float:
    before = _tree_mib(os.getpid())
    seen = [before]
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(0.02):
            seen.append(_tree_mib(os.getpid()))

    thread = threading.Thread(target=sample)
    thread.start()
    work()
    ended.set()
    thread.join()
    return max(seen) - before


def _tree_mib(pid: int) -> float:
    """Return the memory of a process and its children, what they share counted once."""
    total = 0.0
    with contextlib.suppress(OSError):  # it has ended
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) / 1024
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(_tree_mib(int(child)) for child in (task / "children").read_text().split())
    return total


# --- In the process that compares ------------------------------------------------------------------------------------


def picture_groups(data: Path, count: int) -> Iterator[tuple[str, list[bytes]]]:
    """Yield title and files of each group; photos are a tenth of `count`."""
    import pyarrow.parquet as pq

    if (data / "cifar100-test.parquet").is_file():
        rows = pq.read_table(data / "cifar100-test.parquet", columns=["img"]).slice(0, count)["img"].to_pylist()
        yield "CIFAR-100, PNG 32 x 32", [row["bytes"] for row in rows]
    if (data / "image-format-samples.zip").is_file():
        with zipfile.ZipFile(data / "image-format-samples.zip") as archive:
            names = sorted(n for n in archive.namelist() if n.endswith((".jpg", ".png", ".webp", ".bmp")))
            yield "photo, five formats", [archive.read(n) for n in names] * (count // 100)
    random = np.random.default_rng(0)
    photos = []
    for _ in range(count // 10):
        small = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize((500, 375), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        photos.append(buffer.getvalue())
    yield JPEG, photos


def save_zip(path: Path, files: Sequence[bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number, data in enumerate(files):
            archive.writestr(f"{number:06d}", data)
    return path


def load_zip(path: Path) -> list[bytes]:
    with zipfile.ZipFile(path) as archive:
        return [archive.read(name) for name in archive.namelist()]


def compare_sides(started: Sequence[sides.Side], zips: Mapping[str, Path], runs: int) -> None:
    processes = {side.name: side.start() for side in started}
    print_header("| images | side | images/s | slowest to fastest | labelrank is times as fast |")
    for title, path in zips.items():
        count = len(load_zip(path))
        checks = {name: process.ask(do="check", files=str(path)) for name, process in processes.items()}
        expected = checks["labelrank"]
        for name, means in checks.items():
            # Within float32 rounding: the peers divide where labelrank multiplies.
            assert np.allclose(means, expected, atol=1e-5), f"{name} reads other pixels of {title} than labelrank"
        rates: dict[str, list[float]] = {name: [] for name in processes}
        for _ in range(runs):
            for name, process in processes.items():
                rates[name].append(count / process.ask(do="read", files=str(path)))
                time.sleep(sides.PAUSE_S)
        for name, each in rates.items():
            ratio = statistics.median(ours / other for ours, other in zip(rates["labelrank"], each, strict=True))
            spread = f"{min(each):,.0f} to {max(each):,.0f}"
            print(
                f"| {title} ({count:,}) | {name} | {statistics.median(each):,.0f} | {spread} | {ratio:.2f} |",
                flush=True,
            )
    for process in processes.values():
        process.close()


def compare_memory(started: Sequence[sides.Side], path: Path) -> None:
    count = len(load_zip(path))
    print_header(f"\n| side | peak MiB, {count:,} images | {4 * count:,} images |")
    for side in started:
        process = side.start()
        process.ask(do="check", files=str(path))  # loads libraries and thread pools
        once, four_times = process.ask(do="memory", files=str(path))
        print(f"| {side.name} | {once:.0f} | {four_times:.0f} |", flush=True)
        process.close()


def measure_waiting(encoders: Mapping[str, str], zips: Mapping[str, Path], quick: bool, runs: int) -> None:
    """Print how long real encoders wait."""
    from labelrank.models.checkpoint import open_checkpoint
    from labelrank.models.runtime import compile_encoder

    print_header("\n| encoder | images | images/s | waits | of the encoder alone |")
    for name, path in encoders.items():
        checkpoint = open_checkpoint(path)
        encoder = compile_encoder(checkpoint, batch_size=BATCH)
        inputs = np.zeros((BATCH, *checkpoint.config.input_shape), np.float32)
        encoder(inputs)
        for title, zipped in zips.items():
            # So many that a run takes some seconds, whatever the encoder.
            seconds = _seconds(lambda: encoder(inputs), 5) / BATCH  # noqa: B023 - called at once
            wanted = int((1.5 if quick else 8.0) / max(seconds, 5e-4)) // BATCH * BATCH
            files = load_zip(zipped)
            files = (files * 4)[: max(wanted, 4 * BATCH)]
            results = []
            for _ in range(runs):
                alone = _seconds(lambda: encoder(inputs), len(files) // BATCH) / BATCH  # noqa: B023
                start = time.perf_counter()
                extracted = sides.encode_all(dataset_of(files), encoder, checkpoint.preprocessing())
                took = (time.perf_counter() - start) / len(files)
                waits = extracted.waited_s / (extracted.waited_s + extracted.encoded_s)
                results.append((1 / took, waits, alone / took))
            rate, waits, share = (statistics.median(column) for column in zip(*results, strict=True))
            cells = (name, f"{title} ({len(files):,})", f"{rate:,.1f}", f"{waits:.1%}", f"{share:.0%}")
            print(f"| {' | '.join(cells)} |", flush=True)


def _seconds(work: Callable[[], object], times: int) -> float:
    """Return how long one of `times` calls takes."""
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--peer-python", help="the interpreter of an environment with torch and pillow")
    parser.add_argument("--encoder", help="a checkpoint, beside the two that are always measured")
    parser.add_argument("--quick", action="store_true", help="a tenth of the images, 3 runs")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        serve(options.side)
        return
    import extract_images

    runs = 3 if options.quick else options.runs
    started = [sides.Side(name, sys.executable, ("--side", name)) for name in ("labelrank", "tf.data")]
    if options.peer_python:
        started.append(sides.Side("torch DataLoader", options.peer_python, ("--side", "torch DataLoader")))
    print(f"{sides.machine()}. {sides.versions('labelrank', 'numpy', 'pillow', 'openvino', 'tensorflow')}.")
    print(f"{runs} runs each.{'' if options.peer_python else ' No --peer-python, so no DataLoader.'}\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        zips = {
            title: save_zip(folder / f"{number}.zip", files)
            for number, (title, files) in enumerate(picture_groups(options.data, 400 if options.quick else 4000))
        }
        compare_sides(started, zips, runs)
        compare_memory(started, zips[JPEG])
        sides.write_checkpoint(folder / "vit-b", extract_images.CONFIG, extract_images.PREPROCESSOR)
        encoders = {TINY: TINY, VIT_B: str(folder / "vit-b")}
        if options.encoder:
            encoders[options.encoder] = options.encoder
        measure_waiting(encoders, zips, options.quick, runs)


if __name__ == "__main__":
    main()
