"""Run a comparison: read finished runs, train the missing ones, and write the folder of results."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from labelrank import cache, hub
from labelrank.errors import Cancelled, LabelRankError, SettingsError
from labelrank.features.store import FeatureSet
from labelrank.finetune.design import Arm
from labelrank.finetune.runs import Run
from labelrank.json_values import plain
from labelrank.models.config import EncoderConfig
from labelrank.notices import Notice
from labelrank.progress import Kind, Progress, ShouldStop, Stage
from labelrank.ranking.rows import row_blocks
from labelrank.settings import Settings
from labelrank.steps.extract.engines.keeping import now, versions
from labelrank.steps.finetune.best_model import Exporter
from labelrank.steps.finetune.decisions import Costs, costs_of, decide
from labelrank.steps.finetune.end_to_end import EndToEnd
from labelrank.steps.finetune.estimate import (
    NOMINAL_FLOPS,
    Described,
    describe,
    kind_of_work,
    time_estimate,
    unknown_to_transformers,
)
from labelrank.steps.finetune.finished_runs import KeptRuns, without_extras
from labelrank.steps.finetune.heads import Heads
from labelrank.steps.finetune.inputs import gather
from labelrank.steps.finetune.material import Material, sizes_of
from labelrank.steps.finetune.progress import ComparisonResult, Live, LiveReport, OnReport
from labelrank.steps.finetune.report import Data, Report
from labelrank.steps.finetune.reporting import Facts, TargetsUsed, report_of
from labelrank.steps.finetune.request import Design
from labelrank.steps.finetune.results import KEPT, write_results
from labelrank.steps.finetune.runs_engine import Here, RunsEngine, RunsWork
from labelrank.steps.finetune.targets import as_trained
from labelrank.times import TimeEstimate, Work

KIND = "runs"
"""Folder of the workspace with an entry for each comparison: its finished runs, best model and snapshots. They can be
computed again; so this is one of `labelrank.cache.KINDS`. Results are in `labelrank.steps.finetune.results.KEPT` and
stay."""
_RUNS, _BEST, _ANEW = "runs", "best", "recomputing"
_UNFINISHED = "unfinished"
# Version of the runs; changes when the same design would train differently.
_VERSION = 1


@dataclass(frozen=True)
class ComparisonOutcome:
    """Results, and how they were obtained."""

    report: Report
    folder: Path
    """Folder with the results."""
    reused_runs: int
    """Number of runs that were finished before."""


def describe_material(material: Material, design: Design, *, flops_per_s: float | None = None) -> Described:
    """Return the description of a comparison of this material; `flops_per_s` is as for `describe`."""
    return describe(design, **_what_trains(material), flops_per_s=flops_per_s)


def time_of(material: Material, design: Design, settings: Settings, *, left: float = 1.0) -> TimeEstimate | None:
    """Return how long a comparison of this material takes here, as `time_estimate` does."""
    return time_estimate(design, settings, **_what_trains(material), left=left)


def _what_trains(material: Material) -> dict[str, Any]:
    encoder = material.encoder
    return {
        "n_classes": len(material.class_names),
        **{f"n_{role}": count for role, count in sizes_of(material).items()},
        "n_features": material.train.X.shape[1],
        "encoder": _config_of(material),
        "choosing": encoder.choosing if encoder else None,
    }


def _config_of(material: Material) -> EncoderConfig | None:
    encoder = material.encoder
    return encoder.checkpoint.config.resized(*encoder.preprocessing.output_size) if encoder else None


def _work(material: Material, design: Design) -> Work | None:
    """Return what training all runs is."""
    amount = describe_material(material, design, flops_per_s=NOMINAL_FLOPS).seconds
    if amount is None:
        return None
    kind = kind_of_work(design, material.train.X.shape[1], _config_of(material))
    # Features of the test split are an extraction.
    return Work(kind, amount, apart=(Kind.DOWNLOAD, Kind.ENCODE))


def unloadable(material: Material, design: Design) -> str | None:
    """Return a sentence if it is known before any run that transformers cannot load the best model; else None."""
    return unknown_to_transformers(
        design,
        _config_of(material),
        pooling=str(material.train.provenance.get("pooling", "mean")),
        n_classes=len(material.class_names),
    )


def run_job(
    params: Mapping[str, Any],
    *,
    settings: Settings,
    on_progress: Progress,
    should_stop: ShouldStop,
    on_report: Callable[[Mapping[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Do a fine-tune job and return the JSON of its `ComparisonResult`, and as `work` what it has trained.

    Args:
        params: As `job_params` returns them. Stored features, finished runs and encoders' snapshots are used unless
            `recompute` is set.
        on_report: Called about once an epoch with the JSON of a `LiveReport`. Once a seed is finished, its results are
            in `folder`, even if the job is cancelled later.

    Raises:
        As `labelrank.steps.finetune.inputs.gather` and `compare`.
    """
    started = time.monotonic()
    design = Design.from_params(params)

    def tell(report: LiveReport) -> None:
        if on_report:
            on_report(report.to_json())

    with hub.telling(lambda text: on_progress(0, None, Stage(Kind.READ, text)), should_stop):
        material = gather(params, design, settings, on_progress=on_progress, should_stop=should_stop)
    outcome = compare(
        material,
        design,
        settings,
        recompute=bool(params.get("recompute")),
        on_progress=on_progress,
        should_stop=should_stop,
        on_report=tell,
    )
    report = outcome.report
    result = ComparisonResult(
        folder=outcome.folder,
        kind=report.kind,
        finding=report.verdict.finding,
        verdict=report.verdict.text,
        runs=len(report.arms) * len(report.compared.seeds),
        reused_runs=outcome.reused_runs,
        media=material.encoder.checkpoint.config.media if material.encoder else None,
        seconds=round(time.monotonic() - started, 3),
        device=report.device,
        precision=report.precision,
        runtime=report.runtime,
    )
    return {**result.to_json(), "work": None if outcome.reused_runs else plain(_work(material, design))}


def compare(
    material: Material,
    design: Design,
    settings: Settings,
    *,
    recompute: bool = False,
    with_model: bool = True,
    engine: RunsEngine | None = None,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    on_report: OnReport | None = None,
) -> ComparisonOutcome:
    """Train every order with every seed, store the results and return them.

    It uses finished runs of the same comparison, whatever stopped it, and of one with fewer seeds.

    Args:
        recompute: Train all runs anew; if an earlier recomputation was stopped, continue it.
        with_model: Also write the model of the best run, if the checkpoint is known.
        engine: Trains the runs; None: this process.
        on_progress: Called as (epochs done, epochs of all runs, stage); end to end, as (updates done, ..).
        should_stop: Asked between steps; finished runs are kept. After a stop, there are results of the finished seeds.
        on_report: Called about once an epoch. Once a seed is finished, there are results of it.

    Raises:
        FinetuneError: All runs failed, or results cannot be written.
        SettingsError: The design does not fit the data.
        Cancelled: `should_stop` returned true.
    """
    design, notices = as_trained(design, len(material.train.y), len(material.val.y))
    material = replace(material, notices=(*material.notices, *notices))
    engine = engine or Here()
    arms, training, entry, kept = prepared(material, design, settings, engine)
    with contextlib.suppress(OSError):  # if nothing can be written, the runs report it
        entry.mkdir(parents=True, exist_ok=True)
    # Runs from a stopped recomputation are new already.
    anew = entry / _ANEW
    if recompute and not anew.exists():
        shutil.rmtree(entry / _BEST, ignore_errors=True)
        kept.clear()
        with contextlib.suppress(OSError):
            anew.touch()
    costs = None
    if design.cost is not None:
        costs = costs_of(design.cost, material, training.softness.targets if training.softness else None)
    with _holding(entry):
        exporter = Exporter(material, design, arms, entry / _BEST)
        work = _Work(material, design, settings, arms, training, entry.name, kept, exporter, with_model, costs)
        outcome = work.do(engine, on_progress, should_stop, on_report)
        anew.unlink(missing_ok=True)
    cache.evict(settings, spare=[entry])
    return outcome


@dataclass(frozen=True)
class Standing:
    """The finished part of a comparison."""

    runs: int
    """Number of finished runs."""
    seeds: int
    """Number of seeds, from the first, that all orders have finished."""
    begun: bool
    """Whether an unfinished run has a snapshot to resume from."""


def standing(
    material: Material,
    design: Design,
    settings: Settings,
    *,
    recompute: bool = False,
    engine: RunsEngine | None = None,
) -> Standing:
    """Return what `compare` would find finished."""
    design, _ = as_trained(design, len(material.train.y), len(material.val.y))
    arms, _, entry, kept = prepared(material, design, settings, engine or Here())
    if recompute and not (entry / _ANEW).exists():
        return Standing(0, 0, begun=False)
    done = [sum(kept.has(arm.name, seed) for arm in arms) for seed in range(design.seeds)]
    return Standing(
        sum(done),
        next((seed for seed, count in enumerate(done) if count < len(arms)), design.seeds),
        any(any(kept.snapshots(arm.name, seed).glob("*")) for arm in arms for seed in range(design.seeds)),
    )


def prepared(
    material: Material, design: Design, settings: Settings, engine: RunsEngine
) -> tuple[Sequence[Arm], Heads | EndToEnd, Path, KeptRuns]:
    """Return the arms, how they train, and where the comparison and its finished runs are stored."""
    arms = design.arms(material.label_map.order)
    if material.groups is None and any(arm.kind == "groups" for arm in arms):
        raise SettingsError("Targets by groups need the group of each class. Give --groups, or leave groups out.")
    training = EndToEnd(material, design, engine.place) if design.end_to_end else Heads(material, design)
    entry = settings.cache / KIND / _digest(material, design, arms, training)
    return arms, training, entry, KeptRuns(entry / _RUNS, len(material.test.y))


def _holding(entry: Path) -> contextlib.AbstractContextManager[None]:
    return cache.using(entry) if entry.is_dir() else contextlib.nullcontext()


class _Work:
    """One comparison while it runs."""

    def __init__(
        self,
        material: Material,
        design: Design,
        settings: Settings,
        arms: Sequence[Arm],
        training: Heads | EndToEnd,
        digest: str,
        kept: KeptRuns,
        exporter: Exporter,
        with_model: bool,
        costs: Costs | None,
    ) -> None:
        self._material, self._design, self._settings, self._arms = material, design, settings, arms
        self._training, self._digest, self._kept, self._exporter = training, digest, kept, exporter
        self._with_model, self._costs = with_model, costs
        self._results = settings.own / KEPT / digest
        self._done: dict[int, dict[str, Run]] = {}
        """Finished runs by seed and arm; only those of the exporter's arm have heads."""
        self._left = (0, 0)
        """Number of seeds and orders whose results are written so far."""

    def do(
        self,
        engine: RunsEngine,
        on_progress: Progress | None,
        should_stop: ShouldStop | None,
        on_report: OnReport | None,
    ) -> ComparisonOutcome:
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
            on_report,
            unit="updates" if self._design.end_to_end else "epochs",
        )
        live.notices.extend(self._material.notices)
        live.add([run for by_arm in self._done.values() for run in by_arm.values()])
        missing = [seed for seed in range(self._design.seeds) if len(self._done.get(seed, {})) < len(names)]
        softness = self._training.softness
        work = RunsWork(
            self._material,
            self._design,
            self._settings,
            self._digest,
            self._training,
            self._training.blocks(self._arms, missing, self._kept),
            self._kept,
            live,
            self._exporter,
            softness.tables(self._arms, self._kept, live, should_stop) if softness else None,
            should_stop,
        )
        with contextlib.closing(engine(work)) as finished:
            for runs in finished:
                self._kept.write(runs, in_full=self._exporter.in_full)
                # Heads of many orders and seeds would fill the memory, and probabilities even sooner.
                runs = [
                    replace(run, log_probabilities=None) if run.arm == self._exporter.arm else without_extras(run)
                    for run in runs
                ]
                for run in runs:
                    self._done.setdefault(run.seed, {})[run.arm] = run
                live.add(runs)
                self._leave_what_is_done(live)
                if should_stop and should_stop() and len(self._whole_seeds()) < self._design.seeds:
                    raise Cancelled("The fine-tune was cancelled.")
        live.say("Writing the results")
        folder = self._results / f"{self._design.seeds}-seeds"
        outcome = self._write(self._arms, range(self._design.seeds), live, reused, folder)
        shutil.rmtree(self._results / _UNFINISHED, ignore_errors=True)
        live.finish(outcome.folder)
        return outcome

    def _whole_seeds(self) -> list[int]:
        """Return the seeds that all orders have finished."""
        return [seed for seed, by_arm in sorted(self._done.items()) if len(by_arm) == len(self._arms)]

    def _leave_what_is_done(self, live: Live) -> None:
        """Write the results of the seeds that all orders have finished, so that they survive any stop.

        If no seed is complete, write those of the orders that have finished one. The model is only written at the end:
        joining a head with its encoder may take longer than a job has when it must stop.
        """
        seeds, arms = self._whole_seeds(), self._arms
        if len(seeds) == self._design.seeds:
            return
        if not seeds:
            seeds = [max(self._done, key=lambda seed: (len(self._done[seed]), -seed))]
            arms = [arm for arm in arms if arm.name in self._done[seeds[0]]]
        if self._left == (len(seeds), len(arms)):
            return
        self._left = len(seeds), len(arms)
        some = "" if len(arms) == len(self._arms) else f"{len(arms)} of {len(self._arms)} orders with "
        text = f"Not finished: these are the results of {some}{len(seeds)} of {self._design.seeds} seeds."
        notice = Notice("not_finished", text)
        # If all runs so far have failed, the end of the comparison reports it.
        with contextlib.suppress(LabelRankError):
            outcome = self._write(arms, seeds, live, 0, self._results / _UNFINISHED, notice, with_model=False)
            live.finish(outcome.folder)

    def _write(
        self,
        arms: Sequence[Arm],
        seeds: Sequence[int],
        live: Live,
        reused: int,
        folder: Path,
        notice: Notice | None = None,
        *,
        with_model: bool = True,
    ) -> ComparisonOutcome:
        material, training = self._material, self._training
        runs = [self._done[seed][arm.name] for arm in arms for seed in seeds]
        with_model = with_model and self._with_model
        model, notices = self._exporter.best(runs, live.say) if with_model else (None, ())
        if notice:
            notices = (*notices, notice)
        facts = Facts(
            kind=training.kind,
            data=Data(
                class_names=material.class_names,
                **sizes_of(material),
                val_from=material.val_from,
                test_from=material.test_from,
                provenance=material.train.public_provenance,
            ),
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
        targets = None
        softness = training.softness
        if softness is not None and softness.chosen is not None:
            sharpness = softness.chosen.sharpness
            table = None if sharpness is None else softness.targets.geometry(sharpness)
            targets = TargetsUsed(softness.chosen, softness.targets.distances, material.groups, table)
        report = report_of(facts, design, arms, list(seeds), runs, material.test.y, material.label_map, targets)
        decided: dict[str, np.ndarray] = {}
        if self._costs is not None and notice is None:
            names = [name for name in self._exporter.in_full if name in {arm.name for arm in arms}]
            decisions, decided, said = decide(self._costs, names, seeds, runs, self._kept, material.test.y)
            report = replace(report, decisions=decisions, notices=(*report.notices, *said))
        write_results(
            folder,
            report,
            runs,
            material.test,
            material.label_map,
            model,
            targets=targets.table if targets else None,
            costs=self._costs.table if self._costs else None,
            decided=decided,
        )
        return ComparisonOutcome(report, folder, reused)


def _digest(material: Material, design: Design, arms: Sequence[Arm], training: Heads | EndToEnd) -> str:
    """Return the hex digest of everything that determines a comparison's runs and results, except the seeds' number."""
    whole = {
        "version": _VERSION,
        "kind": training.kind,
        "arms": [[arm.name, arm.order, arm.head_rows, *([arm.permutation] if arm.permutation else [])] for arm in arms],
        "class_names": material.class_names,
        "label_map": material.label_map.content_hash,
        "rows": {role: rows_digest(getattr(material, role)) for role in ("train", "val", "test")},
        "from": [material.val_from, material.test_from],
        "design": design.identity,
        **training.identity,
    }
    text = json.dumps(whole, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=list)
    return hashlib.sha256(text.encode()).hexdigest()


def rows_digest(features: FeatureSet) -> str:
    """Return the hex digest of the rows: features, labels and keys, in their order."""
    digest = hashlib.sha256(json.dumps([list(features.X.shape), features.keys]).encode())
    for rows in row_blocks(len(features.X)):
        digest.update(np.ascontiguousarray(features.X[rows]).data)
    digest.update(np.ascontiguousarray(features.y).data)
    return digest.hexdigest()
