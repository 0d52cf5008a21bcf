"""Time and memory of reading videos; data_path.py does the same for images.

    python benchmarks/decode.py                          real data of ../shared/data where it is, else made here
    python benchmarks/decode.py --data FOLDER            with jhmdb12-mini.zip and video-samples.zip
    python benchmarks/decode.py --quick                  a tenth of the samples, 3 runs

`read_clips` (16 frames of stride 4; 1 clip and 4 clips) against PyAV decoding the whole file, with all frames
converted to RGB as the published notebook does, and with the picked frames alone converted.

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
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from common import cpu_model, parser_of, peak_above, print_header

from labelrank.data.dataset import ClipSampling
from labelrank.data.video import EXTENSIONS, read_clips
from labelrank.errors import MediaError
from labelrank.settings import Settings

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
SETTINGS = Settings(workspace=Path("/nonexistent"))
SAMPLINGS = {"1 clip": ClipSampling(), "4 clips": ClipSampling(clips=4)}


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


SIDES: dict[str, Callable[[bytes, ClipSampling], np.ndarray]] = {
    "labelrank": ours,
    "full decode, picked to RGB": lambda data, sampling: full_decode(data, sampling, convert_all=False),
    "full decode, all to RGB": lambda data, sampling: full_decode(data, sampling, convert_all=True),
}


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


def work_of(side: str, files: list[bytes], sampling: str) -> Callable[[], None]:
    """Return what is measured: one side reading a group of files."""

    def read_all() -> None:
        for file in files:
            SIDES[side](file, SAMPLINGS[sampling])

    return read_all


def measure_memory(side: str, path: str, sampling: str) -> float:
    """Return the MiB by which reading the files of a zip raises the peak resident memory of this process."""
    with zipfile.ZipFile(path) as archive:
        files = [archive.read(name) for name in archive.namelist()]
    # Libraries and thread pools are loaded, but no memory is left over that the work could do with.
    work_of(side, [long_video("avi", "mpeg4", {}, 5)], sampling)()
    return peak_above(work_of(side, files, sampling))


def peak_above_input(side: str, files: list[bytes], sampling: str) -> float:
    """Return the peak that `measure_memory` finds in a fresh process."""
    with tempfile.NamedTemporaryFile(suffix=".zip") as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            for number, file in enumerate(files):
                archive.writestr(str(number), file)
        temporary.flush()
        command = [sys.executable, __file__, "--measure-memory", side, temporary.name, sampling]
        return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def compare(title: str, files: list[bytes], sampling: str, runs: int) -> None:
    """Print a row for each side."""
    wall: dict[str, list[float]] = {side: [] for side in SIDES}
    cpu: dict[str, list[float]] = {side: [] for side in SIDES}
    for run in range(runs + 1):
        for side in SIDES:
            work = work_of(side, files, sampling)
            start, start_cpu = time.perf_counter(), time.process_time()
            work()
            if run:  # the first loads libraries and thread pools
                wall[side].append(time.perf_counter() - start)
                cpu[side].append(time.process_time() - start_cpu)
    best = statistics.median(wall["labelrank"])
    for side in SIDES:
        median = statistics.median(wall[side])
        cells = (
            *(f"{title}, {sampling} ({len(files)})", side, f"{median:.3f}", f"{statistics.median(cpu[side]):.3f}"),
            *(f"{len(files) / median:,.1f}", f"{median / best:.2f}"),
            f"{peak_above_input(side, files, sampling):.0f}",
        )
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples, 3 runs")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--measure-memory", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure_memory:
        print(json.dumps(measure_memory(*options.measure_memory)))
        return
    import av

    runs = 3 if options.quick else options.runs
    print(
        f"CPU: {cpu_model()}, {os.cpu_count()} cores; Python {platform.python_version()}, PyAV {av.__version__}. "
        f"{runs} runs each.\n"
    )
    print_header(
        "| what (samples) | side | median s | of a processor | samples/s | times as long as labelrank | peak MiB |"
    )
    for title, files in video_groups(options.data, options.quick).items():
        for sampling in SAMPLINGS:
            compare(title, files, sampling, runs)


if __name__ == "__main__":
    main()
