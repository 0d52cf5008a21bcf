"""Masked pre-training of a small ViT-MAE or VideoMAE, written as a checkpoint in the Hugging Face on-disk format."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from labelrank.data.dataset import NOUNS, ClipSampling, Dataset, Problem, Sample
from labelrank.data.preprocess import Preprocessing
from labelrank.errors import Cancelled, DatasetError, MediaError
from labelrank.models.config import EncoderConfig
from labelrank.models.cost import pretraining_flops
from labelrank.models.families import write_config
from labelrank.models.fitting import KeptRun, check_loss, make_repeatable, warmed_adamw
from labelrank.models.pretrain_card import loss_curve_svg, pretraining_card
from labelrank.models.pretrain_recipe import PretrainRecipe, PretrainResult
from labelrank.models.probe import probe_report
from labelrank.progress import Kind, Progress, ShouldStop, Stage

if TYPE_CHECKING:
    from labelrank.models.mae import MaskedAutoencoder


def pretrain(
    dataset: Dataset,
    folder: Path,
    recipe: PretrainRecipe,
    *,
    command: str,
    held_out: Sequence[Dataset] = (),
    snapshot: Path | None = None,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> PretrainResult:
    """Train a masked autoencoder on a dataset's images or videos and write its checkpoint into a new or empty folder.

    Args:
        command: The command that made the checkpoint, for its model card.
        held_out: Other splits on which a logistic probe is scored for the card; without them there is no probe.
        snapshot: File for the state of the run after each epoch, from which the same call goes on to the same weights.
            Remove it once the checkpoint is stored.
        on_progress: Called as (samples done, samples of all epochs, stage) after each step.

    Raises:
        CheckpointError: The sizes do not fit, the loss is not finite, or the snapshot cannot be written.
        DatasetError: No sample can be read, or the recipe is for the other medium.
        Cancelled: `should_stop` returned true; no checkpoint is written.

    Source: He et al. 2022, arXiv:2111.06377: random masking, loss on the removed patches, AdamW (0.9, 0.95), warm-up
    and half-cycle cosine, random resized crop. Tong et al. 2022, arXiv:2203.12602: tubes of patches are removed from
    clips. We draw bicubic crops of at least `min_crop_scale` of the area, and one clip of a video, from its start.
    """
    config = recipe.encoder_config()
    if config.media != dataset.media:
        raise DatasetError(
            f"{dataset.id} holds {NOUNS[dataset.media][1]}, but the recipe is for {NOUNS[config.media][1]}; set "
            "num_frames for videos alone."
        )
    import keras

    from labelrank.models.mae import MaskedAutoencoder

    began = time.monotonic()
    nouns = NOUNS[dataset.media][1]
    frames, problems = _read_frames(dataset, recipe, on_progress, should_stop)
    if recipe.batch_size > len(frames):
        raise DatasetError(
            f"{dataset.id} has {len(frames)} readable {NOUNS[dataset.media][1]}, fewer than one batch of "
            f"{recipe.batch_size}; lower --batch-size or add some."
        )
    preprocessing = _preprocessing_for(frames, config)

    make_repeatable(recipe.seed)
    model = MaskedAutoencoder(config, name="mae")
    model.build()
    batches = _Batches(frames, preprocessing, recipe, config)
    steps = len(frames) // recipe.batch_size
    optimizer = warmed_adamw(
        model,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        epochs=recipe.epochs,
        warmup_epochs=recipe.warmup_epochs,
        steps=steps,
    )
    model.compile(optimizer=optimizer, jit_compile=False)

    run = KeptRun(snapshot, _identity(frames, recipe), model)
    kept = run.restore()
    losses: list[float] = [*kept["losses"]] if kept else []
    earlier_s = kept["seconds"] if kept else 0.0
    if kept:
        batches.begin_at(len(losses), kept["random_state"])

    step_ends: list[float] = []

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            step_ends.append(time.monotonic())
            done, total = len(losses) * steps + batch + 1, recipe.epochs * steps
            if on_progress:
                told = f"epoch {len(losses) + 1} of {recipe.epochs}" + (f", loss {losses[-1]:.4f}" if losses else "")
                stage = Stage(Kind.TRAIN, "Pre-training", nouns, told)
                on_progress(done * recipe.batch_size, total * recipe.batch_size, stage)
            if should_stop and should_stop():
                raise Cancelled("Pre-training was stopped. The same call goes on from the last finished epoch.")

        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            loss = float((logs or {})["loss"])
            check_loss(loss, epoch + 1, recipe.learning_rate)
            losses.append(loss)
            run.keep(
                {
                    "losses": losses,
                    "random_state": batches.state_before(len(losses)),
                    "seconds": earlier_s + time.monotonic() - began,
                }
            )

    if len(losses) < recipe.epochs:
        model.fit(
            iter(batches),
            epochs=recipe.epochs,
            initial_epoch=len(losses),
            steps_per_epoch=steps,
            shuffle=False,
            verbose=0,
            callbacks=[Watch()],
        )

    probe_section = ""
    if held_out:
        if on_progress:
            on_progress(0, None, Stage(Kind.PROBE, "Probing the features"))
        probe_section = probe_report(model, preprocessing, dataset, held_out, _sampling(dataset, recipe))
    result = PretrainResult(
        losses=tuple(losses),
        num_parameters=model.count_params(),
        duration_s=earlier_s + time.monotonic() - began,
        problems=(*dataset.problems, *problems),
        # The first step compiles.
        rate=(len(step_ends) - 1) * recipe.batch_size / (step_ends[-1] - step_ends[0]) if len(step_ends) > 1 else None,
        flops=pretraining_flops(config),
    )
    card = pretraining_card(dataset, recipe, result, command, probe_section)
    _write_checkpoint(model, preprocessing, folder, card, losses)
    return result


def _sampling(dataset: Dataset, recipe: PretrainRecipe) -> ClipSampling | None:
    return ClipSampling(recipe.num_frames, dataset.stride) if recipe.num_frames else None


def _identity(frames: np.ndarray, recipe: PretrainRecipe) -> str:
    """Return the digest of all that determines the weights, bit for bit."""
    import keras

    made_with = {"recipe": asdict(recipe), "keras": keras.__version__, "backend": keras.backend.backend()}
    digest = sha256(json.dumps(made_with, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(frames).data)
    return digest.hexdigest()


def _read_frames(
    dataset: Dataset, recipe: PretrainRecipe, on_progress: Progress | None, should_stop: ShouldStop | None
) -> tuple[np.ndarray, list[Problem]]:
    """Return the samples uint8 (n, T, size, size, 3): shortest side resized to `size`, then the centre crop.

    T is 1 for images.
    """
    sampling = _sampling(dataset, recipe)

    def read(sample: Sample) -> np.ndarray:
        if sampling is None:
            return dataset.load(sample)[np.newaxis]
        assert dataset.load_clips is not None
        result: np.ndarray = dataset.load_clips(sample, sampling)[0]
        return result

    clips, problems = [], []
    nouns = NOUNS[dataset.media][1]
    for number, sample in enumerate(dataset.samples, start=1):
        if should_stop and should_stop():
            raise Cancelled("Pre-training was stopped before it began.")
        if on_progress:
            on_progress(number, len(dataset.samples), Stage(Kind.READ, f"Reading {nouns}", nouns))
        try:
            clips.append(np.stack([_square(frame, recipe.image_size) for frame in read(sample)]))
        except MediaError as error:
            problems.append(Problem(sample.key, str(error)))
    if not clips:
        raise DatasetError(f"None of the {len(dataset.samples)} {NOUNS[dataset.media][1]} of {dataset.id} can be read.")
    return np.stack(clips), problems


def _square(image: np.ndarray, size: int) -> np.ndarray:
    if image.shape[:2] == (size, size):
        return image
    whole = Image.fromarray(image)
    side = min(whole.size)
    left, top = (whole.width - side) // 2, (whole.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(whole.resize((size, size), Image.Resampling.BICUBIC, box=box))


def _preprocessing_for(frames: np.ndarray, config: EncoderConfig) -> Preprocessing:
    """Return the preprocessing: resizing to the encoder's size, then a normalisation.

    Images are normalised with their own mean and standard deviation, clips with ImageNet's, because the loss in
    transformers always undoes ImageNet's, whatever the file says.
    """
    height, width = config.image_size
    shared = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    if config.media == "clip":
        return Preprocessing.from_config(
            {
                "image_processor_type": "VideoMAEImageProcessor",
                **shared,
                "size": {"shortest_edge": min(height, width)},
                "resample": int(Image.Resampling.BILINEAR),
                "do_center_crop": True,
                "crop_size": {"height": height, "width": width},
                "image_mean": [0.485, 0.456, 0.406],
                "image_std": [0.229, 0.224, 0.225],
            }
        )
    channels = frames.reshape(-1, 3).astype(np.float64) / 255
    return Preprocessing.from_config(
        {
            "image_processor_type": "ViTImageProcessor",
            **shared,
            "size": {"height": height, "width": width},
            "resample": int(Image.Resampling.BICUBIC),
            "image_mean": [round(float(v), 4) for v in channels.mean(axis=0)],
            "image_std": [round(float(v), 4) or 1.0 for v in channels.std(axis=0)],
        }
    )


class _Batches:
    """Yields (inputs, dummy label) without end: cropped, normalised images or clips and masking noise.

    All random numbers come from NumPy and one seed, so a run is the same on every backend up to rounding.
    """

    def __init__(
        self, frames: np.ndarray, preprocessing: Preprocessing, recipe: PretrainRecipe, config: EncoderConfig
    ) -> None:
        self._frames, self._preprocessing, self._recipe, self._config = frames, preprocessing, recipe, config
        self._begin_at = 0
        self._states = {0: np.random.default_rng(recipe.seed).bit_generator.state}

    def state_before(self, epoch: int) -> Any:
        """Return the state of the random numbers before an epoch, as JSON values; those to come are read ahead."""
        return self._states[epoch]

    def begin_at(self, epoch: int, state: Any) -> None:
        """Begin with another epoch than the first, counted from 0."""
        self._begin_at, self._states = epoch, {epoch: state}

    def __iter__(self) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        rng, batch_size = np.random.default_rng(), self._recipe.batch_size
        starts = range(0, len(self._frames) - batch_size + 1, batch_size)
        for epoch in itertools.count(self._begin_at):
            rng.bit_generator.state = self._states[epoch]
            shuffled = rng.permutation(len(self._frames))
            for start in starts:
                recipe = self._recipe
                chosen = [
                    random_crop(self._frames[i], recipe.min_crop_scale, recipe.flip, rng)
                    for i in shuffled[start : start + batch_size]
                ]
                batch = self._preprocessing(np.stack(chosen))
                noise = rng.random((batch_size, *self._config.noise_shape), dtype=np.float32)
                images = batch if self._config.media == "clip" else batch[:, 0]
                if start == starts[-1]:
                    self._states[epoch + 1] = rng.bit_generator.state
                yield {"images": images, "noise": noise}, np.zeros(batch_size, np.float32)


def random_crop(frames: np.ndarray, min_scale: float, flip: bool, rng: np.random.Generator) -> np.ndarray:
    """Return frames uint8 (T, H, W, 3) with one random crop for all of them, scaled back to their size.

    Args:
        min_scale: Least share of the area in a crop.
        flip: Whether half of them are mirrored.
    """
    rows, columns = frames.shape[1:3]
    area = rows * columns * rng.uniform(min_scale, 1.0)
    aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    width, height = min(columns, math.sqrt(area * aspect)), min(rows, math.sqrt(area / aspect))
    left, top = rng.uniform(0, columns - width), rng.uniform(0, rows - height)
    box = (left, top, left + width, top + height)
    mirror = flip and rng.random() < 0.5
    crops = [Image.fromarray(frame).resize((columns, rows), Image.Resampling.BICUBIC, box=box) for frame in frames]
    if mirror:
        crops = [crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for crop in crops]
    return np.stack([np.asarray(crop) for crop in crops])


def _write_checkpoint(
    model: MaskedAutoencoder, preprocessing: Preprocessing, folder: Path, card: str, losses: list[float]
) -> None:
    from safetensors.numpy import save

    from labelrank.models.checkpoint import PREPROCESSOR
    from labelrank.models.checkpoint_files import CONFIG, WEIGHTS
    from labelrank.models.convert import save_tensors

    config = model.config
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(write_config(config), indent=2) + "\n", encoding="utf-8")
    (folder / PREPROCESSOR).write_text(json.dumps(preprocessing.to_config(), indent=2) + "\n", encoding="utf-8")
    tensors = save_tensors(model.encoder, model.decoder)
    # transformers asks for the framework's name in the metadata; the layout is PyTorch's. Written by us, because
    # save_file makes a file that only its owner can read.
    (folder / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
    (folder / "loss.svg").write_text(loss_curve_svg(losses), encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")
