"""The sizes of a patch ranker, checked, and its config.json. This module does not import Keras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from labelrank.errors import SettingsError
from labelrank.models.config import EncoderConfig, TransformerConfig
from labelrank.models.families import FAMILIES

HEADS = ("token", "cls")
"""token: a number from each patch's own token (ours, which learns more from the same scores); cls: a number for each
place from CLS, as published."""
SIZES: dict[str, tuple[int, int, int]] = {
    "tiny": (64, 2, 4),
    "small": (192, 4, 3),
    "vit-ti": (192, 12, 3),
    "vit-s": (384, 12, 6),
}
"""Channels, layers and attention heads. vit-s is the published one; small costs a twentieth of a ViT-B."""

MODEL_TYPE = "labelrank_patch_ranker"
HEAD_WEIGHT, HEAD_BIAS = "ranking_head.weight", "ranking_head.bias"


@dataclass(frozen=True)
class RankerConfig:
    """The sizes of a ranker."""

    encoder: EncoderConfig
    """Its ViT; with the image size, patches and frames of the encoder that it ranks for."""
    head: str = "token"

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise SettingsError(f"The head is {self.head!r}; choose one of {', '.join(HEADS)}.")

    @classmethod
    def of_size(cls, size: str | None, ranks_for: EncoderConfig, head: str = "token") -> RankerConfig:
        """Return a ranker of a named size, None for `default_size`, for the patches of an encoder.

        Source: Luo et al. 2024, arXiv:2404.00680, and their code: LayerNorm epsilon 1e-5, exact GELU, fixed positions.
        """
        size = size or default_size(ranks_for)
        if size not in SIZES:
            raise SettingsError(f"The size is {size!r}; choose one of {', '.join(SIZES)}.")
        dim, layers, heads = SIZES[size]
        vit = EncoderConfig(
            model_type="vit_mae",  # the family of a plain ViT with CLS and a fixed table of positions
            transformer=TransformerConfig(dim, 4 * dim, layers, heads, layer_norm_epsilon=1e-5),
            image_size=ranks_for.image_size,
            patch_size=ranks_for.patch_size,
            num_channels=ranks_for.num_channels,
            num_frames=ranks_for.num_frames,
            tubelet_size=ranks_for.tubelet_size,
        )
        return cls(vit, head)

    @property
    def num_patches(self) -> int:
        """Scores of an image or clip."""
        return self.encoder.num_patches

    @property
    def head_dim(self) -> int:
        """Outputs of the head for one token."""
        return 1 if self.head == "token" else self.num_patches

    def to_json(self) -> dict[str, Any]:
        """Return the content of a config.json; `from_json` is the inverse."""
        vit = self.encoder
        write = FAMILIES[vit.model_type].write
        assert write is not None
        values = {**write(vit), "architectures": ["PatchRanker"], "model_type": MODEL_TYPE, "head": self.head}
        if vit.num_frames is not None:
            values |= {"num_frames": vit.num_frames, "tubelet_size": vit.tubelet_size}
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RankerConfig:
        """Return the ranker that a config.json describes.

        Raises:
            CheckpointError, SettingsError: A value cannot work.
        """
        plain = {**values, "architectures": ["ViTMAEModel"]}
        vit = FAMILIES["vit_mae"].read(plain, None)
        if "num_frames" in values:
            clip = FAMILIES["videomae"].read(plain, None)
            vit = replace(vit, num_frames=clip.num_frames, tubelet_size=clip.tubelet_size)
        return cls(vit, values.get("head", "token"))


def default_size(ranks_for: EncoderConfig) -> str:
    """Return the largest of the two small sizes that is worth its time beside an encoder."""
    return "small" if ranks_for.transformer.hidden_dim >= 2 * SIZES["small"][0] else "tiny"
