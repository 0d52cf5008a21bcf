"""Train a comparison's encoders, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from labelrank.errors import FinetuneError
from labelrank.finetune.design import Arm
from labelrank.finetune.recipe import HeadRecipe, to_dict
from labelrank.finetune.runs import Epoch, Run
from labelrank.models.runtime import build_encoder
from labelrank.notices import Notice
from labelrank.progress import ShouldStop, Stage
from labelrank.steps.finetune.best_model import fc_norm_of
from labelrank.steps.finetune.finished_runs import KeptRuns
from labelrank.steps.finetune.heads import Softness, spacing_of
from labelrank.steps.finetune.material import Material
from labelrank.steps.finetune.progress import Live
from labelrank.steps.finetune.request import Design
from labelrank.steps.finetune.runs_engine import Block, Place, RunsWork, place_here

if TYPE_CHECKING:
    from labelrank.finetune.end_to_end import Choose
    from labelrank.finetune.samples import TrainingSamples

_CHOSEN_AT_ONCE = 16
"""Inputs of which a model chooses the patches at once, whatever the size of an update."""


class EndToEnd:
    """Fine-tunes encoders, one run after the other."""

    kind = "end-to-end"

    def __init__(self, material: Material, design: Design, place: Callable[[str], Place] = place_here) -> None:
        if material.encoder is None or material.datasets is None:
            raise FinetuneError("An end-to-end fine-tune needs the data and the checkpoint of the features; give both.")
        self._material, self._design = material, design
        self._encoder, self._datasets = material.encoder, material.datasets
        self._recipe = design.tune_recipe(self._encoder.dataset_id)
        self.recipe: Mapping[str, Any] = to_dict(self._recipe)
        self.epochs = self._recipe.epochs
        self.updates = -(-len(material.train.y) // self._recipe.batch_size)
        learns = place(self._recipe.precision)
        self.runtime, self.precision, self.device = learns.runtime, learns.precision, learns.device
        self.softness = Softness(material, design, self._choosing) if design.compares_targets else None
        self._samples: Mapping[str, TrainingSamples] = {}
        self._choose: Choose | None = None
        self._steps = 1

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines the runs besides rows, orders and seeds."""
        encoder = self._encoder
        return {
            "recipe": self.recipe,
            "checkpoint": encoder.checkpoint.digest,
            "preprocessing": encoder.preprocessing.to_config(),
            "sampling": asdict(encoder.sampling) if encoder.sampling else None,
            "pooling": self._pooling,
            "precision": self.precision,
            "runtime": self.runtime,
            "device": self.device,
            **({"kept": encoder.choosing.provenance} if encoder.choosing else {}),
            **({**self.softness.identity, "choosing": to_dict(self._choosing)} if self.softness else {}),
        }

    @property
    def _choosing(self) -> HeadRecipe:
        """The recipe of the heads on frozen features that choose how soft targets are."""
        from labelrank.finetune.head_sizes import recipe_for

        n_train, n_features = self._material.train.X.shape
        return recipe_for(n_train, n_features, len(self._material.class_names))

    @property
    def _pooling(self) -> str:
        return str(self._material.train.provenance.get("pooling", "mean"))

    def blocks(self, arms: Sequence[Arm], seeds: Sequence[int], kept: KeptRuns) -> list[Block]:
        """Return what is left to train: one run at a time, all arms of a seed before the next seed."""
        return [Block((arm,), (seed,)) for seed in seeds for arm in arms if not kept.has(arm.name, seed)]

    def train(self, block: Block, work: RunsWork) -> Sequence[Run]:
        """Train the run of a block and return it; its model is offered to the exporter.

        Raises:
            As `labelrank.finetune.end_to_end.fine_tune`.
        """
        from labelrank.finetune.end_to_end import fine_tune, forget_runs

        (arm,), (seed,), live = block.arms, block.seeds, work.live
        if not self._samples:
            self._prepare(work)
        encoder = self._encoder

        def follow(epoch: Epoch) -> None:
            live.epoch(arm.name, seed, epoch.epoch, epoch.val_accuracy, epoch.val_loss)
            live.tell(force=True)

        def count(done: int, total: int | None, stage: Stage) -> None:
            live.updates(arm.name, seed, done)
            live.tell()

        tuned = fine_tune(
            self._build_encoder,
            self._samples["train"],
            self._samples["val"],
            self._samples["test"],
            arm,
            seed,
            self._recipe,
            meaning=self._design.meaning,
            bandwidth=self._design.bandwidth,
            unit=self._design.unit,
            spacing=spacing_of(self._material),
            pooling=self._pooling,
            fc_norm=fc_norm_of(encoder.checkpoint) if self._pooling == "fc_norm" else None,
            targets=work.targets[arm.name] if work.targets else None,
            choose=self._choose,
            kept=encoder.choosing.provenance if encoder.choosing and self._choose else None,
            in_full=arm.name in work.exporter.in_full,
            n_classes=len(self._material.class_names),
            folder=work.kept.snapshots(arm.name, seed),
            steps=self._steps,
            on_epoch=follow,
            on_progress=count,
            should_stop=work.should_stop,
            on_notice=lambda text: live.notices.append(Notice("training", text)),
        )
        self._steps, run = tuned.steps, tuned.run
        if tuned.epoch is not None:
            self._check_rows(tuned.keys)
            work.exporter.offer(run, tuned.model, tuned.epoch.val_accuracy)
        del tuned
        forget_runs()
        return (run,)

    def _prepare(self, work: RunsWork) -> None:
        """Download checkpoint and media, and build what all runs use."""
        from labelrank.finetune.samples import TrainingSamples

        self._fetch(work.live, work.should_stop)
        encoder = self._encoder
        if encoder.choosing and not encoder.choosing.keeps_all:
            self._choose = encoder.choosing.chooser(
                encoder.checkpoint, encoder.preprocessing, batch_size=_CHOSEN_AT_ONCE, training=True
            )
        self._samples = {
            role: TrainingSamples(dataset, encoder.preprocessing, encoder.sampling)
            for role, dataset in self._datasets.items()
        }

    def _check_rows(self, keys: Sequence[str]) -> None:
        """Raise FinetuneError if a test sample of the features could not be read: runs could not be compared."""
        wanted = self._material.test.keys
        if lost := [key for key in wanted if key not in set(keys)]:
            raise FinetuneError(
                f"{len(lost):,} of the {len(wanted):,} test samples can no longer be read, such as {lost[0]!r}. Make "
                "sure that the data is still there, or extract again. Finished runs are kept."
            )

    def _fetch(self, live: Live, should_stop: ShouldStop | None) -> None:
        """Download checkpoint and media before the first run."""
        self._encoder.checkpoint.fetch(on_progress=live.on_progress, should_stop=should_stop)
        for dataset in self._datasets.values():
            if dataset.fetch:
                dataset.fetch(dataset.samples, live.on_progress, should_stop)

    def _build_encoder(self, **options: Any) -> Any:
        return build_encoder(self._encoder.checkpoint, image_size=self._encoder.preprocessing.output_size, **options)
