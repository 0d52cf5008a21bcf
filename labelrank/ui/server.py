"""What this server computes with, how long that takes, and what it allows."""

from __future__ import annotations

import platform
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

import labelrank
from labelrank.errors import SettingsError
from labelrank.jobs.store import RUNNING, SUCCEEDED, Job
from labelrank.models.backend import PRECISIONS, devices, resolve_precision
from labelrank.models.config import EncoderConfig
from labelrank.models.cost import estimated_rate
from labelrank.steps.extract.report import ExtractionResult
from labelrank.steps.extract.request import Request
from labelrank.ui import session

START_SECONDS = 4.0
"""Of a job's process until it encodes: Python, the dataset, the encoder from the cache."""


def device_kind() -> str:
    """Return what jobs run on: CPU or GPU."""
    return devices()[0].kind


def device_names() -> list[str]:
    """Return the processors that jobs run on, each with what it has."""
    return [
        f"{one.kind}: {one.name}"
        + (f", {one.cores} core{'s' if one.cores != 1 else ''}" if one.cores else "")
        + (". It computes bfloat16." if one.bfloat16 else ". It has no bfloat16 instructions; bfloat16 gains nothing.")
        for one in devices()
    ]


def device_text() -> str:
    """Return the processors that jobs run on in a few words."""
    found = devices()
    if found[0].kind == "GPU":
        return found[0].name if len(found) == 1 else f"{len(found)} GPUs"
    cores = found[0].cores
    return f"CPU, {cores} core{'s' if cores != 1 else ''}" if cores else "CPU"


def precisions() -> tuple[str, ...]:
    """Return the precisions that this server can compute in."""
    return tuple(name for name in PRECISIONS if _resolved(name))


def precision_of(chosen: str) -> str:
    """Return the precision that runs for the one chosen; where this server does not have it, the automatic one."""
    return _resolved(chosen) or resolve_precision("auto")


def _resolved(precision: str) -> str | None:
    try:
        return resolve_precision(precision)
    except SettingsError:
        return None


# How long an extraction takes


@dataclass(frozen=True)
class Prospect:
    """What an extraction would be, before it is started."""

    path: Path
    """Where its features are kept, once there are any."""
    samples: int
    """At most; fewer where it stops once the order is stable."""
    clips: int
    """Encoder inputs of one sample."""
    media: str
    encoder: EncoderConfig


@dataclass(frozen=True)
class TimeEstimate:
    """How long an extraction is going to take here."""

    seconds: float
    measured: bool
    """Whether an extraction of this kind has run here; else it is computed from the speed of the processor."""


def time_estimate(prospect: Prospect, asked: Request) -> TimeEstimate | None:
    """Return how long an extraction takes here; None where nothing is known.

    From the last one here with this checkpoint, precision and medium; before there is one, from the arithmetic of
    the encoder and a short measurement of the processor, which would go wrong beside a running job.
    """
    store = session.store()
    rates = (_inputs_per_second(job, prospect, asked) for job in store.list(states=(SUCCEEDED,)))
    rate = next((rate for rate in rates if rate), None)
    measured = rate is not None
    if rate is None and not store.count((RUNNING,)):
        rate = estimated_rate(prospect.encoder, precision_of(asked.precision))
    if not rate:
        return None
    return TimeEstimate(START_SECONDS + prospect.samples * prospect.clips / rate, measured)


def _inputs_per_second(job: Job, prospect: Prospect, asked: Request) -> float | None:
    """Return how fast a job has encoded; None for one that tells nothing about what is planned."""
    if job.kind != "extract" or not job.result:
        return None
    result = ExtractionResult.from_json(job.result)
    if result.report is None or not result.report.rate:
        return None
    then = Request.from_params(job.params)
    same = (
        (then.checkpoint, then.checkpoint_revision) == (asked.checkpoint, asked.checkpoint_revision)
        and result.precision == precision_of(asked.precision)
        # An encoder may have run on the CPU beside a GPU, and will again; the other way round, the GPU is gone.
        and result.device in ("CPU", device_kind())
        and result.media == prospect.media
    )
    return result.report.rate * then.clips if same else None


# What it runs on, and what it allows


LIBRARIES = (
    "streamlit",
    "keras",
    "tensorflow",
    "openvino",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "pyarrow",
    "pillow",
    "av",
    "huggingface_hub",
    "altair",
)


def versions_table() -> pd.DataFrame:
    """Return the versions of labelrank, Python and the libraries, read from their metadata without importing them."""
    rows = [("labelrank", labelrank.__version__), ("Python", platform.python_version())]
    for name in LIBRARIES:
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            rows.append((name, "not installed"))
    return pd.DataFrame(rows, columns=["Library", "Version"])


def limits_table() -> pd.DataFrame:
    """Return the limits of this server and the variables that raise them."""
    limits = session.settings()
    rows = [
        (
            field.name.removeprefix("max_").replace("_", " ").capitalize(),
            f"{getattr(limits, field.name):,}",
            f"LABELRANK_{field.name.upper()}",
        )
        for field in fields(limits)
        if field.name.startswith("max_")
    ]
    return pd.DataFrame(rows, columns=["At most", "Value", "Variable"])
