"""The model to download: from the runs of one order, the best one on the validation rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labelrank.errors import CheckpointError, LabelRankError
from labelrank.features.store import KEPT
from labelrank.files import replacing, replacing_folder
from labelrank.finetune.design import Arm
from labelrank.finetune.runs import Run
from labelrank.models.backend import select_backend
from labelrank.models.checkpoint import Checkpoint
from labelrank.models.runtime import build_encoder
from labelrank.notices import Notice
from labelrank.patches.choosing import kept_text
from labelrank.steps.finetune.material import Material
from labelrank.steps.finetune.origins import NO_MODEL
from labelrank.steps.finetune.request import ONE_HOT, Design
from labelrank.steps.finetune.results import KERAS_MODEL, MODEL

_NOTE = "best.json"


class Exporter:
    """Writes the best model of one arm into a folder as `model/` and `model.keras`.

    Args:
        folder: Where the best model so far is, or will be; created when it is written.
    """

    def __init__(self, material: Material, design: Design, arms: Sequence[Arm], folder: Path) -> None:
        self._material, self._design, self._folder = material, design, folder
        self._arms = arms
        self._arm = next((arm for arm in arms if arm.kind == design.subject), arms[0])

    @property
    def arm(self) -> str:
        """The arm whose models are written: what the comparison is about, or the first arm if it is not there."""
        return self._arm.name

    @property
    def in_full(self) -> tuple[str, ...]:
        """Arms whose runs are kept with their heads and all probabilities: that one, and one-hot targets."""
        return tuple(arm.name for arm in self._arms if arm.name == self.arm or arm.kind == ONE_HOT)

    def offer(self, run: Run, model: Any, val_accuracy: float) -> None:
        """Take a run's complete model, and write it if it is the arm's best so far.

        Raises:
            LabelRankError: The model cannot be written.
        """
        if run.arm != self.arm or run.problem is not None:
            return
        best = _read_note(self._folder / _NOTE)
        if best is not None and best["val_accuracy"] >= val_accuracy:
            return
        from labelrank.finetune.export import write_model

        (self._folder / _NOTE).unlink(missing_ok=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_model(self._folder / MODEL, model, **self._said(run, val_accuracy))
        self._write_note(run, val_accuracy)

    def take(self, files: Mapping[str, bytes]) -> None:
        """Take what `offer` has written elsewhere, by name, if it is the arm's best so far.

        Raises:
            CheckpointError: It cannot be written.
        """
        best = _read_note(self._folder / _NOTE)
        if best is not None and best["val_accuracy"] >= json.loads(files[_NOTE])["val_accuracy"]:
            return
        try:
            with replacing_folder(self._folder) as partial:
                for name, content in files.items():
                    (partial / name).parent.mkdir(parents=True, exist_ok=True)
                    (partial / name).write_bytes(content)
        except OSError as error:
            raise CheckpointError(
                f"The model cannot be written to {self._folder} ({error.strerror or error}). Make room."
            ) from error

    def best(self, runs: Sequence[Run], say: Callable[[str], None]) -> tuple[Path | None, tuple[Notice, ...]]:
        """Return the folder with the best model, or None, and notices about it.

        Args:
            runs: Finished runs. If they trained heads, the best head is joined with its encoder now.
            say: Called with a text on the present action.
        """
        if self._design.end_to_end:
            return self._best_written(runs)
        if self._material.encoder is None:
            return None, ()
        whole = [run for run in runs if run.arm == self.arm and run.problem is None and run.head]
        if not whole:
            return None, self._none_finished()
        say("Writing the model")
        best = max(whole, key=_last_accuracy)
        try:
            self._write_head(best)
        except LabelRankError as error:
            return None, (Notice(NO_MODEL, f"No model was written: {error}"),)
        return self._folder, self._cautions()

    def _best_written(self, runs: Sequence[Run]) -> tuple[Path | None, tuple[Notice, ...]]:
        """Return the folder that `offer` has written if its model is the best of these runs, else None; and notices."""
        whole = [run for run in runs if run.arm == self.arm and run.problem is None]
        if not whole:
            return None, self._none_finished()
        note = _read_note(self._folder / _NOTE)
        patience = self._design.tune_recipe().patience
        best = max(_counted_accuracy(run, patience) for run in whole)
        if note is None:
            why = "it is no longer kept"
        elif (note.get("arm"), note.get("seed")) not in {(run.arm, run.seed) for run in whole}:
            why = f"the one that is kept is of seed {note.get('seed')}, of another comparison of the same orders"
        elif note["val_accuracy"] < best:
            why = "the one that is kept is not the best of these runs"
        else:
            return self._folder, self._cautions()
        return None, (Notice(NO_MODEL, f"The best run's model is not here: {why}. Recompute to have it."),)

    def _none_finished(self) -> tuple[Notice, ...]:
        text = f"No model was written: no run of the order {self.arm} came to a finite loss. Lower the learning rate."
        return (Notice(NO_MODEL, text),)

    def _cautions(self) -> tuple[Notice, ...]:
        from labelrank.finetune.export import caution_of

        text = caution_of(self._folder / MODEL)
        return (Notice("model_elsewhere", text),) if text else ()

    def _write_head(self, run: Run) -> None:
        select_backend(training=True)
        from labelrank.finetune.export import write_head_model

        made_by = self._material.encoder
        assert made_by is not None
        made_by.checkpoint.fetch(on_progress=None, should_stop=None)

        pooling = self._material.train.provenance.get("pooling", "mean")
        encoder = build_encoder(made_by.checkpoint, image_size=made_by.preprocessing.output_size)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_head_model(
            self._folder / MODEL,
            encoder,
            run.head,
            pooling=pooling,
            meaning=self._design.meaning,
            fc_norm=fc_norm_of(made_by.checkpoint) if pooling == "fc_norm" else None,
            **self._said(run, _last_accuracy(run)),
        )
        self._write_note(run, _last_accuracy(run))

    def _said(self, run: Run, val_accuracy: float) -> dict[str, Any]:
        from labelrank.finetune.export_card import CardFacts

        made_by, material = self._material.encoder, self._material
        assert made_by is not None
        dataset = made_by.dataset_id
        trained = "the head alone, on the features of the frozen encoder"
        if self._design.end_to_end:
            depth = self._design.depth
            blocks = "last block" if depth == "1" else f"last {depth} blocks"
            trained = f"{'the whole encoder' if depth == 'all' else f'the {blocks} of the encoder'}, and the head"
        what, whose = ("Targets", "their") if self._design.compares_targets else ("Order", "this order's")
        test_accuracy = float(np.mean(run.predicted[:, 0] == material.test.y))
        return {
            "order": self._arm.order,
            "class_names": material.class_names,
            "preprocessing": made_by.preprocessing,
            "label_map": material.label_map if self._arm.kind == "ranked" else None,
            "keras_file": self._folder / KERAS_MODEL,
            "facts": CardFacts(
                title=f"{made_by.checkpoint.id}, fine-tuned" + (f" on {dataset}" if dataset else ""),
                dataset=dataset,
                base_model=made_by.checkpoint.id,
                licence=made_by.checkpoint.licence,
                masked_pretraining=made_by.checkpoint.masked_pretraining,
                lines=(
                    f"Trained: {trained}; {len(material.train.y):,} samples.",
                    *self._kept_line(),
                    f"{what} {self.arm}, seed {run.seed}: of {whose} seeds the one that did best on the validation "
                    "samples.",
                    f"Accuracy on {len(material.val.y):,} validation samples: {100 * val_accuracy:.2f} %.",
                    f"Accuracy on {len(material.test.y):,} test samples, which had no part in that choice: "
                    f"{100 * test_accuracy:.2f} %.",
                    *self._temperature_line(run),
                ),
            ),
        }

    def _kept_line(self) -> tuple[str, ...]:
        """Return which patches the model was trained on, in a sentence, where it takes more now."""
        made_by, kept = self._material.encoder, self._material.train.provenance.get(KEPT)
        if self._design.end_to_end and made_by is not None:
            kept = made_by.choosing.provenance if made_by.choosing else None
        if kept is None or kept["count"] == kept["of"]:
            return ()
        return (
            f"Trained and tested on {kept_text(kept)}. These files take all patches, with which accuracy may differ.",
        )

    def _temperature_line(self, run: Run) -> tuple[str, ...]:
        """Return what makes probabilities of the outputs fit, in a sentence, where outputs are logits."""
        from labelrank.finetune.meanings import LOGIT_MEANINGS

        if run.temperature is None or self._design.meaning not in LOGIT_MEANINGS:
            return ()
        return (
            f"Temperature: logits divided by {run.temperature:.3g} give probabilities that fit the validation samples.",
        )

    def _write_note(self, run: Run, val_accuracy: float) -> None:
        note = {"arm": run.arm, "seed": run.seed, "val_accuracy": val_accuracy}
        with replacing(self._folder / _NOTE) as partial:
            partial.write_text(json.dumps(note), encoding="utf-8")


def fc_norm_of(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Return scale and shift of the norm in a checkpoint's head, by `HEAD_NORM`."""
    from labelrank.models.convert import read_head_norm

    return read_head_norm(checkpoint.tensors(), checkpoint.config, source=checkpoint.source)


def _last_accuracy(run: Run) -> float:
    return run.epochs[-1].val_accuracy


def _counted_accuracy(run: Run, patience: int | None) -> float:
    """Return the validation accuracy of an encoder's run after the epoch whose weights are used."""
    epoch = run.epochs[-1] if patience is None else min(run.epochs, key=lambda epoch: epoch.val_loss)
    return epoch.val_accuracy


def _read_note(path: Path) -> dict[str, Any] | None:
    try:
        note = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and isinstance(note.get("val_accuracy"), float) else None
