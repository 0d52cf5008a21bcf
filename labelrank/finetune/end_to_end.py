"""Fine-tune an encoder and its head together, for one order of the classes and one seed.

NumPy draws all random numbers, keyed by seed, purpose and place in the run. So a run gives the same result whatever
else runs, after a resume, and on every backend up to rounding. All orders of one seed share the same draws.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelrank.cores import cpu_cores
from labelrank.data.dataset import NOUNS
from labelrank.errors import Cancelled, FinetuneError, SettingsError, first_line
from labelrank.finetune.augment import drop_path_factors, dropout_factors, generator, mix
from labelrank.finetune.batches import row_sequence
from labelrank.finetune.decision import temperature_of
from labelrank.finetune.design import Arm, check_head_rows
from labelrank.finetune.meanings import Meaning, meaning_of, ordered_thresholds
from labelrank.finetune.memory import gpu_bytes_at_start, step_bytes
from labelrank.finetune.recipe import TuneRecipe, to_dict
from labelrank.finetune.runs import TOP, Epoch, Run
from labelrank.finetune.samples import Reader, TrainingSamples, budget
from labelrank.finetune.soft_targets import check_targets
from labelrank.memory import free_memory_bytes, lacks_memory
from labelrank.models.config import EncoderConfig
from labelrank.models.snapshot import Snapshot, read_snapshot, write_snapshot
from labelrank.progress import Kind, Progress, ShouldStop, Stage

if TYPE_CHECKING:
    from labelrank.finetune.classifier import Classifier
    from labelrank.finetune.tuner import Tuner
    from labelrank.models.vit import ViTEncoder


STAGE = Stage(Kind.TRAIN, "Fine-tuning", "updates")
_LAST, _BEST = "last.safetensors", "best.safetensors"
# Purposes of random generators, so that no two draws of a seed are related.
_KERNEL, _HIDDEN, _ORDER, _SAMPLE, _MIX, _DROP_PATH, _DROPOUT = range(7)
_MAX_READERS = 16
# Share of the free memory that a step may take by the estimate; the rest is for what the estimate does not cover.
_SHARE_OF_MEMORY = 0.8
# Share of NumPy's matmul rate that training reaches on a CPU.
_SHARE_OF_MATMUL = 0.35
# Time of a run beside its steps: its model and step are built and compiled.
_BUILD_S = 3.5
# Cost of the backward pass, as a multiple of the forward pass.
_BACKWARD = 2.0


Choose = Callable[[Sequence[str], np.ndarray], np.ndarray]
"""Takes keys and normalised inputs, (B, H, W, C) or (B, T, H, W, C), and returns the patches of each, int32 (B, V)."""


@dataclass(frozen=True)
class Tuned:
    """The result of a fine-tune."""

    run: Run
    model: Classifier | None
    """Encoder and head with the weights that predicted, in float32; None if the run failed."""
    keys: tuple[str, ...]
    """Keys of the test samples that could be read: the rows of `run.predicted` and `run.nll`."""
    y: np.ndarray
    """Their labels, int32 (n_test,)."""
    epoch: Epoch | None
    """The epoch that the weights are from; None if the run failed."""
    notices: tuple[str, ...]
    steps: int = 1
    """Steps per update at the end of the run; the next run can start with as many."""


def fine_tune(
    build_encoder: Callable[..., ViTEncoder],
    train: TrainingSamples,
    val: TrainingSamples,
    test: TrainingSamples,
    arm: Arm,
    seed: int,
    recipe: TuneRecipe,
    *,
    n_classes: int,
    folder: Path,
    meaning: str = "softmax",
    bandwidth: float = 1.0,
    unit: str = "positions",
    spacing: Sequence[float] | np.ndarray | None = None,
    pooling: str = "mean",
    fc_norm: Mapping[str, np.ndarray] | None = None,
    targets: np.ndarray | None = None,
    choose: Choose | None = None,
    kept: Mapping[str, Any] | None = None,
    in_full: bool = True,
    steps: int = 1,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    on_notice: Callable[[str], None] | None = None,
) -> Tuned:
    """Train one model, choose its weights on `val`, test it once at the end, and return the run.

    An epoch shows every training sample once, in updates of equal size (one sample more or less) of at most
    `recipe.batch_size`. So no sample is dropped, and the samples of a short last update do not count more. With mean
    pooling, the final norm of the encoder moves behind the pooling and keeps its values, as in MAE's and VideoMAE's
    fine-tuning. After each epoch a snapshot goes to `folder`; the same call resumes from it. The run uses the weights
    with the best validation loss if `recipe.patience` is set, else the last ones.

    If an update does not fit into memory, it is cut into more steps whose gradients add up, with a notice.

    Args:
        build_encoder: Called with `dtype`, a Keras dtype policy; returns the encoder, built, with its weights.
        folder: For snapshots of this run only; created if missing. Remove it once the result is stored.
        pooling: mean, cls, or fc_norm, which is the mean, with the norm of the checkpoint's head to start from.
        fc_norm: The tensors of that norm, by name (`labelrank.models.names.HEAD_NORM`); None without one.
        targets: float32 (K, K) by label: row y is the distribution that a sample of class y should have. None: that of
            the meaning. Needs the meaning softmax without smoothing. Mixed samples mix their targets.
        choose: Chooses the patches that are encoded of each input, in training after augmentation and mixing, and does
            not learn. None: all are.
        kept: What determines that choice, and its `count` of patches; as features say it.
        in_full: Whether the run has the probabilities of all classes, and their temperature, which takes another pass
            over the validation samples.
        steps: Minimum steps per update. Give the `Tuned.steps` of an earlier run of the same kind, which fitted into
            memory.
        on_progress: Called as (updates done, updates in all, stage).
        should_stop: Asked before each update.
        on_notice: Called with each notice at once.

    Raises:
        SettingsError: Recipe, arm, pooling or meaning cannot work.
        FinetuneError: No training or test sample can be read, or the snapshot cannot be written.
        Cancelled: `should_stop` returned true; finished epochs are kept in `folder`.

    Source: He et al. 2022, arXiv:2111.06377, Appendix A.1; Tong et al. 2022, arXiv:2203.12602, section 4. Layer-wise
    decay: Bao et al. 2022, arXiv:2106.08254. We draw no RandAugment and repeat no augmentation.
    """
    means = meaning_of(
        meaning,
        n_classes,
        bandwidth=bandwidth,
        unit=unit,
        spacing=spacing,
        label_smoothing=recipe.label_smoothing,
    )
    check_head_rows(arm, means.name, exchangeable=means.exchangeable, batches=recipe.batches)
    if targets is not None:
        if means.name != "softmax" or recipe.label_smoothing:
            raise SettingsError(
                f"Targets go with the meaning softmax without label smoothing, not with {means.name} and "
                f"{recipe.label_smoothing:g}. Leave these out."
            )
        check_targets(targets, arm.name, n_classes)
    for name, split in (("train", train), ("test", test)):
        if not split.dataset.samples:
            raise FinetuneError(f"The {name} split has no {NOUNS[split.dataset.media][1]}; use another one.")
    with ThreadPoolExecutor(min(max(2, cpu_cores()), _MAX_READERS), "reader") as pool:
        tuning = _Tuning(
            build_encoder,
            (train, val, test),
            arm,
            seed,
            recipe,
            means,
            pooling,
            fc_norm,
            targets,
            choose,
            kept,
            in_full,
            folder,
            pool,
            steps,
            on_notice,
        )
        return tuning.run(on_epoch, on_progress, should_stop)


def forget_runs() -> None:
    """Free what Keras and TensorFlow keep of earlier runs, 10 to 30 MB each; models that are still in use go on."""
    import keras

    keras.backend.clear_session()
    gc.collect()  # models are in reference cycles


def estimated_seconds(
    config: EncoderConfig,
    n_train: int,
    n_val: int,
    n_test: int,
    recipe: TuneRecipe,
    *,
    n_runs: int,
    flops_per_s: float,
    keep: int | None = None,
    choosing_flops: float = 0.0,
) -> float:
    """Estimate how long `n_runs` take without early stopping, from the speed of matrix multiplication.

    The estimate is right within a factor of about two; small models and slow media take longer.

    Args:
        keep: How many patches are encoded; None: all.
        choosing_flops: Operations of one input that the choice takes.
    """
    from labelrank.models.cost import encoder_flops

    layers = config.transformer.num_layers
    learning = 1.0 if recipe.unfreeze is None else min(recipe.unfreeze, layers) / layers
    per_epoch = n_train * (1 + _BACKWARD * learning) + n_val
    flops = encoder_flops(config, keep) * (recipe.epochs * per_epoch + n_test)
    flops += choosing_flops * (recipe.epochs * (n_train + n_val) + n_test)
    return n_runs * (_BUILD_S + flops / (flops_per_s * _SHARE_OF_MATMUL))


# --- One run


@dataclass
class _Curve:
    """The epochs of a run so far."""

    epochs: list[Epoch]
    best_loss: float = math.inf
    best_epoch: int = 0
    """0: none yet."""


class _OutOfMemory(Exception):
    """A step did not fit."""


class _Tuning:
    def __init__(
        self,
        build_encoder: Callable[..., ViTEncoder],
        splits: tuple[TrainingSamples, TrainingSamples, TrainingSamples],
        arm: Arm,
        seed: int,
        recipe: TuneRecipe,
        meaning: Meaning,
        pooling: str,
        fc_norm: Mapping[str, np.ndarray] | None,
        targets: np.ndarray | None,
        choose: Choose | None,
        kept: Mapping[str, Any] | None,
        in_full: bool,
        folder: Path,
        pool: ThreadPoolExecutor,
        steps: int,
        on_notice: Callable[[str], None] | None,
    ) -> None:
        self.build_encoder, self.splits, self.arm, self.seed = build_encoder, splits, arm, seed
        self.recipe, self.meaning, self.pooling, self.fc_norm = recipe, meaning, pooling, fc_norm
        self.folder, self._on_notice = folder, on_notice
        self.choose, self.kept = choose, kept
        self.has_targets, self.in_full = targets is not None, in_full
        self.targets = meaning.targets if targets is None else targets[np.ix_(arm.order, arm.order)]
        """Row p: the distribution over positions for a sample at position p, float32 (K, K)."""
        self.notices: list[str] = []
        memory = budget()
        train, val, test = splits
        self.train = Reader(train, memory, pool, recipe)
        self.val, self.test = Reader(val, memory, pool, None), Reader(test, memory, pool, None)
        self.positions = [np.array(arm.position_of)[split.dataset.labels] for split in splits]
        self.updates = _equal_parts(len(train.dataset.samples), recipe.batch_size)
        self.steps = max(steps, min(recipe.accumulation, self.updates.size))
        """Steps per update; their gradients add up."""

    # --- From start to end

    def run(
        self,
        on_epoch: Callable[[Epoch], None] | None,
        on_progress: Progress | None,
        should_stop: ShouldStop | None,
    ) -> Tuned:
        began = time.monotonic()
        self._say_what_is_missing()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FinetuneError(
                f"{self.folder} cannot be created ({error.strerror}). Choose another folder, or make room."
            ) from error
        tuner = self._new_tuner(estimate=True)
        while True:
            try:
                problem = self._train(tuner, on_epoch, on_progress, should_stop)
                break
            except _OutOfMemory as error:
                del tuner
                gc.collect()  # models are in reference cycles
                self._take_smaller_steps(str(error))
            # Beside what the first try has left, an estimate would say too little.
            tuner = self._new_tuner(estimate=False)
        curve = self._curve
        if len(self.train.problems) == len(self.positions[0]):
            first = min(self.train.problems.items())[1]
            raise FinetuneError(f"None of the training samples can be read. The first, {first.subject}: {first.reason}")
        seconds = time.monotonic() - began
        if problem is not None:
            empty = np.empty((0, min(TOP, len(self.arm.order))), np.int32)
            run = Run(
                self.arm.name,
                self.seed,
                empty,
                np.empty(0, np.float32),
                tuple(curve.epochs),
                problem=problem,
                seconds=seconds,
            )
            return Tuned(run, None, (), np.empty(0, np.int32), None, tuple(self.notices), self.steps)
        epoch = curve.epochs[-1]
        if self.recipe.patience is not None and curve.best_epoch:
            best = read_snapshot(self.folder / _BEST, self.identity)
            if best is None:
                raise FinetuneError(
                    f"The best weights, of epoch {curve.best_epoch}, are gone from {self.folder}; empty it "
                    "and run again."
                )
            tuner.set_weights_of(best.arrays)
            epoch = curve.epochs[curve.best_epoch - 1]
        return self._test(tuner, epoch, began)

    def _test(self, tuner: Tuner, epoch: Epoch, began: float) -> Tuned:
        dataset = self.splits[2].dataset
        log_probabilities, readable = self._predict(tuner, self.test)
        self._say_what_cannot_be_read()
        if not readable.any():
            first = min(self.test.problems.items())[1]
            raise FinetuneError(f"None of the test samples can be read. The first, {first.subject}: {first.reason}")
        log_probabilities, positions = log_probabilities[readable], self.positions[2][readable]
        # Stable, so that equal probabilities fall to the same position everywhere.
        ranked = np.argsort(-log_probabilities, axis=1, kind="stable")[:, :TOP]
        run = Run(
            arm=self.arm.name,
            seed=self.seed,
            predicted=np.array(self.arm.order, np.int32)[ranked],
            nll=-log_probabilities[np.arange(len(positions)), positions].astype(np.float32),
            epochs=tuple(self._curve.epochs),
            head=self._head(tuner),
            seconds=time.monotonic() - began,
            confidence=np.exp(log_probabilities.max(axis=1)).astype(np.float32) if self.has_targets else None,
            log_probabilities=log_probabilities[:, list(self.arm.position_of)].astype(np.float32)
            if self.in_full
            else None,
            temperature=self._temperature(tuner) if self.in_full else None,
        )
        keys = tuple(s.key for s, ok in zip(dataset.samples, readable, strict=True) if ok)
        model = self._classifier(tuner, run.head)
        return Tuned(run, model, keys, dataset.labels[readable], epoch, tuple(self.notices), self.steps)

    def _temperature(self, tuner: Tuner) -> float | None:
        if not len(self.positions[1]):
            return None
        log_probabilities, readable = self._predict(tuner, self.val)
        return temperature_of(log_probabilities[readable], self.positions[1][readable])

    def _notice(self, text: str) -> None:
        if text not in self.notices:
            self.notices.append(text)
            if self._on_notice:
                self._on_notice(text)

    def _say_what_is_missing(self) -> None:
        names = self.splits[0].dataset.class_names
        said = ("training", "validation", "test")
        for split, positions in zip(said, self.positions, strict=True):
            present = {self.arm.order[position] for position in np.unique(positions)}
            missing = [names[label] for label in range(len(self.arm.order)) if label not in present]
            if len(positions) and missing:
                more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
                self._notice(f"The {split} samples have none of {', '.join(missing[:3])}{more}.")
        if not len(self.positions[1]):
            self._notice("There are no validation samples: the last epoch's weights count, and no run ends early.")
        if len(self.positions[0]) < self.recipe.batch_size:
            self._notice(
                f"An update takes all {len(self.positions[0]):,} training samples, fewer than the "
                f"{self.recipe.batch_size:,} of the recipe"
                + (f"; the learning rate is {self._rate_in_words}." if self.recipe.per_256 else ".")
            )

    def _say_what_cannot_be_read(self) -> None:
        for split, reader in (("training", self.train), ("validation", self.val), ("test", self.test)):
            if reader.problems:
                first = reader.problems[min(reader.problems)]
                several = len(reader.problems) > 1
                nouns = NOUNS[reader.dataset.media][several]
                self._notice(
                    f"{len(reader.problems):,} {split} {nouns} cannot be read and {'are' if several else 'is'} left "
                    f"out; {'the first, ' if several else ''}{first.subject}: {first.reason}"
                )

    # --- The model

    def _new_tuner(self, *, estimate: bool) -> Tuner:
        """Return the model before training; with `estimate`, first choose the steps per update by the free memory."""
        from labelrank.finetune.tuner import Tuner, prepare_backend, training_precision

        prepare_backend()
        self.precision = training_precision(self.recipe.precision)
        free = self._free_memory() if estimate else None  # before this run takes any memory
        policy = self.precision if self.precision == "float32" else f"mixed_{self.precision}"
        encoder = self.build_encoder(dtype=policy)
        self.config = encoder.config
        if self.recipe.unfreeze is not None and self.recipe.unfreeze > self.config.transformer.num_layers:
            raise SettingsError(
                f"unfreeze is {self.recipe.unfreeze}, but the encoder has {self.config.transformer.num_layers} blocks; "
                "give at most that many, or none for all blocks."
            )
        if free is not None:
            self._fit_memory(free, encoder.count_params())
        tuner = Tuner(
            encoder, self.meaning, self.recipe, pooling=self.pooling, fc_norm=self.fc_norm, n_steps=self.steps
        )
        tuner.set_head(*self._initial_head(tuner))
        self.identity = self._identity(tuner)
        return tuner

    def _initial_head(self, tuner: Tuner) -> tuple[np.ndarray | None, np.ndarray]:
        """Return the initial weights of the hidden layer, if there is one, and of the last layer. Position j gets row
        `head_rows[j]` of the draw."""
        dim = self.config.transformer.hidden_dim
        hidden = None
        if self.recipe.head == "reference":
            limit = math.sqrt(6 / (dim + self.recipe.hidden_dim))
            hidden = generator(self.seed, _HIDDEN).uniform(-limit, limit, (dim, self.recipe.hidden_dim))
            dim = self.recipe.hidden_dim
        rng, shape = generator(self.seed, _KERNEL), (self.meaning.n_columns, dim)
        if self.recipe.head_init_std is None:
            limit = math.sqrt(6 / sum(shape))
            rows = rng.uniform(-limit, limit, shape)
        else:
            rows = rng.standard_normal(shape) * self.recipe.head_init_std
        if self.meaning.exchangeable:
            rows = rows[list(self.arm.head_rows)]
        return hidden, rows.T

    def _identity(self, tuner: Tuner) -> str:
        """Return the digest of everything that determines the course of the run."""
        from labelrank.models.backend import preferred_backend

        facts = {
            # How an update is cut into steps changes nothing but rounding.
            "recipe": to_dict(replace(self.recipe, accumulation=1)),
            "arm": [self.arm.order, self.arm.head_rows],
            "seed": self.seed,
            "meaning": self.meaning.name,
            "targets": hashlib.sha256(np.ascontiguousarray(self.targets).tobytes()).hexdigest(),
            "pooling": self.pooling,
            "precision": self.precision,
            "backend": preferred_backend(training=True),
            "encoder": asdict(self.config),
            "preprocessing": [asdict(split.preprocessing) for split in self.splits],
            "sampling": [split.sampling and asdict(split.sampling) for split in self.splits],
            **({"kept": dict(self.kept)} if self.kept else {}),
            "samples": [[(s.key, s.label) for s in split.dataset.samples] for split in self.splits[:2]],
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf-8", "surrogatepass"))
        for value in tuner.weights_of().values():
            digest.update(value.tobytes())
        return digest.hexdigest()

    def _head(self, tuner: Tuner) -> dict[str, np.ndarray]:
        """Return the trained layers on top of the encoder, folded into a norm and one affine map."""
        norm_gamma, norm_beta, epsilon, hidden, kernel, bias = tuner.head_arrays()
        head: dict[str, np.ndarray] = {}
        if norm_gamma is not None:
            head |= {"norm_gamma": norm_gamma, "norm_beta": norm_beta, "norm_epsilon": np.array(epsilon)}
        kernel64 = kernel.astype(np.float64)
        if self.meaning.name == "ordinal":
            shift_name, shift = "thresholds", ordered_thresholds(bias.astype(np.float64))
            sign = -1
        else:
            shift_name, shift, sign = "bias", bias.astype(np.float64), 1
        if hidden is not None:
            hidden_kernel, hidden_bias = (a.astype(np.float64) for a in hidden)
            shift = shift + sign * (hidden_bias @ kernel64)
            kernel64 = hidden_kernel @ kernel64
        return {**head, "kernel": kernel64.astype(np.float32), shift_name: shift.astype(np.float32)}

    def _classifier(self, tuner: Tuner, head: Mapping[str, np.ndarray]) -> Classifier:
        from labelrank.finetune.export import classifier_from_head

        return classifier_from_head(
            tuner.encoder,
            head,
            n_classes=len(self.arm.order),
            pooling="cls" if self.pooling == "cls" else "mean",
            meaning=self.meaning.name,
        )

    # --- Training

    def _train(
        self,
        tuner: Tuner,
        on_epoch: Callable[[Epoch], None] | None,
        on_progress: Progress | None,
        should_stop: ShouldStop | None,
    ) -> str | None:
        """Train from the last snapshot to the end; return the problem if the run failed, else None."""
        recipe = self.recipe
        self._curve = curve = self._restore(tuner)
        for epoch in curve.epochs:
            if on_epoch:
                on_epoch(epoch)
        total = recipe.epochs * len(self.updates)
        while len(curve.epochs) < recipe.epochs and not self._is_over(curve):
            number = len(curve.epochs) + 1
            train_loss = 0.0
            with contextlib.closing(self._prepared(number)) as prepared:
                for done, (inputs, targets, weights) in enumerate(prepared):
                    if should_stop and should_stop():
                        raise Cancelled("The fine-tune was cancelled; finished epochs are kept.")
                    rate = self._rate((number - 1) * len(self.updates) + done)
                    with _memory_errors():
                        loss = tuner.update(inputs, targets, weights, rate, self.updates.size)
                    if not math.isfinite(loss):
                        return (
                            f"The loss became {loss} in epoch {number}; lower the learning rate (now "
                            f"{self._rate_in_words})"
                            + ("." if self.precision == "float32" else " or use the precision float32.")
                        )
                    train_loss += loss * len(self.updates[done])
                    if on_progress:
                        on_progress((number - 1) * len(self.updates) + done + 1, total, STAGE)
            val_loss, val_accuracy = self._evaluate(tuner)
            epoch = Epoch(number, train_loss / len(self.positions[0]), val_loss, val_accuracy)
            curve.epochs.append(epoch)
            self._keep(tuner, curve)
            self._say_what_cannot_be_read()
            if on_epoch:
                on_epoch(epoch)
        return None

    def _is_over(self, curve: _Curve) -> bool:
        patience = self.recipe.patience
        return patience is not None and bool(curve.best_epoch) and len(curve.epochs) - curve.best_epoch >= patience

    def _rate(self, update: int) -> float:
        """Return the learning rate of an update, from 0: a linear warm-up, then half a cosine down to 0."""
        total = self.recipe.epochs * len(self.updates)
        warmup = min(round(self.recipe.warmup_epochs * len(self.updates)), total)
        if update < warmup:
            share = (update + 1) / warmup
        else:
            share = (1 + math.cos(math.pi * (update - warmup) / max(1, total - warmup))) / 2
        return self.recipe.peak_learning_rate(len(self.positions[0])) * share

    @property
    def _rate_in_words(self) -> str:
        return self.recipe.rate_in_words(len(self.positions[0]))

    def _prepared(self, epoch: int) -> Generator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray], None, None]:
        """Yield the updates of an epoch; the next one is prepared while the caller works."""
        order = row_sequence(self.positions[0], self.recipe.batches, generator(self.seed, _ORDER, epoch))
        with ThreadPoolExecutor(1, "updates") as ahead:
            jobs: list[Future[Any]] = []
            for number, places in enumerate(self.updates):
                jobs.append(ahead.submit(self._update, epoch, number, order[places]))
                if len(jobs) > 1:
                    yield jobs.pop(0).result()
            yield jobs.pop(0).result()

    def _update(
        self, epoch: int, number: int, places: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Return an update's inputs, target distributions over positions float32 (B, K) and weights float32 (B,)."""
        recipe, seed, count = self.recipe, self.seed, len(places)
        generators = [generator(seed, _SAMPLE, epoch, int(place)) for place in places]
        images, readable = self.train.images(places, generators)
        images = images[:, 0]
        if self.config.media == "image":
            images = images[:, 0]
        targets = np.eye(len(self.arm.order), dtype=np.float32)[self.positions[0][places]]
        # Unreadable samples are not mixed with others; their own weight is 0.
        images[readable], targets[readable] = mix(
            generator(seed, _MIX, epoch, number),
            images[readable],
            targets[readable],
            mixup=recipe.mixup,
            cutmix=recipe.cutmix,
        )
        inputs = self._inputs(self.train, places, images)
        if recipe.drop_path:
            rng = generator(seed, _DROP_PATH, epoch, number)
            inputs["branch_scale"] = drop_path_factors(rng, count, self.config.transformer.num_layers, recipe.drop_path)
        if recipe.dropout:
            dim = recipe.hidden_dim if recipe.head == "reference" else self.config.transformer.hidden_dim
            inputs["dropout"] = dropout_factors(generator(seed, _DROPOUT, epoch, number), count, dim, recipe.dropout)
        return inputs, targets @ self.targets, readable.astype(np.float32)

    def _inputs(self, reader: Reader, places: Sequence[int] | np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return what the encoder takes: images, and the patches that are chosen of each.

        Args:
            places: The sample of each image.
        """
        if self.choose is None:
            return {"images": images}
        keys = [reader.dataset.samples[place].key for place in places]
        return {"images": images, "visible": self.choose(keys, images)}

    # --- Evaluation

    def _evaluate(self, tuner: Tuner) -> tuple[float, float]:
        """Return validation loss and accuracy; NaN if no sample can be read."""
        if not len(self.positions[1]):
            return math.nan, math.nan
        log_probabilities, readable = self._predict(tuner, self.val)
        if not readable.any():
            return math.nan, math.nan
        found, positions = log_probabilities[readable], self.positions[1][readable]
        loss = -found[np.arange(len(positions)), positions].mean()
        return float(loss), float((found.argmax(axis=1) == positions).mean())

    def _predict(self, tuner: Tuner, reader: Reader) -> tuple[np.ndarray, np.ndarray]:
        """Return log probabilities by position float64 (n, K), the mean over clips, and which samples were read."""
        count = len(reader.dataset.samples)
        size = max(1, tuner.step_size(self.updates.size) // reader.clips)
        found, readable = [], []
        for start in range(0, count, size):
            images, could = reader.images(range(start, min(start + size, count)))  # (B, clips, T, H, W, 3)
            readable.append(could)
            flat = images.reshape(-1, *images.shape[2:])
            if self.config.media == "image":
                flat = flat[:, 0]
            places = np.repeat(np.arange(start, start + len(images)), reader.clips)
            with _memory_errors():
                outputs = tuner.outputs(self._inputs(reader, places, flat), size * reader.clips)
            scores = self.meaning.log_probabilities(outputs.astype(np.float64))
            scores = scores.reshape(len(images), reader.clips, -1)
            if reader.clips > 1:
                scores = np.log(np.exp(scores).mean(axis=1, keepdims=True))
            found.append(scores[:, 0])
        return np.concatenate(found), np.concatenate(readable)

    # --- Snapshots

    def _keep(self, tuner: Tuner, curve: _Curve) -> None:
        epoch = curve.epochs[-1]
        try:
            if epoch.val_loss < curve.best_loss:
                curve.best_loss, curve.best_epoch = epoch.val_loss, epoch.epoch
                if self.recipe.patience is not None:
                    # Before the snapshot that names it. An epoch that is trained again writes the same weights.
                    write_snapshot(self.folder / _BEST, self.identity, Snapshot(tuner.weights_of()))
            facts = {
                "epochs": [asdict(e) for e in curve.epochs],
                "best_loss": curve.best_loss,
                "best_epoch": curve.best_epoch,
                "notices": self.notices,
                "steps": self.steps,
            }
            write_snapshot(self.folder / _LAST, self.identity, Snapshot(tuner.state(), facts))
        except OSError as error:
            raise FinetuneError(
                f"The snapshot of epoch {epoch.epoch} cannot be written to {self.folder} "
                f"({error.strerror or error}). Make room, then run again: it resumes from the epoch before."
            ) from error

    def _restore(self, tuner: Tuner) -> _Curve:
        snapshot = read_snapshot(self.folder / _LAST, self.identity)
        if snapshot is None:
            return _Curve([])
        facts = snapshot.facts
        if facts["steps"] > self.steps:
            # Fewer steps did not fit into memory.
            self.steps = facts["steps"]
            tuner.take_steps(self.steps)
        tuner.set_state(snapshot.arrays)
        for text in facts["notices"]:
            self._notice(text)
        return _Curve([Epoch(**values) for values in facts["epochs"]], facts["best_loss"], facts["best_epoch"])

    # --- Memory

    def _free_memory(self) -> int | None:
        """Return the memory that a run may take; None if unknown."""
        from labelrank.finetune.tuner import on_gpu

        return gpu_bytes_at_start() if on_gpu() else free_memory_bytes()

    def _fit_memory(self, free: int, n_parameters: int) -> None:
        """Choose the steps per update so that, by the estimate, each step fits into the free memory."""
        layers = self.config.transformer.num_layers
        learning = layers if self.recipe.unfreeze is None else self.recipe.unfreeze
        fixed, per_sample = step_bytes(
            self.config,
            learning_blocks=learning,
            n_parameters=n_parameters * learning // layers,
            precision=self.precision,
            keep=self.kept["count"] if self.kept else None,
        )
        room = _SHARE_OF_MEMORY * free - fixed
        while (size := math.ceil(self.updates.size / self.steps)) > 1 and size * per_sample > room:
            self._take_smaller_steps(f"about {(fixed + size * per_sample) / 2**30:.1f} GiB of {free / 2**30:.1f}")

    def _take_smaller_steps(self, reason: str) -> None:
        size = math.ceil(self.updates.size / self.steps)
        if size == 1:
            raise FinetuneError(
                f"Even one sample at a time does not fit into memory ({reason}). Use a smaller encoder or image "
                "size, or unfreeze fewer blocks."
            )
        self.steps *= 2
        fewer = math.ceil(self.updates.size / self.steps)
        self._notice(
            f"Too little memory for {size:,} samples at a time ({reason}): now {fewer:,}, {self.steps} steps to an "
            "update, which stays as large as it was."
        )


class _Slices(list[np.ndarray]):
    """Slices of equal length; some are longer by one."""

    size: int
    """Length of the longest."""


def _equal_parts(count: int, at_most: int) -> _Slices:
    parts = _Slices(np.array_split(np.arange(count), math.ceil(count / at_most)))
    parts.size = max(map(len, parts))
    return parts


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    """Turn what the frameworks raise for too little memory into `_OutOfMemory`."""
    try:
        yield
    except Exception as error:
        if not lacks_memory(error):
            raise
        raise _OutOfMemory(first_line(error)) from None
