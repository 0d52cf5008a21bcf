"""Masked pre-training of a small ViT-MAE or VideoMAE, written as a checkpoint in the Hugging Face on-disk format."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from labelrank.data.dataset import DEFAULT_FRAMES, NOUNS, ClipSampling, Dataset, Problem, Sample
from labelrank.data.preprocess import Preprocessing
from labelrank.errors import Cancelled, CheckpointError, DatasetError, MediaError
from labelrank.models.config import EncoderConfig, TransformerConfig, write_config
from labelrank.models.probe import probe_report
from labelrank.progress import Kind, Progress, ShouldStop, Stage

if TYPE_CHECKING:
    from labelrank.models.mae import MaskedAutoencoder


@dataclass(frozen=True)
class PretrainRecipe:
    """Model size and training settings. The defaults made the embedded `mae-tiny-digits`; see `recipe_for`."""

    epochs: int = 250
    batch_size: int = 64
    learning_rate: float = 1e-3
    """Peak of the schedule, after warm-up."""
    warmup_epochs: int = 10
    weight_decay: float = 0.05
    mask_ratio: float = 0.75
    norm_pix_loss: bool = False
    flip: bool = True
    min_crop_scale: float = 0.6
    """Least share of an image's area that a random crop keeps; one crop for all frames of a clip."""
    image_size: int = 32
    patch_size: int = 4
    hidden_dim: int = 96
    num_layers: int = 4
    num_heads: int = 4
    decoder_dim: int = 64
    decoder_layers: int = 1
    decoder_heads: int = 4
    num_frames: int | None = None
    """Frames of a clip; None trains on images."""
    tubelet_size: int = 2
    """Frames that a token of a clip covers."""
    seed: int = 0

    def encoder_config(self) -> EncoderConfig:
        """Return the model that this recipe trains: a ViT-MAE for images, a VideoMAE for clips.

        Raises:
            CheckpointError: The sizes do not fit each other.
        """

        of_clips = self.num_frames is not None

        def transformer(dim: int, layers: int, heads: int) -> TransformerConfig:
            return TransformerConfig(
                hidden_dim=dim,
                mlp_dim=4 * dim,
                num_layers=layers,
                num_heads=heads,
                layer_norm_epsilon=1e-6,
                use_key_bias=not of_clips,
            )

        config = EncoderConfig(
            model_type="videomae" if of_clips else "vit_mae",
            transformer=transformer(self.hidden_dim, self.num_layers, self.num_heads),
            image_size=(self.image_size, self.image_size),
            patch_size=(self.patch_size, self.patch_size),
            num_frames=self.num_frames,
            tubelet_size=self.tubelet_size if of_clips else None,
            use_cls_token=not of_clips,
            decoder=transformer(self.decoder_dim, self.decoder_layers, self.decoder_heads),
            mask_ratio=self.mask_ratio,
            norm_pix_loss=self.norm_pix_loss,
        )
        if config.num_visible < 1:
            raise CheckpointError(
                f"Mask ratio {self.mask_ratio} leaves none of {config.num_patches} patches visible; lower it or "
                "make the patches smaller."
            )
        return config


def recipe_for(dataset: Dataset) -> PretrainRecipe:
    """Return the settings that suit a dataset; those of the embedded datasets made the embedded checkpoints."""
    recipe = PretrainRecipe()
    if dataset.media == "clip":
        recipe = replace(
            recipe,
            epochs=40,
            batch_size=32,
            warmup_epochs=4,
            norm_pix_loss=True,
            min_crop_scale=0.8,
            patch_size=8,
            num_frames=DEFAULT_FRAMES,
        )
    # A mirrored digit is not a digit, and what moves to the left is a class of its own.
    return replace(recipe, flip=False) if dataset.id in ("digits", "moving-digits") else recipe


@dataclass(frozen=True)
class PretrainResult:
    """What a pre-training run gave."""

    losses: tuple[float, ...]
    """Mean reconstruction loss of each epoch."""
    num_parameters: int
    duration_s: float
    problems: tuple[Problem, ...]


def pretrain(
    dataset: Dataset,
    out: Path,
    recipe: PretrainRecipe,
    *,
    command: str,
    held_out: Sequence[Dataset] = (),
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> PretrainResult:
    """Train a masked autoencoder on a dataset's images or videos and write it to the folder `out`.

    Args:
        command: What made the checkpoint, for its model card.
        held_out: Other splits, whose labels a logistic probe is scored on for the card; none leaves the probe out.
        on_progress: Called as (epochs done, epochs, stage).

    Raises:
        CheckpointError: `out` exists and is not empty, or the sizes do not fit.
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
    with _new_folder(out) as folder:
        return _pretrain_into(folder, dataset, config, recipe, command, held_out, on_progress, should_stop)


def _pretrain_into(
    folder: Path,
    dataset: Dataset,
    config: EncoderConfig,
    recipe: PretrainRecipe,
    command: str,
    held_out: Sequence[Dataset],
    on_progress: Progress | None,
    should_stop: ShouldStop | None,
) -> PretrainResult:
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
    # MAE decays matrices only: biases, norms and the learned tokens are left alone.
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
    card = _card(dataset, recipe, result, command, probe_section)
    _write_checkpoint(model, preprocessing, folder, card, losses)
    return result


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder beside `out` that becomes `out` at the end, or nothing on any error.

    Raises:
        CheckpointError: `out` exists and is not an empty folder, or nothing can be written beside it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} exists and is not an empty folder; choose another --out or remove it.")
    out = out.resolve()
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise CheckpointError(f"{out} cannot be written ({error.strerror}); choose another --out.") from error
    try:
        yield partial
        if out.is_dir():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sampling(dataset: Dataset, recipe: PretrainRecipe) -> ClipSampling | None:
    return ClipSampling(recipe.num_frames, dataset.stride) if recipe.num_frames else None


def _read_frames(dataset: Dataset, recipe: PretrainRecipe) -> tuple[np.ndarray, list[Problem]]:
    """Return the samples uint8 (n, T, size, size, 3): shortest side to `size`, then the centre; T is 1 for images."""
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
    """Return resizing to the encoder's size and the normalisation that suits it.

    For images the mean and standard deviation of these images. For clips ImageNet's: the peer library's loss
    undoes these, whatever the file says.
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

    All randomness is NumPy's from one seed, so a run is the same on every backend up to rounding.
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
    """Return frames (T, H, W, 3) cut alike at random and scaled back to their size."""
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


def loss_curve_svg(losses: list[float]) -> str:
    """Return an image of the loss by epoch, logarithmic upwards."""
    width, height, left, bottom, margin = 640, 320, 64, 44, 16
    logs = np.log10(np.maximum(losses, 1e-12))
    low, high = float(logs.min()), float(max(logs.max(), logs.min() + 1e-6))
    plot_width, plot_height = width - left - margin, height - bottom - margin

    def x(epoch: float) -> float:
        return left + plot_width * epoch / max(1, len(losses) - 1)

    def y(log: float) -> float:
        return margin + plot_height * (high - log) / (high - low)

    points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(logs))
    lines = []
    for log in np.linspace(low, high, 5):
        lines.append(f'<line x1="{left}" x2="{width - margin}" y1="{y(log):.1f}" y2="{y(log):.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{left - 8}" y="{y(log) + 4:.1f}" text-anchor="end">{10**log:.3g}</text>')
    for epoch in sorted({round(v) for v in np.linspace(0, len(losses) - 1, 5)}):
        lines.append(f'<text x="{x(epoch):.1f}" y="{height - 24}" text-anchor="middle">{epoch + 1}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="Loss falls from {losses[0]:.3g} to {losses[-1]:.3g}">'
        f'<rect width="{width}" height="{height}" fill="white"/>{"".join(lines)}'
        f'<text x="{left + plot_width / 2:.0f}" y="{height - 6}" text-anchor="middle">Epoch</text>'
        f'<text transform="translate(14 {margin + plot_height / 2:.0f}) rotate(-90)" text-anchor="middle">'
        "Reconstruction loss (log)</text>"
        f'<polyline points="{points}" fill="none" stroke="#2a6f97" stroke-width="1.5"/></svg>\n'
    )


def _card(dataset: Dataset, recipe: PretrainRecipe, result: PretrainResult, command: str, probe_section: str) -> str:
    import yaml

    clips = recipe.num_frames is not None
    kind, loader = ("VideoMAE", "VideoMAEForPreTraining") if clips else ("ViT-MAE", "ViTMAEForPreTraining")
    metadata = {
        "library_name": "transformers",
        "tags": ["masked-auto-encoding", "videomae" if clips else "vit_mae", "labelrank"],
        "datasets": [dataset.id],
    }
    if dataset.id in ("digits", "moving-digits"):
        # Ours to license: made here from data that allows it. Weights from other data are their owner's to license.
        metadata = {"license": "apache-2.0", **metadata}
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    size, patch = recipe.image_size, recipe.patch_size
    token = f"{recipe.tubelet_size}x{patch}x{patch} tubelets" if clips else f"{patch}x{patch} px patches"
    source = f"{recipe.num_frames} frames of {size}x{size} px" if clips else f"{size}x{size} px images"
    nouns = NOUNS[dataset.media][1]
    removed = "tubes" if clips else "patches"
    sentences = [
        f"A {kind} encoder ({recipe.num_layers} layers of {recipe.hidden_dim} channels, {token} of {source}) with its "
        f"decoder, {result.num_parameters:,} parameters, pre-trained without labels on {len(dataset.samples):,} "
        f"{nouns} ({dataset.split or 'all'}) of {dataset.id}.",
        f"```\n{command}\n```",
        f"- Mask ratio {recipe.mask_ratio:g}, mean squared error on the removed {removed}"
        f"{', each standardised' if recipe.norm_pix_loss else ''}.\n"
        f"- AdamW (0.9, 0.95), peak learning rate {recipe.learning_rate:g}, weight decay {recipe.weight_decay:g}, "
        f"batch {recipe.batch_size}, {recipe.warmup_epochs} warm-up epochs, then cosine to 0 over {recipe.epochs}.\n"
        f"- Random resized crop of at least {recipe.min_crop_scale:.0%} of the area, flips "
        f"{'on' if recipe.flip else 'off'}, seed {recipe.seed}.\n"
        f"- Mean loss {result.losses[0]:.4f} in the first epoch, {result.losses[-1]:.4f} in the last; "
        f"{result.duration_s / 60:.1f} minutes in all on {os.cpu_count()} CPU cores.",
        "![Reconstruction loss by epoch](loss.svg)",
        probe_section,
        f"Load it with `transformers.{loader}.from_pretrained(folder)` or with "
        f"`labelrank extract DATA --checkpoint folder`. It is for trying things out on {nouns} like its own.",
    ]
    body = "\n\n".join(s for s in sentences if s)
    return f"---\n{front}---\n\n# A small masked autoencoder of {dataset.id}\n\n{body}\n"
