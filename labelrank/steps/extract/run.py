"""Run a plan part by part, and store each finished part, until all are done or the order is stable."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labelrank import cache, hub
from labelrank.errors import Cancelled, FeaturesError
from labelrank.features.folder import write_folder
from labelrank.features.joining import read_features
from labelrank.features.parts import Part, PartFolder
from labelrank.features.store import FeatureSet
from labelrank.json_values import plain
from labelrank.models.backend import usable_gpus
from labelrank.progress import Kind, Progress, ShouldStop, Stage
from labelrank.settings import Settings
from labelrank.steps.extract.assembling import Found, files_of
from labelrank.steps.extract.engines import Asked, Engine, EngineWork, gpus, here
from labelrank.steps.extract.engines.keeping import worth_another_try
from labelrank.steps.extract.estimate import kind_of_work
from labelrank.steps.extract.monitor import Monitor
from labelrank.steps.extract.plan import Plan, plan
from labelrank.steps.extract.report import ExtractionReport, ExtractionResult, StabilityOutcome
from labelrank.steps.extract.request import Request
from labelrank.steps.extract.resuming import Note
from labelrank.times import Work

OnReport = Callable[[ExtractionReport], None]

_TOLD_REASONS = 5


@dataclass(frozen=True)
class ExtractionOutcome:
    """Features, and how they were obtained."""

    features: FeatureSet
    path: Path | None
    """Where the features are stored; None for a shard, and if they cannot be stored."""
    reused: bool
    """Whether they were stored already."""
    report: ExtractionReport | None
    """The last report; None if the features were stored already."""
    problem: str | None = None
    """Why the features could not be stored."""


def run_job(
    params: Mapping[str, Any],
    *,
    settings: Settings,
    on_progress: Progress,
    should_stop: ShouldStop,
    on_report: Callable[[Mapping[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Do an extraction job and return its `ExtractionResult` as JSON values, and as `work` what it has done.

    It uses cached features and finished parts unless `recompute` is set; damaged ones are computed again.
    """
    started = time.monotonic()
    on_progress(0, None, Stage(Kind.READ, "Reading the dataset"))
    with hub.telling(lambda text: on_progress(0, None, Stage(Kind.READ, text)), should_stop):
        work = plan(Request.from_params({**params, "shard": None}), settings)
        outcome = obtain(
            work,
            settings,
            recompute=bool(params.get("recompute")),
            on_progress=on_progress,
            should_stop=should_stop,
            on_report=(lambda report: on_report(report.to_json())) if on_report else None,
        )
    if outcome.problem:
        raise FeaturesError(f"{outcome.problem} Then start the same extraction again.")
    assert outcome.path is not None
    features = outcome.features
    rows, dim = features.X.shape
    stability = StabilityOutcome.of_provenance(features.provenance)
    result = ExtractionResult(
        report=outcome.report,
        features=outcome.path,
        media=work.dataset.media,
        rows=rows,
        dim=dim,
        failures=len(features.failures),
        seconds=round(time.monotonic() - started, 3),
        reused=outcome.reused,
        digest=features.digest,
        stopped_early=stability is not None and stability.stopped_early,
        device=features.provenance["device"],
        precision=features.provenance["precision"],
        runtime=features.provenance["runtime"],
    )
    return {**result.to_json(), "work": plain(_work(work, result))}


def _work(plan: Plan, result: ExtractionResult) -> Work | None:
    """Return what an extraction has done; None if it made no features."""
    report = result.report
    if report is None or not report.rate:
        return None
    inputs = min(report.samples, result.rows) - report.reused_samples
    clips = plan.sampling.clips if plan.sampling else 1
    kind = kind_of_work(plan.input_flops, result.precision, result.media)
    return Work(kind, inputs * clips * plan.input_flops, seconds=inputs / report.rate)


def obtain(
    plan: Plan,
    settings: Settings,
    *,
    recompute: bool = False,
    follow_stability: bool = True,
    engine: Engine | None = None,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    on_report: OnReport | None = None,
) -> ExtractionOutcome:
    """Return the features of a plan: stored ones, or new ones, which are then stored.

    Args:
        As of `extract`.

    Raises:
        As `extract`.
    """
    path = None if plan.request.shard else plan.cached_path(settings)
    if path and not recompute and (kept := _kept_features(path)) is not None:
        if not worth_another_try(plan, kept):
            return ExtractionOutcome(kept, path, True, None)
        print(
            "Samples that could not be read before can be read now; their parts are made again.",
            file=sys.stderr,
            flush=True,
        )
    last: ExtractionReport | None = None

    def remember(report: ExtractionReport) -> None:
        nonlocal last
        last = report
        if on_report:
            on_report(report)

    try:
        features = extract(
            plan,
            settings,
            recompute=recompute,
            follow_stability=follow_stability,
            engine=engine,
            on_progress=on_progress,
            should_stop=should_stop,
            on_report=remember,
        )
        problem = _keep(features, plan, settings, path) if path else None
    finally:
        cache.evict(settings, spare=[path] if path else [])
    return ExtractionOutcome(features, None if problem else path, False, last, problem)


def _keep(features: FeatureSet, plan: Plan, settings: Settings, path: Path) -> str | None:
    """Store features at a path, as links to their parts; return the problem if that fails, else None."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():  # of labelrank 0.1; a folder cannot replace it in one step, and both can be made again
            path.unlink()
        files, rows = files_of(features, plan, _part_folder(plan, settings))
        write_folder(features, path, files=files, rows=rows)
    except (OSError, FeaturesError) as error:
        return f"{error} All parts are finished and kept."
    return None


def _kept_features(path: Path) -> FeatureSet | None:
    """Return the features stored at a path; None if there are none, or if they are damaged, which is reported."""
    if not path.exists():
        return None
    try:
        with cache.using(path):
            features = read_features(path)
        if features.digest != path.stem:
            raise FeaturesError(f"{path} holds features of other work; expected those that its name stands for.")
    except FileNotFoundError:  # evicted at this moment
        return None
    except (OSError, FeaturesError) as error:
        print(f"The cached features are made again: {error}", file=sys.stderr, flush=True)
        return None
    return features


def extract(
    plan: Plan,
    settings: Settings,
    *,
    recompute: bool = False,
    follow_stability: bool = True,
    asked: Asked | None = None,
    engine: Engine | None = None,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    on_report: OnReport | None = None,
) -> FeatureSet:
    """Run a plan and return the features with their provenance.

    It uses finished parts of the same extraction, whatever stopped it, and of one with fewer samples per class.

    Args:
        recompute: Compute all parts anew.
        follow_stability: Estimate during the work how stable the order is, if that costs little. A plan that stops at a
            stable order always does this.
        asked: What the plan is of, if not of features.
        engine: Makes the parts; None: `engine_for` chooses.
        on_progress: Called as (done, total, stage).
        should_stop: Asked before each batch, and during an estimate of the stability; finished parts are kept.
        on_report: Called after each part with the state of the extraction besides its progress.

    Raises:
        CheckpointError: The weights do not fit config.json.
        DatasetError: No sample could be read, or from some point on none could.
        FeaturesError: A part cannot be written, or the dataset or checkpoint has changed since this extraction was
            stopped.
        HubError: A download failed.
        Cancelled: `should_stop` returned true.
    """
    folder = _part_folder(plan, settings)
    note = Note.of(plan, folder.path)
    note.check_unchanged(give_up=recompute)
    # Parts from a stopped recomputation are new already.
    if recompute and not note.is_recomputing:
        folder.remove(plan.parts)
    note.write(finished=False, recomputing=recompute or note.is_recomputing)
    with cache.using(folder.path):
        parts = _Parts(asked or here.Extraction.of(plan), plan, settings, folder, engine, on_progress, should_stop)
        monitor = Monitor(plan, follow=follow_stability, should_stop=should_stop)
        report = _Reporter(plan, parts, on_report)
        found, rounds = Found(folder), 0
        with contextlib.closing(iter(parts)) as finished:
            for part, made in finished:
                found.take(part, made)
                rounds = part.rounds
                stable = monitor.take(part, made)
                report.tell(made, monitor)
                if stable:
                    break
        monitor.finish(rounds)
        report.tell(None, monitor)
        whole = found.whole(plan)
        if (outcome := monitor.outcome()) is not None:
            whole = replace(whole, provenance={**whole.provenance, "stability": outcome.to_json()})
        note.write(finished=True)
    return whole


def _part_folder(plan: Plan, settings: Settings) -> PartFolder:
    return PartFolder(settings.cache / "parts" / plan.part_digest, plan.part_digest)


def engine_for(parts: Sequence[Part]) -> Engine:
    """Return the engine for these parts: one process per GPU if several GPUs can be used, else this process."""
    return gpus.make if min(len(usable_gpus()), len(parts)) > 1 else here.make


class _Parts:
    """The parts of a plan in the order of the work; finished ones are read, the others computed now."""

    def __init__(
        self,
        asked: Asked,
        plan: Plan,
        settings: Settings,
        folder: PartFolder,
        engine: Engine | None,
        on_progress: Progress | None,
        should_stop: ShouldStop | None,
    ) -> None:
        self._engine = engine
        self._plan, self._folder, self._should_stop = plan, folder, should_stop
        self._on_progress = on_progress
        self._finished: set[str] = set()
        self._missing: list[Part] = []
        for part in plan.parts:
            features = folder.read(part)
            if features is not None and worth_another_try(plan, features):
                # Removed, so that an engine does not take the old file for the new one.
                folder.remove([part])
                features = None
            if features is None:
                self._missing.append(part)
            else:
                self._finished.add(part.name)
        self.total = sum(len(part.samples) for part in plan.parts)
        self.made = 0
        """Samples whose features were computed now."""
        self.reused = self.total - sum(len(part.samples) for part in self._missing)
        """Samples whose features were stored already."""
        self._work = EngineWork(
            asked, plan, settings, folder, self._missing, on_progress=self._tell, should_stop=should_stop
        )
        self.making = self._work.making
        self._first: tuple[float, int] | None = None
        self._done = 0

    def __iter__(self) -> Generator[tuple[Part, FeatureSet], None, None]:
        engine = self._engine or engine_for(self._missing)
        with contextlib.closing(engine(self._work)) as new:
            for part in self._plan.parts:
                if self._should_stop and self._should_stop():
                    raise Cancelled("Extraction was cancelled.")
                while part.name not in self._finished:
                    made = next(new)
                    self._finished.add(made.name)
                    self.made += len(made.samples)
                # Each is read in its turn: all at once, they may not fit into memory.
                features = self._folder.read(part)
                if features is None:
                    raise FeaturesError(
                        f"A part in {self._folder.path} was damaged after it was written; extract again."
                    )
                yield part, features

    @property
    def rate(self) -> float | None:
        """Samples per second since the encoder was loaded; None if not known yet."""
        busy_s = self.making.waited_s + self.making.encoded_s
        if busy_s:
            return self.made / busy_s
        if self._first is None or self._done == self._first[1]:
            return None
        return (self._done - self._first[1]) / (time.monotonic() - self._first[0])

    def _tell(self, done: int, total: int | None, stage: Stage) -> None:
        """Pass progress on, including the samples that were stored already."""
        if stage.kind == Kind.ENCODE:
            self._done = done
            self._first = self._first or (time.monotonic(), done)
            done += self.reused
        if self._on_progress:
            self._on_progress(done, total, stage)


class _Reporter:
    """Reports the state of a running extraction, besides its progress, after each part."""

    def __init__(self, plan: Plan, parts: _Parts, on_report: OnReport | None) -> None:
        self._plan, self._parts, self._on_report = plan, parts, on_report
        self._reasons: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._failed = 0

    def tell(self, features: FeatureSet | None, monitor: Monitor) -> None:
        """Take in the next part, if any, and report the state."""
        for problem in features.failures if features else ():
            kind = re.sub(r"\d+", "#", problem.reason.replace(problem.subject, ""))
            self._reasons[kind] += 1
            self._examples.setdefault(kind, problem.reason)
            self._failed += 1
        if self._on_report:
            self._on_report(self._values(monitor))

    def _values(self, monitor: Monitor) -> ExtractionReport:
        parts, making = self._parts, self._parts.making
        provenance = self._plan.provenance
        busy_s = making.waited_s + making.encoded_s
        return ExtractionReport(
            precision=provenance["precision"],
            device=making.encoder.device if making.encoder else self._plan.device.kind,
            device_name=self._plan.device.name,
            runtime=provenance["runtime"],
            encoder_reused=making.encoder.reused if making.encoder else None,
            samples=parts.total,
            reused_samples=parts.reused,
            failed=self._failed,
            reasons=tuple((self._examples[kind], count) for kind, count in self._reasons.most_common(_TOLD_REASONS)),
            waited=round(making.waited_s / busy_s, 4) if busy_s else None,
            rate=round(parts.rate, 3) if parts.rate else None,
            stability=monitor.report,
        )
