"""Doing a comparison: finished runs, new runs, and the folder of results that they make."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from labelrank import cache
from labelrank.data.dataset import Progress, ShouldStop
from labelrank.errors import Cancelled, LabelRankError
from labelrank.extraction.making import now, versions
from labelrank.features.store import FeatureSet
from labelrank.finetune.design import Arm
from labelrank.finetune.runs import Run
from labelrank.lab.gathering import Material, gather, sizes_of
from labelrank.lab.kept import KeptRuns
from labelrank.lab.live import Live, OnReport
from labelrank.lab.models import Exporter
from labelrank.lab.planning import Design, describe
from labelrank.lab.report import Facts, report_of
from labelrank.lab.results import write_results
from labelrank.lab.training import EndToEnd, Heads
from labelrank.settings import Settings

KIND = "finetunes"
"""Folder of the workspace with an entry for each comparison; one of `labelrank.cache.KINDS`."""
_RUNS, _BEST, _ANEW = "runs", "best", "recomputing"
_UNFINISHED = "unfinished"
# Of the runs; changes when the same design would train otherwise.
_VERSION = 1


@dataclass(frozen=True)
class Outcome:
    """Results with the story of their making."""

    report: Mapping[str, Any]
    folder: Path
    """Where they are kept."""
    reused_runs: int
    """Runs that were there already."""


def describe_material(material: Material, design: Design) -> dict[str, Any]:
    """Return what a comparison of this material would do; as `labelrank.lab.planning.describe`, and `rows` in words."""
    rows = sizes_of(material)
    encoder = material.encoder
    said = describe(
        design,
        n_classes=len(material.class_names),
        **{f"n_{role}": count for role, count in rows.items()},
        n_features=material.train.X.shape[1],
        encoder=encoder.checkpoint.config.resized(*encoder.preprocessing.output_size) if encoder else None,
    )
    words = f"{rows['train']:,} rows train, {rows['val']:,} validate, {rows['test']:,} test."
    return {**said, "rows": words}


def run(
    params: Mapping[str, Any],
    *,
    settings: Settings,
    on_progress: Progress,
    should_stop: ShouldStop,
    on_report: OnReport | None = None,
) -> dict[str, Any]:
    """Do a fine-tune job and return its result: where the results are, and their verdict.

    Args:
        params: As `labelrank.lab.planning.job_params` gives them. Features, finished runs and encoders' snapshots that
            are kept are used unless `recompute` is set.
        on_report: Called about once an epoch with `curves`, `runs_done`, `runs`, `seconds_left`, `notices`, and
            `folder`, the folder of results of the finished seeds, once there is one: also of a job that is cancelled.

    Raises:
        As `labelrank.lab.gathering.gather` and `compare`.
    """
    started = time.monotonic()
    design = Design.from_params(params)
    material = gather(params, design, settings, on_progress=on_progress, should_stop=should_stop)
    outcome = compare(
        material,
        design,
        settings,
        recompute=bool(params.get("recompute")),
        on_progress=on_progress,
        should_stop=should_stop,
        on_report=on_report,
    )
    report = outcome.report
    return {
        "folder": str(outcome.folder),
        "kind": report["kind"],
        "finding": report["verdict"]["finding"],
        "verdict": report["verdict"]["text"],
        "runs": len(report["arms"]) * len(report["design"]["seeds"]),
        "reused_runs": outcome.reused_runs,
        "media": material.encoder.checkpoint.config.media if material.encoder else None,
        "seconds": round(time.monotonic() - started, 3),
        **{name: report[name] for name in ("device", "precision", "runtime")},
    }


def compare(
    material: Material,
    design: Design,
    settings: Settings,
    *,
    recompute: bool = False,
    with_model: bool = True,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    on_report: OnReport | None = None,
) -> Outcome:
    """Train every order with every seed and return the results, which are kept.

    Finished runs of the same comparison are used, whatever stopped it, also those of fewer seeds.

    Args:
        recompute: Train all runs anew; where that was stopped, go on with it.
        with_model: Write the model of the best run as well, where the checkpoint is known.
        on_progress: Called as (epochs done, epochs of all runs, stage); end to end, as (updates done, ..).
        should_stop: Asked between steps; finished runs are kept. While seeds are missing, there are results of those
            that are finished.
        on_report: As in `run`.

    Raises:
        FinetuneError: Not one run is whole, or results cannot be written.
        SettingsError: The design does not fit the data.
        Cancelled: `should_stop` returned true.
    """
    arms = design.arms(material.label_map.order)
    training = EndToEnd(material, design) if design.end_to_end else Heads(material, design)
    digest = _digest(material, design, arms, training)
    entry = settings.workspace / KIND / digest
    kept = KeptRuns(entry / _RUNS, len(material.test.y))
    with contextlib.suppress(OSError):  # the runs say so themselves when nothing can be written
        entry.mkdir(parents=True, exist_ok=True)
    # What a stopped recomputation has made is new already.
    anew = entry / _ANEW
    if recompute and not anew.exists():
        shutil.rmtree(entry / _BEST, ignore_errors=True)
        kept.clear()
        with contextlib.suppress(OSError):
            anew.touch()
    with _holding(entry):
        work = _Work(material, design, arms, training, kept, entry, with_model, on_report)
        outcome = work.do(on_progress, should_stop)
        anew.unlink(missing_ok=True)
    cache.evict(settings, spare=[entry])
    return outcome


def _holding(entry: Path) -> contextlib.AbstractContextManager[None]:
    return cache.using(entry) if entry.is_dir() else contextlib.nullcontext()


class _Work:
    """One comparison on its way."""

    def __init__(
        self,
        material: Material,
        design: Design,
        arms: Sequence[Arm],
        training: Heads | EndToEnd,
        kept: KeptRuns,
        entry: Path,
        with_model: bool,
        on_report: OnReport | None,
    ) -> None:
        self._material, self._design, self._arms, self._training = material, design, arms, training
        self._kept, self._entry, self._with_model, self._on_report = kept, entry, with_model, on_report
        self._exporter = Exporter(material, design, arms, entry / _BEST)
        self._done: dict[int, dict[str, Run]] = {}
        self._left = 0
        """Seeds whose results are written, though others are in work."""

    def do(self, on_progress: Progress | None, should_stop: ShouldStop | None) -> Outcome:
        names = [arm.name for arm in self._arms]
        for seed in range(self._design.seeds):
            for name in names:
                if (run := self._kept.read(name, seed)) is not None:
                    self._done.setdefault(seed, {})[name] = run
        reused = sum(map(len, self._done.values()))
        live = Live(
            self._arms,
            self._design.seeds,
            self._training.epochs,
            self._training.updates,
            on_progress,
            self._on_report,
        )
        live.notices.extend(self._material.notices)
        live.add([run for by_arm in self._done.values() for run in by_arm.values()])
        missing = [seed for seed in range(self._design.seeds) if len(self._done.get(seed, {})) < len(names)]
        with contextlib.closing(
            self._training.train(self._arms, missing, self._kept, live, self._exporter, should_stop)
        ) as finished:
            for runs in finished:
                self._kept.write(runs, with_heads=self._exporter.arm)
                for run in runs:
                    self._done.setdefault(run.seed, {})[run.arm] = run
                live.add(runs)
                self._leave_what_is_done(live)
                if should_stop and should_stop():
                    raise Cancelled("The fine-tune was cancelled.")
        live.say("Writing the results")
        outcome = self._write(range(self._design.seeds), live, reused, self._entry / f"{self._design.seeds}-seeds")
        shutil.rmtree(self._entry / _UNFINISHED, ignore_errors=True)
        live.finish(outcome.folder)
        return outcome

    def _leave_what_is_done(self, live: Live) -> None:
        """Write the results of the seeds that all orders have finished: whatever stops this, they are there.

        A model is left to the end: to join a head with its encoder may take longer than a job has that is to stop.
        """
        whole = [seed for seed, by_arm in sorted(self._done.items()) if len(by_arm) == len(self._arms)]
        if len(whole) in (self._left, self._design.seeds):
            return
        self._left = len(whole)
        notice = f"Not finished: these are the results of {len(whole)} of {self._design.seeds} seeds."
        # That so far nothing came of it is told at the end.
        with contextlib.suppress(LabelRankError):
            outcome = self._write(whole, live, 0, self._entry / _UNFINISHED, notice, with_model=False)
            live.finish(outcome.folder)

    def _write(
        self,
        seeds: Sequence[int],
        live: Live,
        reused: int,
        folder: Path,
        notice: str | None = None,
        *,
        with_model: bool = True,
    ) -> Outcome:
        material, training = self._material, self._training
        runs = [self._done[seed][arm.name] for arm in self._arms for seed in seeds]
        with_model = with_model and self._with_model
        model, notices = self._exporter.best(runs, live.say) if with_model else (None, [])
        if notice:
            notices.append(notice)
        facts = Facts(
            kind=training.kind,
            class_names=material.class_names,
            rows=sizes_of(material),
            val_from=material.val_from,
            test_from=material.test_from,
            provenance=material.train.provenance,
            recipe=training.recipe,
            device=training.device,
            precision=training.precision,
            runtime=training.runtime,
            versions=versions(),
            created_at=now(),
            seconds=sum(run.seconds for run in runs),
            notices=(*dict.fromkeys(live.notices), *notices),
        )
        design = replace(self._design, seeds=len(seeds))
        report = report_of(facts, design, self._arms, list(seeds), runs, material.test.y, material.label_map)
        write_results(folder, report, runs, material.test, material.label_map, model)
        return Outcome(report, folder, reused)


def _digest(material: Material, design: Design, arms: Sequence[Arm], training: Heads | EndToEnd) -> str:
    """Return the hex digest of all that determines the runs and results of a comparison, but the number of seeds."""
    whole = {
        "version": _VERSION,
        "kind": training.kind,
        "arms": [[arm.name, arm.order, arm.head_rows] for arm in arms],
        "class_names": material.class_names,
        "label_map": material.label_map.content_hash,
        "rows": {role: rows_digest(getattr(material, role)) for role in ("train", "val", "test")},
        "from": [material.val_from, material.test_from],
        "design": {k: v for k, v in design.to_dict().items() if k not in ("seeds", "orders")},
        **training.identity,
    }
    text = json.dumps(whole, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=list)
    return hashlib.sha256(text.encode()).hexdigest()


def rows_digest(features: FeatureSet) -> str:
    """Return the hex digest of what rows hold: features, labels and keys, in their order."""
    digest = hashlib.sha256(json.dumps([list(features.X.shape), features.keys]).encode())
    for values in (features.X, features.y):
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
