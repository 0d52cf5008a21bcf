"""Training of a patch ranker by the scores of a frozen masked autoencoder, without labels."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from labelrank.data.dataset import NOUNS, ClipSampling, Dataset, Problem, Sample
from labelrank.data.preprocess import Preprocessing
from labelrank.errors import Cancelled, CheckpointError, DatasetError
from labelrank.features.encode import compute_parts
from labelrank.models.checkpoint import PREPROCESSOR, Checkpoint
from labelrank.models.checkpoint_files import CONFIG, WEIGHTS
from labelrank.models.config import EncoderConfig
from labelrank.patches.agreement import agreement, baselines
from labelrank.patches.ranker import MADE_WITH
from labelrank.patches.ranker_card import ranker_card, ranker_curve
from labelrank.patches.ranker_config import RankerConfig
from labelrank.patches.ranker_recipe import CURVE, TRAINING, RankerEpoch, RankerRecipe, RankerResult
from labelrank.patches.scorer import PatchScorer
from labelrank.patches.selection import Samples
from labelrank.patches.visible_sets import draw_visible
from labelrank.progress import Kind, Progress, ShouldStop, Stage

_SAMPLES_PER_PART = 64
_STOPPED = "Training was stopped. The same call goes on from the last finished epoch."


@dataclass(frozen=True)
class HeldOut:
    """Samples that are not trained on, with the teacher's scores."""

    samples: tuple[Sample, ...]
    dataset: Dataset
    scores: np.ndarray
    """(n, N), the mean of several rounds."""
    rounds: int
    reliability: float | None
    """Of these scores; None if unknown."""


def train_ranker(
    dataset: Dataset,
    checkpoint: Checkpoint,
    recipe: RankerRecipe,
    folder: Path,
    *,
    preprocessing: Preprocessing,
    sampling: ClipSampling | None,
    held_out: HeldOut,
    made_with: Mapping[str, Any],
    command: str,
    snapshot: Path | None = None,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    on_epoch: Callable[[tuple[RankerEpoch, ...]], None] | None = None,
) -> RankerResult:
    """Train a ranker for a masked autoencoder's patches and write it into a new folder.

    In each epoch the teacher scores new random sets of visible patches of every sample, and the ranker, which sees all
    patches, learns the order in each set.

    Args:
        dataset: Samples to train on; all are kept in memory, a byte for each value.
        recipe: With the number of visible places (`RankerRecipe.for_teacher`).
        preprocessing, sampling: How a sample becomes the teacher's input.
        made_with: What config.json is to say of teacher and data, beside the recipe.
        command: The command that made the ranker, for its card.
        snapshot: File for the state of the run after each epoch, from which the same call goes on to the same weights.
            Remove it once the ranker is stored.
        on_progress: Called as (samples done, samples of all epochs, stage) after each step.
        on_epoch: Called after each epoch with all so far.

    Raises:
        CheckpointError: The teacher has no decoder, the loss is not finite, or the snapshot cannot be written.
        DatasetError: Fewer samples can be read than a batch has.
        Cancelled: `should_stop` returned true; no ranker is written.

    Source: Luo et al. 2024, arXiv:2404.00680, section 3.3, and their code: AdamW (0.9, 0.95), weight decay 0.06,
    warm-up and half a cosine. There the ranker sees the visible patches alone while it learns, and one set an epoch.
    """
    import keras

    from labelrank.models.fitting import KeptRun, check_loss, make_repeatable, warmed_adamw
    from labelrank.patches.ranker_model import PatchRanker, RankerTrainer

    assert recipe.visible is not None
    began = time.monotonic()
    config = RankerConfig.of_size(recipe.size, checkpoint.config, recipe.head)
    nouns = NOUNS[dataset.media][1]
    make_repeatable(recipe.seed)
    read = _Reading(preprocessing, sampling, on_progress, should_stop)
    inputs, samples, problems = read(dataset, dataset.samples)
    if len(samples) < recipe.batch_size:
        raise DatasetError(
            f"{dataset.id} has {len(samples)} readable {nouns} to train on, fewer than one batch of "
            f"{recipe.batch_size}; lower --batch-size or add some."
        )
    shown, _, _ = read(held_out.dataset, held_out.samples)
    shown = read.normalised(shown, checkpoint.config)

    if on_progress:
        on_progress(0, None, Stage(Kind.LOAD, "Loading the autoencoder"))
    scorer = PatchScorer(checkpoint, visible=recipe.visible, variant=recipe.variant, lists=recipe.lists)
    # Building the teacher has drawn random numbers.
    keras.utils.set_random_seed(recipe.seed)
    ranker = PatchRanker(config, name="ranker")
    model = RankerTrainer(ranker, recipe.loss, name="trainer")
    model.build()
    steps = len(samples) // recipe.batch_size
    optimizer = warmed_adamw(
        model,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        epochs=recipe.epochs,
        warmup_epochs=recipe.warmup_epochs,
        steps=steps,
    )
    model.compile(optimizer=optimizer, jit_compile=False)

    run = KeptRun(snapshot, _identity(inputs, held_out.scores, checkpoint, recipe), model)
    none = [0.0] * config.num_patches
    kept = run.restore() or {"losses": [], "epochs": [], "totals": none, "counts": none, "seconds": 0.0}
    epochs = [RankerEpoch(**epoch) for epoch in kept["epochs"]]
    # Sums of the scores of each place, and how many there were: what a ranker would know that sees no sample.
    totals, counts = np.array(kept["totals"]), np.array(kept["counts"])
    earlier_s = float(kept["seconds"])
    lists = _Lists(inputs, samples, scorer, read, recipe, should_stop)
    for epoch in range(len(epochs), recipe.epochs):
        losses = []
        for batch, scores in lists.of_epoch(epoch):
            losses.append(float(model.train_on_batch(batch, scores)))
            np.add.at(totals, batch["visible"].ravel(), scores.ravel())
            np.add.at(counts, batch["visible"].ravel(), 1)
            # Keras reports the mean since the last reset, and here each batch counts by itself.
            model.reset_metrics()
            if on_progress:
                told = f"epoch {epoch + 1} of {recipe.epochs}"
                told += f", held-out Spearman {epochs[-1].spearman:.3f}" if epochs else ""
                stage = Stage(Kind.TRAIN, "Training the ranker", nouns, told)
                done = (epoch * steps + len(losses)) * recipe.batch_size
                on_progress(done, recipe.epochs * steps * recipe.batch_size, stage)
        check_loss(loss := float(np.mean(losses)), epoch + 1, recipe.learning_rate)
        found = agreement(_scores(ranker, shown), held_out.scores)
        epochs.append(RankerEpoch(loss, found.spearman, found.ndcg))
        run.keep(
            {
                "losses": [one.loss for one in epochs],
                "epochs": [asdict(one) for one in epochs],
                "totals": totals.tolist(),
                "counts": counts.tolist(),
                "seconds": earlier_s + time.monotonic() - began,
            }
        )
        if on_epoch:
            on_epoch(tuple(epochs))

    if on_progress:
        on_progress(0, None, Stage(Kind.PROBE, "Comparing with baselines"))
    others = Samples(
        shown,
        [sample.key for sample in held_out.samples],
        checkpoint.config,
        attention=_attention(checkpoint, shown),
        seed=recipe.seed,
    )
    result = RankerResult(
        epochs=tuple(epochs),
        agreement={
            "ranker": agreement(_scores(ranker, shown), held_out.scores),
            **baselines(others, held_out.scores, totals / np.maximum(counts, 1)),
        },
        held_out=len(held_out.samples),
        rounds=held_out.rounds,
        reliability=held_out.reliability,
        num_parameters=ranker.count_params(),
        duration_s=earlier_s + time.monotonic() - began,
        problems=tuple(problems),
    )
    made = {**made_with, "recipe": asdict(recipe)}
    card = ranker_card(dataset, checkpoint.id, config, recipe, result, command)
    _write(ranker, preprocessing, made, folder, card, result)
    return result


class _Reading:
    """Reads samples into memory as the teacher sees them, but for the normalisation, which follows batch by batch."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        sampling: ClipSampling | None,
        on_progress: Progress | None,
        should_stop: ShouldStop | None,
    ) -> None:
        self._shape = replace(preprocessing, rescale_factor=None, image_mean=None, image_std=None)
        self._normalise = replace(
            preprocessing, size=None, shortest_edge=None, crop_size=None, required_size=preprocessing.output_size
        )
        self._sampling, self._on_progress, self._should_stop = sampling, on_progress, should_stop

    def __call__(
        self, dataset: Dataset, samples: Sequence[Sample]
    ) -> tuple[np.ndarray, tuple[Sample, ...], list[Problem]]:
        """Return uint8 (n, T, H, W, 3), T 1 for images, the samples of the rows, and those that cannot be read."""
        nouns = NOUNS[dataset.media][1]
        by_key = {sample.key: sample for sample in samples}
        parts = [samples[at : at + _SAMPLES_PER_PART] for at in range(0, len(samples), _SAMPLES_PER_PART)]
        height, width = self._shape.output_size
        pixels: list[np.ndarray] = []
        rows: list[Sample] = []
        problems: list[Problem] = []
        for part in compute_parts(
            dataset,
            parts,
            lambda _, inputs: inputs.reshape(len(inputs), -1),
            self._shape,
            batch_size=_SAMPLES_PER_PART if self._sampling is None else 4,
            stage=Stage(Kind.READ, f"Reading {nouns}", nouns),
            sampling=self._sampling,
            on_progress=self._on_progress,
            should_stop=self._should_stop,
        ):
            problems += part.failures
            if part.keys:
                pixels.append(part.X.reshape(len(part.X), -1, height, width, 3).astype(np.uint8))
                rows += [by_key[key] for key in part.keys]
        if not rows:
            raise DatasetError(f"None of the {len(samples)} {nouns} of {dataset.id} can be read.")
        return np.concatenate(pixels), tuple(rows), problems

    def normalised(self, pixels: np.ndarray, config: EncoderConfig) -> np.ndarray:
        """Return the teacher's input float32 (n, [T,] H, W, 3) of uint8 (n, T, H, W, 3)."""
        inputs = self._normalise(pixels)
        return inputs if config.media == "clip" else inputs[:, 0]


@dataclass(frozen=True)
class _Lists:
    """What a step learns from: samples, and the teacher's scores of random sets of their patches.

    All random numbers depend on the seed, the epoch and the samples' keys, so an epoch is the same whatever was before.
    """

    inputs: np.ndarray
    samples: Sequence[Sample]
    scorer: PatchScorer
    read: _Reading
    recipe: RankerRecipe
    should_stop: ShouldStop | None

    def of_epoch(self, epoch: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Yield the inputs of `RankerTrainer` and the scores float32 (B * lists, V) of each batch of an epoch."""
        rng = np.random.default_rng((self.recipe.seed, epoch))
        shuffled, size = rng.permutation(len(self.samples)), self.recipe.batch_size
        for start in range(0, len(shuffled) - size + 1, size):
            rows = shuffled[start : start + size]
            images = self.read.normalised(np.stack([self._augmented(row, rng) for row in rows]), self.scorer.config)
            visible = np.stack([self._visible(row, epoch) for row in rows])  # (B, lists, V)
            scores = np.empty(visible.shape, np.float32)
            for place, (image, sets) in enumerate(zip(images, visible, strict=True)):
                if self.should_stop and self.should_stop():
                    raise Cancelled(_STOPPED)
                scores[place] = self.scorer.of_sets(image, sets)
            yield {"images": images, "visible": visible}, scores.reshape(-1, visible.shape[2])

    def _augmented(self, row: int, rng: np.random.Generator) -> np.ndarray:
        from labelrank.models.pretrain import random_crop

        frames: np.ndarray = self.inputs[row]
        if self.recipe.min_crop_scale < 1:
            return random_crop(frames, self.recipe.min_crop_scale, self.recipe.flip, rng)
        return frames[:, :, ::-1] if self.recipe.flip and rng.random() < 0.5 else frames

    def _visible(self, row: int, epoch: int) -> np.ndarray:
        config, recipe, key = self.scorer.config, self.recipe, self.samples[row].key
        assert recipe.visible is not None
        sets = -(-config.noise_shape[0] // recipe.visible)
        rounds = -(-recipe.lists // sets)
        drawn = draw_visible(config, f"{epoch}\0{key}", visible=recipe.visible, rounds=rounds, seed=recipe.seed)
        return drawn.reshape(-1, drawn.shape[2])[: recipe.lists]


def _scores(ranker: Any, inputs: np.ndarray) -> np.ndarray:
    """Return the scores (n, N) of a ranker in training."""
    from keras import ops

    batches = (inputs[at : at + 16] for at in range(0, len(inputs), 16))
    return np.concatenate([ops.convert_to_numpy(ranker(ops.convert_to_tensor(batch))) for batch in batches])


def _attention(checkpoint: Checkpoint, inputs: np.ndarray) -> np.ndarray | None:
    """Return how much the teacher's CLS attends to each patch, (n, N); None if it has no CLS."""
    from keras import ops

    from labelrank.models.runtime import build_encoder
    from labelrank.patches.attention import cls_attention

    encoder = build_encoder(checkpoint)
    batches = (inputs[at : at + 16] for at in range(0, len(inputs), 16))
    try:
        found = [ops.convert_to_numpy(cls_attention(encoder, ops.convert_to_tensor(batch))) for batch in batches]
    except CheckpointError:
        return None
    return np.concatenate(found)


def _identity(inputs: np.ndarray, wanted: np.ndarray, checkpoint: Checkpoint, recipe: RankerRecipe) -> str:
    """Return the digest of all that determines the weights and their curve, bit for bit."""
    import keras

    made_with = {
        "recipe": asdict(recipe),
        "teacher": checkpoint.digest,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }
    digest = sha256(json.dumps(made_with, sort_keys=True).encode())
    for array in (inputs, wanted):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _write(
    ranker: Any,
    preprocessing: Preprocessing,
    made_with: Mapping[str, Any],
    folder: Path,
    card: str,
    result: RankerResult,
) -> None:
    from safetensors.numpy import save

    from labelrank.patches.ranker_model import ranker_tensors

    def write_json(name: str, value: Any) -> None:
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

    folder.mkdir(parents=True, exist_ok=True)
    write_json(CONFIG, {**ranker.config.to_json(), MADE_WITH: made_with})
    write_json(PREPROCESSOR, preprocessing.to_config())
    (folder / WEIGHTS).write_bytes(save(ranker_tensors(ranker), metadata={"format": "pt"}))
    write_json(TRAINING, result.to_json())
    (folder / CURVE).write_text(ranker_curve(result), encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")
