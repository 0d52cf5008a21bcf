"""Dataset + checkpoint -> scores of the patches of each sample: plan -> parts -> result, as an extraction."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from labelrank import cache
from labelrank.data.dataset import NOUNS, Dataset, Sample
from labelrank.errors import CheckpointError, SettingsError
from labelrank.features.encode import Encoded, compute_parts
from labelrank.features.parts import Part
from labelrank.features.store import PATCHES, FeatureSet
from labelrank.models.cost import reconstruction_flops
from labelrank.models.device import Device
from labelrank.patches.ranker_recipe import VARIANTS
from labelrank.patches.scorer import PatchScorer, check_decoder
from labelrank.patches.visible_sets import check_visible, default_visible, num_places, reliability, split_half
from labelrank.progress import Kind, Progress, ShouldStop, Stage
from labelrank.settings import Settings
from labelrank.steps.extract.engines import Engine, EngineWork
from labelrank.steps.extract.engines.keeping import kept_parts
from labelrank.steps.extract.plan import Plan
from labelrank.steps.extract.plan import plan as plan_extraction
from labelrank.steps.extract.request import Request
from labelrank.steps.extract.run import extract


@dataclass(frozen=True)
class Scoring:
    """How patches are scored."""

    visible: int | None = None
    """Places that are visible at once, in a clip those of each slice; None: a tenth."""
    rounds: int = 2
    """How often each patch is scored, each time among others; one round alone says nothing of its reliability."""
    variant: str = "exact"

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise SettingsError(f"Variant is {self.variant!r}; choose one of {', '.join(VARIANTS)}.")
        if self.rounds < 1:
            raise SettingsError(f"The number of rounds is {self.rounds}; expected at least 1.")


@dataclass(frozen=True)
class ScorePlan(Plan):
    """A plan whose dataset, checkpoint and numbers of patches fit. Nothing has run yet."""

    scoring: Scoring

    @property
    def visible(self) -> int:
        """Places that are visible at once."""
        given = self.scoring.visible
        return default_visible(self.checkpoint.config) if given is None else given

    @property
    def flops(self) -> float:
        """Floating-point operations of one sample, about."""
        config = self.checkpoint.config
        count = self.visible * config.num_slices
        sets = self.scoring.rounds * -(-num_places(config) // self.visible)
        return sets * (1 + count) * reconstruction_flops(config, count)

    @property
    def batch_size(self) -> int:
        """A sample is scored by itself."""
        return 1


def plan(
    request: Request,
    scoring: Scoring,
    settings: Settings,
    *,
    dataset: Dataset | None = None,
    device: Device | None = None,
) -> ScorePlan:
    """Return the plan for scoring the patches of what a request names. It does not load Keras.

    Args:
        dataset: The dataset that the request names, if it is open already.
        device: Of the machines that compute it, if not this one does.

    Raises:
        DatasetError, CheckpointError, HubError: The dataset or the checkpoint cannot be used; the checkpoint has no
            decoder, or is of another image size than its preprocessing.
        SettingsError: A setting does not fit the encoder, such as the number of visible patches.
    """
    found = plan_extraction(request, settings, dataset=dataset, device=device)
    config = found.checkpoint.config
    check_decoder(found.checkpoint)
    if found.preprocessing.output_size != config.image_size:
        height, width = found.preprocessing.output_size
        raise CheckpointError(
            f"{found.checkpoint.id} reconstructs {config.image_size[0]} x {config.image_size[1]} pixels, not the "
            f"{height} x {width} that were asked for. Score patches at the checkpoint's own image size."
        )
    made = ScorePlan(**{field.name: getattr(found, field.name) for field in fields(found)}, scoring=scoring)
    check_visible(made.visible, config)
    how = {**asdict(scoring), "visible": made.visible, "seed": request.seed, "distance": "l1"}
    how["grid"] = [config.num_slices, *config.grid_size]
    provenance = {name: value for name, value in found.provenance.items() if name != "pooling"}
    return replace(made, provenance={**provenance, "precision": "float32", PATCHES: how})


def score(
    work: ScorePlan,
    settings: Settings,
    *,
    recompute: bool = False,
    engine: Engine | None = None,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> FeatureSet:
    """Return the mean score of each patch, X (n, N), of all samples, with the provenance of an extraction.

    Its entry `patches` says how: variant, visible places, rounds, seed and grid (slices, rows, columns), in whose
    reading order the scores are. `split_half` has the mean over `samples` of Spearman's correlation between the scores
    of the odd and of the even rounds. Finished parts of the same work are used, whatever stopped it.

    Raises:
        As `steps.extract.run.extract`.
    """
    try:
        return extract(
            work,
            settings,
            recompute=recompute,
            follow_stability=False,
            asked=_Asked(work.request, work.scoring),
            engine=engine,
            on_progress=on_progress,
            should_stop=should_stop,
        )
    finally:
        cache.evict(settings)


def reliability_of(scores: FeatureSet) -> float | None:
    """Return how reliable the scores of a sample are (`patches.visible_sets.reliability`); None if unknown."""
    half = scores.provenance.get("split_half")
    return reliability(np.array([half["mean"]])) if half and half["samples"] else None


@dataclass(frozen=True)
class _Asked:
    """What is asked where patches are scored, as `engines.Asked` says."""

    request: Request
    scoring: Scoring

    def plan(self, settings: Settings) -> ScorePlan:
        """Return the plan as it is here."""
        return plan(self.request, self.scoring, settings)

    def maker(self, plan: Plan, settings: Settings) -> Engine:
        """Return what makes parts in this process."""
        assert isinstance(plan, ScorePlan)
        return _Maker(plan)

    def stage(self, dataset: Dataset) -> Stage:
        """Return the stage of making parts, counted in samples."""
        return Stage(Kind.ENCODE, "Scoring patches", NOUNS[dataset.media][1])


class _Maker:
    """Scores parts of a plan in this process, with an autoencoder that is compiled once."""

    def __init__(self, plan: ScorePlan) -> None:
        self._plan = plan
        self._scorer: PatchScorer | None = None

    def __call__(self, work: EngineWork) -> Generator[Part, None, None]:
        """Score parts, as an `Engine` does."""
        plan, parts, scoring = self._plan, work.parts, self._plan.scoring
        if self._scorer is None:
            plan.checkpoint.fetch(on_progress=work.on_progress, should_stop=work.should_stop)
            work.tell(0, Stage(Kind.LOAD, "Loading the autoencoder", work.stage.unit))
            self._scorer = PatchScorer(
                plan.checkpoint,
                visible=plan.visible,
                rounds=scoring.rounds,
                seed=plan.request.seed,
                variant=scoring.variant,
            )
        scorer = self._scorer
        if plan.dataset.fetch:
            plan.dataset.fetch([s for part in parts for s in part.samples], work.on_progress, work.should_stop)
        halves: dict[str, float] = {}

        def compute(samples: Sequence[Sample], inputs: np.ndarray) -> np.ndarray:
            scores = []
            for sample, clips in zip(samples, inputs, strict=True):
                of_rounds = scorer(clips[0], sample.key)
                halves[sample.key] = split_half(of_rounds)
                scores.append(of_rounds.mean(axis=0))
            return np.stack(scores)

        def agreement(encoded: Encoded) -> Mapping[str, Any]:
            found = [half for key in encoded.keys if np.isfinite(half := halves.pop(key))]
            return {"split_half": {"mean": float(np.mean(found)) if found else 0.0, "samples": len(found)}}

        computing = compute_parts(
            plan.dataset,
            [part.samples for part in parts],
            compute,
            plan.preprocessing,
            batch_size=1,
            stage=work.stage,
            sampling=plan.sampling,
            on_progress=lambda done, *_: work.tell(done),
            should_stop=work.should_stop,
        )
        with contextlib.closing(computing):
            yield from kept_parts(work, computing, device=scorer.device, more=agreement)
