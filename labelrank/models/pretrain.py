"""Masked pre-training of a small ViT-MAE or VideoMAE, written as a checkpoint in the Hugging Face on-disk format."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from labelrank.data.dataset import NOUNS, ClipSampling, Dataset, Problem, Sample
from labelrank.data.preprocess import Preprocessing
from labelrank.errors import Cancelled, CheckpointError, DatasetError, MediaError
from labelrank.models.config import EncoderConfig
from labelrank.models.families import write_config
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
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> PretrainResult:
    """Train a masked autoencoder on a dataset's images or videos and write its checkpoint into an empty folder.

    Args:
        command: The command that made the checkpoint, for its model card.
        held_out: Other splits on which a logistic probe is scored for the card; without them there is no probe.
        on_progress: Called as (epochs done, epochs, stage).

    Raises:
        CheckpointError: The sizes do not fit, or the loss is not finite.
        DatasetError: No sample can be read, or the recipe is for the other medium.
        Cancelled: `should_stop` returned true; nothing is written.

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

    started = time.monotonic()
    frames, problems = _read_frames(dataset, recipe)
    if recipe.batch_size > len(frames):
        raise DatasetError(
            f"{dataset.id} has {len(frames)} readable {NOUNS[dataset.media][1]}, fewer than one batch of "
            f"{recipe.batch_size}; lower --batch-size or add some."
        )
    preprocessing = _preprocessing_for(frames, config)

    keras.utils.set_random_seed(recipe.seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    model = MaskedAutoencoder(config, name="mae")
    model.build()
    batches = _batches(frames, preprocessing, recipe, config)
    steps = len(frames) // recipe.batch_size
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=recipe.learning_rate * 1e-3,
        decay_steps=max(1, (recipe.epochs - recipe.warmup_epochs) * steps),
        warmup_target=recipe.learning_rate,
        warmup_steps=recipe.warmup_epochs * steps,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay, beta_1=0.9, beta_2=0.95)
    # As in MAE, weight decay applies to matrices only, not to biases, norms and learned tokens.
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in model.trainable_variables if len(v.shape) == 1 or "token" in v.name]
    )
    model.compile(optimizer=optimizer, jit_compile=False)

    losses: list[float] = []
    stopped = False

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            nonlocal stopped
            loss = float((logs or {})["loss"])
            if not math.isfinite(loss):
                raise CheckpointError(
                    f"The loss became {loss} in epoch {epoch + 1}; lower --learning-rate (now {recipe.learning_rate})."
                )
            losses.append(loss)
            if on_progress:
                stage = Stage(Kind.TRAIN, "Pre-training", "epochs", f"loss {loss:.4f}")
                on_progress(epoch + 1, recipe.epochs, stage)
            if should_stop and should_stop():
                stopped = self.model.stop_training = True

    model.fit(batches, epochs=recipe.epochs, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[Watch()])
    if stopped:
        raise Cancelled("Pre-training was cancelled; nothing was written.")

    probe_section = ""
    if held_out:
        if on_progress:
            on_progress(recipe.epochs, recipe.epochs, Stage(Kind.PROBE, "Probing the features", "epochs"))
        probe_section = probe_report(model, preprocessing, dataset, held_out, _sampling(dataset, recipe))
    result = PretrainResult(
        losses=tuple(losses),
        num_parameters=model.count_params(),
        duration_s=time.monotonic() - started,
        problems=(*dataset.problems, *problems),
    )
    card = pretraining_card(dataset, recipe, result, command, probe_section)
    _write_checkpoint(model, preprocessing, folder, card, losses)
    return result


def _sampling(dataset: Dataset, recipe: PretrainRecipe) -> ClipSampling | None:
    return ClipSampling(recipe.num_frames, dataset.stride) if recipe.num_frames else None


def _read_frames(dataset: Dataset, recipe: PretrainRecipe) -> tuple[np.ndarray, list[Problem]]:
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
    for sample in dataset.samples:
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


def _batches(frames: np.ndarray, preprocessing: Preprocessing, recipe: PretrainRecipe, config: EncoderConfig) -> Any:
    """Return an endless generator of (inputs, dummy label): cropped, normalised images or clips and masking noise.

    All random numbers come from NumPy and one seed, so a run is the same on every backend up to rounding.
    """
    rng = np.random.default_rng(recipe.seed)
    batch_size = recipe.batch_size
    while True:
        shuffled = rng.permutation(len(frames))
        for start in range(0, len(frames) - batch_size + 1, batch_size):
            chosen = [_random_crop(frames[i], recipe, rng) for i in shuffled[start : start + batch_size]]
            batch = preprocessing(np.stack(chosen))
            noise = rng.random((batch_size, *config.noise_shape), dtype=np.float32)
            images = batch if config.media == "clip" else batch[:, 0]
            yield {"images": images, "noise": noise}, np.zeros(batch_size, np.float32)


def _random_crop(frames: np.ndarray, recipe: PretrainRecipe, rng: np.random.Generator) -> np.ndarray:
    """Return frames (T, H, W, 3) with one random crop for all of them, scaled back to their size."""
    side = recipe.image_size
    area = side * side * rng.uniform(recipe.min_crop_scale, 1.0)
    aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    width, height = min(side, math.sqrt(area * aspect)), min(side, math.sqrt(area / aspect))
    left, top = rng.uniform(0, side - width), rng.uniform(0, side - height)
    box = (left, top, left + width, top + height)
    mirror = recipe.flip and rng.random() < 0.5
    crops = [Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC, box=box) for frame in frames]
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
    (folder / CONFIG).write_text(json.dumps(write_config(config), indent=2) + "\n", encoding="utf-8")
    (folder / PREPROCESSOR).write_text(json.dumps(preprocessing.to_config(), indent=2) + "\n", encoding="utf-8")
    tensors = save_tensors(model.encoder, model.decoder)
    # transformers asks for the framework's name in the metadata; the layout is PyTorch's. Written by us, because
    # save_file makes a file that only its owner can read.
    (folder / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
    (folder / "loss.svg").write_text(loss_curve_svg(losses), encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")
