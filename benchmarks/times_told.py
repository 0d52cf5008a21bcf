"""The time that the pages tell before a start, against what the job took, on the embedded examples.

    python benchmarks/times_told.py [extract] [finetune] [encoders] [ranker] [patches]

Every job runs in the queue of the app, from a new workspace: the first of a kind is told from the constants, the others
from what was measured. `taken` counts from the press of the button to the end, `processor` the job's seconds of
processor, which other programs do not lengthen. On two cores an idle machine takes between half of `processor` and a
little more than it; where `taken` is much longer, others used the machine, and `told / taken` says little.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from labelrank.jobs import queue
from labelrank.jobs.store import Job, JobStore
from labelrank.settings import Settings
from labelrank.steps.extract.request import Request
from labelrank.steps.finetune.request import Design
from labelrank.steps.patch_gallery.request import of_samples
from labelrank.steps.patch_training import TrainRequest
from labelrank.ui.choices import Choices

EPOCHS = 5
DIGITS, MOVING = ("digits", "mae-tiny-digits"), ("moving-digits", "videomae-tiny-moving-digits")
ENCODERS = Design(orders="ranked,original", seeds=1, depth="all", control=False)


def asked(data: tuple[str, str], per_class: int | None = 64, **changes: Any) -> Choices:
    """Return choices as a visitor makes them."""
    return Choices(extraction=Request(*data, max_per_class=per_class), **changes)


def _told(kind: str, epochs: int) -> None:
    """Keep what a page tells; runs as a page."""
    import streamlit as st

    from labelrank.preview import looks
    from labelrank.ui import datasets, feature_files, fine_tune, patch_jobs, server, session

    chosen = session.choices()
    digest = datasets.dataset(chosen.source).digest
    if kind == "extract":
        time = server.time_estimate(feature_files.prospect(chosen))
    elif kind == "finetune":
        time = fine_tune.comparison(feature_files.chosen_features()).time
    elif kind == "patches":
        time = server.patches_time(patch_jobs.prospect(chosen))
    else:
        found = datasets.look(chosen.source, looks.ranker, digest, chosen.request, epochs, None, waiting="Looking")
        time = server.training_time(found)
    st.session_state["told"] = time


def told(kind: str, chosen: Choices) -> Any:
    """Return the time that a page tells for some choices."""
    page = AppTest.from_function(_told, args=(kind, EPOCHS), default_timeout=120)
    page.session_state["choices"] = chosen
    page.run()
    if page.exception:
        raise RuntimeError(page.exception[0].value)
    return page.session_state["told"]


def processor_s(pid: int) -> float | None:
    """Return the processor seconds of a process and its ended children; None where it is gone."""
    try:
        values = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return None
    return sum(map(int, values[11:15])) / os.sysconf("SC_CLK_TCK")


def run(kind: str, params: dict[str, Any], settings: Settings) -> tuple[Job, float]:
    """Run a job in the queue; return it with its processor seconds."""
    store, used = JobStore.for_settings(settings), 0.0
    job = queue.submit(kind, params, owner="local", subject=kind, settings=settings)
    while job.active:
        time.sleep(0.05)
        job = store.get(job.id)
        used = (processor_s(job.pid) if job.pid else None) or used
    if job.state != "succeeded":
        raise RuntimeError(job.error)
    return job, used


def main() -> None:
    few, every, clips = asked(DIGITS), asked(DIGITS, None), asked(MOVING)
    ranker = TrainRequest(of_samples(few.request), {"epochs": EPOCHS}).to_params()
    again = {**TrainRequest(of_samples(replace(few.request, seed=1)), {"epochs": EPOCHS}).to_params()}
    encoders = replace(few, design=ENCODERS)
    groups: dict[str, list[tuple[str, str, Choices, dict[str, Any]]]] = {
        "extract": [
            ("digits, 64 per class, first", "extract", few, few.extract_params()),
            ("digits, 64 per class, again", "extract", few, few.extract_params(recompute=True)),
            ("digits, all", "extract", every, every.extract_params(recompute=True)),
            ("moving-digits, 64 per class, first", "extract", clips, clips.extract_params()),
            ("moving-digits, all", "extract", asked(MOVING, None), asked(MOVING, None).extract_params(recompute=True)),
        ],
        "finetune": [
            ("default fine-tune, first", "finetune", few, few.finetune_params()),
            ("default fine-tune, again", "finetune", few, few.finetune_params(recompute=True)),
        ],
        "encoders": [
            ("2 encoders end to end, first", "finetune", encoders, encoders.finetune_params()),
            ("2 encoders end to end, again", "finetune", encoders, encoders.finetune_params(recompute=True)),
        ],
        "ranker": [
            (f"ranker, {EPOCHS} epochs, first", "train-patches", few, ranker),
            (f"ranker, {EPOCHS} epochs, again", "train-patches", few, again),
        ],
        "patches": [
            ("patches of 40 digits, first", "patches", few, few.patches_params()),
            ("patches of 40 digits, again", "patches", few, few.patches_params(recompute=True)),
        ],
    }
    wanted = sys.argv[1:] or list(groups)
    with tempfile.TemporaryDirectory() as home:
        os.environ["LABELRANK_HOME"] = home
        settings = Settings.from_env()
        queue.ensure_consumer(settings)
        try:
            if "extract" not in wanted:
                run("extract", few.extract_params(), settings)  # what the others start from
            print("| work | told, s | from | taken, s | told / taken | processor, s | told / processor | load |")
            print("|---|---|---|---|---|---|---|---|")
            for name, kind, chosen, params in [one for group in wanted for one in groups[group]]:
                expected = told(kind, chosen)
                job, used = run(kind, params, settings)
                assert job.finished_at is not None
                taken = job.finished_at - job.queued_at
                print(
                    f"| {name} | {expected.seconds:.1f} | {'last runs' if expected.measured else 'constants'} "
                    f"| {taken:.1f} | {expected.seconds / taken:.2f} | {used:.1f} | {expected.seconds / used:.2f} "
                    f"| {os.getloadavg()[0]:.1f} |",
                    flush=True,
                )
        finally:
            queue.stop_consumer(settings)


if __name__ == "__main__":
    main()
