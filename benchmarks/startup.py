"""How long a newcomer waits: the cold demo, the command line's help, the app's pages and its memory.

    python benchmarks/startup.py [--repeats 7] [--parts commands,first-page,charts]

Each command runs in a new process and an empty workspace. The first page is compared with an empty Streamlit app of one
title and one button: a pair of new servers takes turns, each is opened in one and the same Chromium as its first
visitor and as a later one, always with an empty cache, until its primary button can be clicked. Processor seconds are
of browser and server together, for the first visitor from the start of the server; other programs change them little.
The charts are those of the Ranking page for features of images that are there, from the link until the chart is drawn.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from browser import Visit, button, chart, chromium, serving, visit
from common import cpu_model, notes, parser_of, print_header
from PIL import Image
from playwright.sync_api import Browser

from labelrank.features.store import FeatureSet, write_features
from labelrank.jobs.store import JobStore
from labelrank.settings import Settings

ROOT = Path(__file__).parent.parent
PARTS = ("commands", "first-page", "charts")
EMPTY_APP = """import streamlit as st

st.title("Empty")
st.button("Go", type="primary")
"""
CHARTS = ((10, 100), (100, 100), (1000, 10))
"""Classes, and samples of each."""


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    given = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("labelrank", "keras", "openvino", "streamlit"))
    load = os.getloadavg()[0]
    print(
        f"Python {platform.python_version()}, {packages}; {os.cpu_count()} x {cpu_model()}; medians of {given.repeats}"
    )
    print(f"Load when it began: {load:.1f}" + (", so the machine was busy" if load > 0.5 else ""), end="\n\n")
    parts = given.parts.split(",")
    if "commands" in parts:
        commands(given.repeats)
    with chromium() as browser:
        if "first-page" in parts:
            first_page(browser, given.repeats)
        if "charts" in parts:
            charts(browser, given.repeats)


def commands(repeats: int) -> None:
    """Print how long commands take in an empty workspace."""
    cli = [sys.executable, "-m", "labelrank"]
    print_header("| command | |")
    print(f"| `labelrank --help` | {statistics.median(seconds([*cli, '--help']) for _ in range(repeats)):.1f} s |")
    print(f"| `labelrank demo`, cold | {statistics.median(seconds([*cli, 'demo']) for _ in range(repeats)):.1f} s |")
    print(f"| peak memory of the demo | {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MiB |")
    print()


def seconds(command: list[str]) -> float:
    """Return how long a command takes in an empty workspace."""
    with tempfile.TemporaryDirectory() as home:
        started = time.perf_counter()
        subprocess.run(command, env={**os.environ, "LABELRANK_HOME": home}, capture_output=True, check=True)
        return time.perf_counter() - started


# The first page


def first_page(browser: Browser, repeats: int) -> None:
    """Print what the first page costs beside an empty app."""
    note = notes()
    pairs: list[tuple[dict[str, float], dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.py"
        empty.write_text(EMPTY_APP)
        for number in range(repeats):
            sides = [(ROOT / "app.py", "Open this result"), (empty, "Go")]
            # Each side goes first as often as second.
            costs = {script: cost_of(browser, script, name) for script, name in sides[:: -1 if number % 2 else 1]}
            pairs.append((costs[ROOT / "app.py"], costs[empty]))
            note(f"pair {number + 1} of {repeats}")
    print_header("| first page | labelrank | empty app | ratio |")
    for what in pairs[0][0]:
        ours, theirs = ([pair[side][what] for pair in pairs] for side in (0, 1))
        ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
        print(f"| {what} | {statistics.median(ours):.3g} | {statistics.median(theirs):.3g} | {ratio:.2f} |")
    print("\nThe ratio is the median of the pairs' ratios.\n")


def cost_of(browser: Browser, script: Path, name: str) -> dict[str, float]:
    """Return what the first page of an app costs, in words and numbers.

    Args:
        name: What its primary button says.
    """
    with tempfile.TemporaryDirectory() as home, serving(script, Path(home)) as app:
        first = visit(browser, app.url, button(name))
        began = app.processor_s()
        later = visit(browser, app.url, button(name))
        of_server = app.processor_s() - began
        return {
            "server answers, s": app.answers_s,
            "first visit, s to usable": first.usable_s,
            "first visit, s to whole": first.whole_s,
            "first visit, processor s": first.processor_s + began,
            "later visit, s to usable": later.usable_s,
            "later visit, s to whole": later.whole_s,
            "later visit, processor s": later.processor_s + of_server,
            "over the wire, MB": later.wire_bytes / 1e6,
            "scripts": later.scripts,
            "messages": len(later.messages),
            "largest message, kB": max(later.messages) / 1e3,
            "web process, MiB": app.memory_mib(),
        }


# Charts


def charts(browser: Browser, repeats: int) -> None:
    """Print what the Ranking page costs for few and many classes."""
    note = notes()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        jobs = [ranked_features(home, *size) for size in CHARTS]
        visits: list[list[Visit]] = [[] for _ in CHARTS]
        with serving(ROOT / "app.py", home) as app:
            for number in range(repeats + 1):
                for of_size, job in zip(visits, jobs, strict=True):
                    of_size.append(visit(browser, f"{app.url}/ranking?job={job}", chart))
                note(f"round {number} of {repeats}")
    print_header(
        "| Ranking page | first link to drawn, s | link to drawn, s | to whole, s | ratio | largest message, MB |"
    )
    for (classes, each), (first, *later) in zip(CHARTS, visits, strict=True):
        drawn, whole = median(v.usable_s for v in later), median(v.whole_s for v in later)
        ratio = median(v.usable_s / ten.usable_s for v, ten in zip(later, visits[0][1:], strict=True))
        largest = max(max(v.messages) for v in (first, *later)) / 1e6
        print(
            f"| {classes} x {each} | {first.usable_s:.1f} | {drawn:.2f} | {whole:.2f} | {ratio:.2f} | {largest:.2f} |"
        )
    print(f"\nThe ratio is to {CHARTS[0][0]} classes. The first link ranks them; later ones find the ranking.")


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def ranked_features(home: Path, classes: int, each: int) -> str:
    """Write a folder of small images and features of them, and return the id of the job that has them."""
    random = np.random.default_rng(0)
    data = home / f"images-{classes}"
    names = [f"class {label:04}" for label in range(classes)]
    y = np.repeat(np.arange(classes), each)
    keys = [f"{names[label]}/{number:06}.png" for number, label in enumerate(y)]
    for name in names:
        (data / name).mkdir(parents=True)
    for key, pixels in zip(keys, random.integers(0, 256, (len(keys), 16, 16, 3), dtype=np.uint8), strict=True):
        Image.fromarray(pixels).save(data / key)
    X = random.standard_normal((classes, 32))[y] + random.standard_normal((len(y), 32))
    made = {"dataset": {"id": str(data)}, "checkpoint": {"id": "mae-tiny-digits"}}
    path = home / f"features-{classes}.parquet"
    write_features(FeatureSet(X.astype(np.float32), y, tuple(keys), tuple(names), made), path)
    store = JobStore.for_settings(Settings(workspace=home))
    params = {
        "dataset": str(data), "split": None, "checkpoint": "mae-tiny-digits", "max_per_class": None, "seed": 0,
        "pooling": "mean", "precision": "auto", "recompute": False,
    }  # fmt: skip
    job = store.create("extract", params, "local", f"{classes} classes")
    claimed = store.claim("benchmark")
    assert claimed is not None
    result = {
        "features": str(path), "media": "image", "rows": len(y), "dim": 32, "failures": 0, "seconds": 1.0,
        "reused": False, "digest": "0" * 64, "stopped_early": False, "device": "CPU", "precision": "float32",
        "runtime": "openvino",
    }  # fmt: skip
    store.succeed(job.id, claimed.attempt, result)
    return job.id


if __name__ == "__main__":
    main()
