"""Dataset + masked autoencoder -> a patch ranker: request -> plan -> run -> a folder in Hugging Face format."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from labelrank import hub
from labelrank.data import open_dataset
from labelrank.data.dataset import NOUNS, Dataset
from labelrank.errors import DatasetError, SettingsError
from labelrank.features.store import unnamed
from labelrank.json_values import plain
from labelrank.models.backend import devices, preferred_backend, select_backend
from labelrank.models.cost import encoder_flops, reconstruction_flops
from labelrank.patches.ranker import kept_rankers, open_ranker
from labelrank.patches.ranker_config import RankerConfig
from labelrank.patches.ranker_recipe import RankerEpoch, RankerRecipe, RankerResult, recipe_for
from labelrank.progress import Kind, Progress, ShouldStop, Stage
from labelrank.settings import Settings
from labelrank.steps.extract.request import Request
from labelrank.steps.patches import ScorePlan, Scoring, reliability_of, score
from labelrank.steps.patches import plan as plan_scores
from labelrank.steps.pretrain import held_run, new_folder
from labelrank.times import Work, kind_of

DEFAULT_HELD_OUT, DEFAULT_ROUNDS = 100, 8


@dataclass(frozen=True)
class TrainRequest:
    """What to train a ranker for and on, by name."""

    request: Request
    """Dataset, masked autoencoder, and which samples; what only an extraction has is left at its default."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `RankerRecipe` that differ from the recipe for this dataset."""
    held_out: int = DEFAULT_HELD_OUT
    """Samples on which the ranker is compared with its teacher, about: of another split, or else left out."""
    rounds: int = DEFAULT_ROUNDS
    """How often the teacher scores each patch of these; more make the comparison more reliable."""

    def __post_init__(self) -> None:
        for name, number in (("held-out samples", self.held_out), ("rounds", self.rounds)):
            if number < 2:
                raise SettingsError(f"The number of {name} is {number}; expected at least 2.")

    def to_params(self) -> dict[str, Any]:
        """Return the parameters of a job of the kind train-patches; `from_params` is the inverse."""
        request = {one.name: getattr(self.request, one.name) for one in fields(Request)}
        value: dict[str, Any] = plain(
            {**request, "recipe": self.changes, "held_out": self.held_out, "rounds": self.rounds}
        )
        return value

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> TrainRequest:
        """Return the request in a job's parameters."""
        known = {one.name for one in fields(RankerRecipe)}
        return cls(
            Request.from_params(params),
            {name: value for name, value in (params.get("recipe") or {}).items() if name in known},
            params.get("held_out", DEFAULT_HELD_OUT),
            params.get("rounds", DEFAULT_ROUNDS),
        )


@dataclass(frozen=True)
class TrainPlan:
    """A training whose dataset, masked autoencoder and settings fit. Nothing has run yet."""

    dataset: Dataset
    """The samples to train on."""
    reference: ScorePlan
    """The teacher's scores of the held-out samples."""
    recipe: RankerRecipe
    config: RankerConfig
    rounds: int

    @property
    def flops(self) -> float:
        """Floating-point operations of the whole training, about."""
        teacher = self.reference.checkpoint.config
        count = self.reference.visible * teacher.num_slices
        lists = self.recipe.lists * (1 + count) * reconstruction_flops(teacher, count)
        # The backward pass is two forward passes.
        each = lists + 3 * encoder_flops(self.config.encoder)
        held_out = len(self.reference.dataset.samples) * self.reference.flops
        return self.recipe.epochs * len(self.dataset.samples) * each + held_out

    @property
    def kind_of_work(self) -> str:
        """What kind of work it is, as `labelrank.times` has it."""
        teacher = self.reference.checkpoint.config
        return kind_of("train a ranker", devices()[0].name, size=reconstruction_flops(teacher, self.reference.visible))

    @property
    def made_with(self) -> dict[str, Any]:
        """What the ranker's config.json says of teacher and data."""
        facts = self.reference.provenance
        data = {**facts["dataset"], "split": self.dataset.split, "selection": self.dataset.selection}
        data["digest"] = self.dataset.digest
        held_out = {name: facts["dataset"][name] for name in ("split", "selection", "digest")}
        return {
            "teacher": facts["checkpoint"],
            "data": data,
            "sampling": facts["sampling"],
            "held_out": {**held_out, "samples": len(self.reference.dataset.samples), "rounds": self.rounds},
            "runtime": facts["runtime"],
        }

    @property
    def digest(self) -> str:
        """What the run is found by; its snapshot knows more exactly what it is of."""
        made = self.made_with
        return sha256(repr(({**made, "data": unnamed(made["data"])}, self.recipe)).encode()).hexdigest()

    @property
    def name(self) -> str:
        """A name for the ranker in the workspace."""
        parts = (self.dataset.id, self.reference.checkpoint.id)
        words = "-".join("".join(c if c.isalnum() or c in "-_." else "-" for c in part)[-40:] for part in parts)
        return f"ltrp-{words}-{self.digest[:8]}".lower()


def plan(request: TrainRequest, settings: Settings) -> TrainPlan:
    """Return the plan for training a ranker. It does not load Keras.

    Raises:
        DatasetError, CheckpointError, HubError: The dataset or the checkpoint cannot be used; the checkpoint has no
            decoder; there are too few samples.
        SettingsError: A setting does not fit, or no backend here can train.
    """
    asked = request.request
    backend = preferred_backend(training=True)
    whole = open_dataset(asked.dataset, asked.options, settings=settings)
    # Checks all that does not depend on which samples are held out.
    scoring = Scoring(request.changes.get("visible"), request.rounds, request.changes.get("variant", "exact"))
    checked = plan_scores(
        replace(asked, allow_empty_classes=True, precision="float32"), scoring, settings, dataset=whole
    )
    recipe = replace(recipe_for(whole), **request.changes).for_teacher(checked.checkpoint.config)
    split = next((name for name in ("val", "test") if name in whole.splits and name != whole.split), None)
    dataset = whole.select(asked.max_per_class, asked.seed)
    if split:
        others = open_dataset(asked.dataset, replace(asked.options, split=split), settings=settings)
        held_out = others.select(_per_class(others, request.held_out), asked.seed)
    else:
        dataset, held_out = _divided(dataset, request.held_out, asked.seed)
    if len(dataset.samples) < recipe.batch_size:
        nouns = NOUNS[whole.media][1]
        raise DatasetError(
            f"{whole.id} has {len(dataset.samples)} {nouns} to train on, fewer than one batch of {recipe.batch_size}; "
            "lower --batch-size or add some."
        )
    reference = plan_scores(
        replace(asked, split=split or asked.split, max_per_class=None),
        replace(scoring, visible=recipe.visible, variant=recipe.variant),
        settings,
        dataset=held_out,
    )
    reference = replace(reference, provenance={**reference.provenance, "runtime": backend})
    config = RankerConfig.of_size(recipe.size, reference.checkpoint.config, recipe.head)
    return TrainPlan(dataset, reference, recipe, config, request.rounds)


def _per_class(dataset: Dataset, total: int) -> int:
    return -(-total // max(1, int(np.count_nonzero(dataset.class_counts))))


def _divided(dataset: Dataset, held_out: int, seed: int) -> tuple[Dataset, Dataset]:
    """Return a dataset without some of its samples, and these: at most a fifth."""
    most = max(2, min(held_out, len(dataset.samples) // 5))
    chosen = dataset.select(_per_class(dataset, most), seed)
    keys = {sample.key for sample in chosen.samples[:most]}
    rule = f"{most} held out, seed {seed}"
    said = dataset.selection if dataset.selection != "all" else ""
    rest = tuple(sample for sample in dataset.samples if sample.key not in keys)
    return (
        replace(dataset, samples=rest, selection=", ".join(filter(None, (said, f"without {rule}")))),
        replace(
            dataset,
            samples=tuple(sample for sample in dataset.samples if sample.key in keys),
            selection=", ".join(filter(None, (said, rule))),
        ),
    )


def train(
    work: TrainPlan,
    out: Path,
    settings: Settings,
    *,
    command: str,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    on_epoch: Callable[[tuple[RankerEpoch, ...]], None] | None = None,
) -> RankerResult:
    """Train a ranker and write it, completely or not at all.

    The workspace keeps the held-out scores, and the run after each epoch until the ranker is written: a stopped one
    goes on from there to the same weights.

    Args:
        out: A new or empty folder.
        command: The command that made the ranker, for its card.

    Raises:
        CheckpointError: `out` exists and is not empty, or cannot be written.
        As `labelrank.patches.training.train_ranker` and `labelrank.steps.patches.score`.
    """
    select_backend(training=True)
    from labelrank.patches.training import HeldOut, train_ranker  # loads Keras

    reference = work.reference
    kept = settings.cache / "runs" / f"patches-{work.digest}"
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(new_folder(out))
        stack.enter_context(held_run(kept))
        scores = score(reference, settings, on_progress=on_progress, should_stop=should_stop)
        if work.dataset.fetch:
            work.dataset.fetch(work.dataset.samples, on_progress, should_stop)
        by_key = {sample.key: sample for sample in reference.dataset.samples}
        result = train_ranker(
            work.dataset,
            reference.checkpoint,
            work.recipe,
            folder,
            preprocessing=reference.preprocessing,
            sampling=reference.sampling,
            held_out=HeldOut(
                tuple(by_key[key] for key in scores.keys),
                reference.dataset,
                np.asarray(scores.X),
                work.rounds,
                reliability_of(scores),
            ),
            made_with=work.made_with,
            command=command,
            snapshot=kept / "last.safetensors",
            on_progress=on_progress,
            should_stop=should_stop,
            on_epoch=on_epoch,
        )
    shutil.rmtree(kept, ignore_errors=True)
    return result


def run_job(
    params: Mapping[str, Any],
    *,
    settings: Settings,
    on_progress: Progress,
    should_stop: ShouldStop,
    on_report: Callable[[Mapping[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Do a training job and return `{"ranker": its name in the workspace, "result": RankerResult as JSON values}`.

    Beside them, `work` is what it has trained.

    Args:
        params: As `TrainRequest.to_params` returns them.
        on_report: Called after each epoch with `{"epochs": [RankerEpoch, ...]}` so far.

    A ranker that the same job has made before is kept.
    """
    on_progress(0, None, Stage(Kind.READ, "Reading the dataset"))
    with hub.telling(lambda text: on_progress(0, None, Stage(Kind.READ, text)), should_stop):
        request = TrainRequest.from_params(params)
        work = plan(request, settings)
        out = kept_rankers(settings) / work.name
        result = open_ranker(work.name, settings).training if out.is_dir() else None
        done = None if result else Work(work.kind_of_work, work.flops)
        if result is None:
            out.parent.mkdir(parents=True, exist_ok=True)
            result = train(
                work,
                out,
                settings,
                command=_command(work, request),
                on_progress=on_progress,
                should_stop=should_stop,
                on_epoch=(lambda epochs: on_report({"epochs": plain(epochs)})) if on_report else None,
            )
    return {"ranker": work.name, "result": result.to_json(), "work": plain(done)}


def _command(work: TrainPlan, request: TrainRequest) -> str:
    """Return the command that does the same as a job, without paths of this computer."""
    asked, default = request.request, Request("", "")
    options: dict[str, Any] = {
        name: value
        for name in ("split", "config", "revision", "media_column", "label_column", "max_per_class", "seed", "stride")
        if (value := getattr(asked, name)) != getattr(default, name)
    }
    options |= {name: value for name, value in request.changes.items() if name != "flip"}
    options |= {"held_out": request.held_out, "rounds": request.rounds}
    flip = {True: ["--flip"], False: ["--no-flip"]}.get(request.changes.get("flip"), [])  # type: ignore[arg-type]
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    teacher = work.reference.checkpoint.id
    return shlex.join(["labelrank", "patches", "train", work.dataset.id, "--checkpoint", teacher, *words, *flip])
