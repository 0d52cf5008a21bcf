"""What the benchmark scripts share: options, the machine in words, memory, notes on stderr, tables.

The standard library alone, because the peers' environments import it too.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is a script's docstring as it stands."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def status_mib(name: str) -> float:
    """Return a size of this process: VmRSS is what it holds now, VmHWM the most it held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def peak_above(work: Callable[[], object]) -> float:
    """Return by how many MiB some work raises the peak memory of this process above what it holds before."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = status_mib("VmRSS")
    work()
    return status_mib("VmHWM") - before


def notes() -> Callable[[str], None]:
    """Return a function that writes to stderr what is done by now, and when since this call."""
    began = time.perf_counter()

    def note(what: str) -> None:
        print(f"[{time.perf_counter() - began:.0f} s] {what}", file=sys.stderr, flush=True)

    return note


def print_header(header: str, *, flush: bool = False) -> None:
    """Print the first row of a Markdown table and the line below it."""
    print(header, "|" + "---|" * (header.count("|") - 1), sep="\n", flush=flush)
