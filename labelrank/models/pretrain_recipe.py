"""The settings of a pre-training run (model size and training), and its result."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from labelrank.data.dataset import DEFAULT_FRAMES, Dataset, Problem
from labelrank.errors import CheckpointError, SettingsError
from labelrank.models.config import EncoderConfig, TransformerConfig


@dataclass(frozen=True)
class PretrainRecipe:
    """Model size and training settings. The defaults made the embedded `mae-tiny-digits`; see `recipe_for`."""

    epochs: int = 250
    batch_size: int = 64
    learning_rate: float = 1e-3
    """Highest value of the schedule, after warm-up."""
    warmup_epochs: int = 10
    weight_decay: float = 0.05
    mask_ratio: float = 0.75
    norm_pix_loss: bool = False
    flip: bool = True
    min_crop_scale: float = 0.6
    """Smallest share of an image's area in a random crop; all frames of a clip have the same crop."""
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

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            # Comparisons let nan through, and it would show only in the weights.
            if isinstance(value, float) and not math.isfinite(value):
                name = field.name.replace("_", " ").capitalize()
                raise SettingsError(f"{name} is {value}; expected a number, such as {field.default}.")

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
    # A mirrored digit is not a digit, and a mirrored motion to the right is the class to the left.
    return replace(recipe, flip=False) if dataset.id in ("digits", "moving-digits") else recipe


@dataclass(frozen=True)
class PretrainResult:
    """The result of a pre-training run."""

    losses: tuple[float, ...]
    """Mean reconstruction loss of each epoch."""
    num_parameters: int
    duration_s: float
    problems: tuple[Problem, ...]
    rate: float | None = None
    """Samples a second in the steps of this call; None if it made fewer than two."""
    flops: float = 0.0
    """Floating-point operations of a sample in a step; see `labelrank.models.cost.pretraining_flops`."""
