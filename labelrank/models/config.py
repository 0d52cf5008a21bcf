"""The sizes and parts of an encoder, checked. `models.families` reads them from a config.json."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from labelrank.errors import CheckpointError

# Hugging Face's `hidden_act` -> (Keras activation, keyword arguments).
ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "gelu": ("gelu", {"approximate": False}),
    "gelu_new": ("gelu", {"approximate": True}),
    "gelu_pytorch_tanh": ("gelu", {"approximate": True}),
    "relu": ("relu", {}),
    "silu": ("silu", {}),
    "swish": ("silu", {}),
    # x * sigmoid(1.702 x), which Keras does not have; `models.vit` does.
    "quick_gelu": ("quick_gelu", {}),
}

# sincos: the fixed table over rows and columns, stored in the file; sinusoid: the fixed table over the numbered tokens,
# not stored. The tables of all other families are learned, if they have one.
POSITION_EMBEDDINGS = {"vit_mae": "sincos", "videomae": "sinusoid"}
# For VideoMAE's norms outside its blocks and encoder: PyTorch's default, whatever layer_norm_eps says.
HEAD_NORM_EPSILON = 1e-5
AVERAGING = "labelrank_averaging_block"
"""Entry in config.json of an exported model whose last block is a part of its head, so its tokens are no features."""
# Far above any existing model, and far below what would fill the memory: position tables grow with the number of
# patches, and some of them are not in the file.
MAX_IMAGE_SIDE = 8192
MAX_PATCHES = 20_000


@dataclass(frozen=True)
class TransformerConfig:
    """The size of one stack of transformer blocks."""

    hidden_dim: int
    mlp_dim: int
    num_layers: int
    num_heads: int
    activation: str = "gelu"
    layer_norm_epsilon: float = 1e-12
    use_qkv_bias: bool = True
    use_key_bias: bool = True
    """Whether the keys also have a bias, if queries and values have one."""
    layer_scale: bool = False
    """Whether the results of attention and MLP are multiplied by a learned number for each channel (LayerScale)."""
    gated_mlp: bool = False
    """Whether the MLP is activation(gate(x)) * in(x) before its last layer (SwiGLU)."""

    def __post_init__(self) -> None:
        if self.hidden_dim % self.num_heads:
            raise CheckpointError(
                f"The hidden size {self.hidden_dim} is not a multiple of the {self.num_heads} attention heads; "
                "choose sizes that fit (hidden_size and num_attention_heads in a config.json)."
            )


@dataclass(frozen=True)
class EncoderConfig:
    """An encoder of images or clips, and its decoder where the checkpoint holds one."""

    model_type: str
    transformer: TransformerConfig
    image_size: tuple[int, int]
    """Height and width in pixels."""
    patch_size: tuple[int, int]
    num_channels: int = 3
    decoder: TransformerConfig | None = None
    mask_ratio: float = 0.75
    norm_pix_loss: bool = False
    num_frames: int | None = None
    """Frames of a clip; None for images."""
    tubelet_size: int | None = None
    """Frames that one token covers; None for images."""
    use_cls_token: bool = True
    final_norm: bool = True
    fc_norm: bool = False
    """Whether the checkpoint's head norms the pooled tokens."""
    fc_norm_pools: str = "mean"
    """What that norm is for: the mean of the patch tokens, or cls."""
    trained_image_size: tuple[int, int] | None = None
    """The image size of the stored position table, which is interpolated to `image_size`; None if they are equal."""
    learned_positions: bool = True
    """Whether there is a position table at all, for a family that is not in `POSITION_EMBEDDINGS`."""
    interpolation: str = "bicubic"
    """How a position table becomes one of another size: bicubic, or bicubic without aliasing (antialiased)."""
    rotary: str = ""
    """Rotary positions: of an image's patches (image), of a clip's tubelets (clip), or none."""
    rotary_base: float = 10_000.0
    relative_bias: str = ""
    """Who adds a learned number to the scores for each offset of two patches: all blocks the same (shared), each block
    its own (own), or none."""
    use_distillation_token: bool = False
    """Whether a second token like CLS follows it."""
    num_registers: int = 0
    """Tokens after CLS that have no position and stand for no patch."""
    patch_bias: bool = True
    pre_norm: bool = False
    """Whether a norm comes before the first block."""
    leaves_rest: bool = False
    """Whether pixels at the right and the bottom that fill no patch are left out; else such sizes are refused."""

    def __post_init__(self) -> None:
        for side, patch in zip(self.image_size, self.patch_size, strict=True):
            if side < patch or (side % patch and not self.leaves_rest):
                raise CheckpointError(
                    f"The image size {self.image_size} is not a multiple of the patch size {self.patch_size}; "
                    "correct image_size or patch_size in config.json."
                )
        if self.num_frames is not None and self.num_frames % (self.tubelet_size or 1):
            raise CheckpointError(
                f"The {self.num_frames} frames of a clip are not a multiple of the tubelet size {self.tubelet_size}; "
                "correct num_frames or tubelet_size in config.json."
            )
        if max(self.image_size) > MAX_IMAGE_SIDE:
            raise CheckpointError(
                f"The image size {self.image_size[0]:,} x {self.image_size[1]:,} is more than the {MAX_IMAGE_SIDE:,} "
                "pixels a side that are read; correct image_size in config.json, or choose a smaller --image-size."
            )
        if self.num_patches > MAX_PATCHES:
            frames = "" if self.num_frames is None else f"{self.num_frames:,} frames of "
            raise CheckpointError(
                f"An input of {frames}{self.image_size[0]:,} x {self.image_size[1]:,} pixels has {self.num_patches:,} "
                f"patches, more than the {MAX_PATCHES:,} that are read; correct image_size, patch_size or num_frames "
                "in config.json, or choose a smaller --image-size."
            )
        if self.position_embedding == "sincos":
            for size in (self.transformer, self.decoder):
                if size is not None and size.hidden_dim % 4:
                    raise CheckpointError(
                        f"The hidden size {size.hidden_dim} is not a multiple of 4, which the two-dimensional position "
                        "table needs; choose another (hidden_size in a config.json)."
                    )
        heads = self.transformer.hidden_dim // self.transformer.num_heads
        if self.rotary == "image" and heads % 4:
            raise CheckpointError(
                f"Each attention head has {heads} channels; rotary positions of an image need a multiple of 4. Correct "
                "hidden_size or num_attention_heads in config.json."
            )
        if not 0 < self.mask_ratio < 1:
            raise CheckpointError(f"mask_ratio is {self.mask_ratio}; expected a number between 0 and 1.")

    @property
    def position_embedding(self) -> str:
        """Kind of the position table: sincos, sinusoid, learned or none."""
        return POSITION_EMBEDDINGS.get(self.model_type, "learned" if self.learned_positions else "none")

    @property
    def drops_patches(self) -> bool:
        """Whether some patches can be encoded alone, because each carries its place."""
        return not (self.rotary or self.relative_bias)

    @property
    def num_placed(self) -> int:
        """Tokens before the patches that have a place in the position table: CLS and the distillation token."""
        return int(self.use_cls_token) + int(self.use_distillation_token)

    @property
    def num_prefix(self) -> int:
        """Tokens before the patches, which stand for no patch; the first is CLS."""
        return self.num_placed + self.num_registers

    @property
    def head_norm_epsilon(self) -> float:
        """Epsilon of a norm between pooling and classifier in the family's class of transformers."""
        return HEAD_NORM_EPSILON if self.model_type == "videomae" else self.transformer.layer_norm_epsilon

    @property
    def media(self) -> str:
        """The input of the encoder: image or clip."""
        return "image" if self.num_frames is None else "clip"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: (H, W, C), or (T, H, W, C) of a clip."""
        frames = () if self.num_frames is None else (self.num_frames,)
        return (*frames, *self.image_size, self.num_channels)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def trained_grid_size(self) -> tuple[int, int]:
        """Patches down and across of the position table in the file."""
        height, width = self.trained_image_size or self.image_size
        return height // self.patch_size[0], width // self.patch_size[1]

    @property
    def num_slices(self) -> int:
        """Tubelets one after the other in a clip; 1 for images."""
        return 1 if self.num_frames is None else self.num_frames // (self.tubelet_size or 1)

    @property
    def num_patches(self) -> int:
        """Tokens of an image or clip, without CLS and its like."""
        return self.num_slices * self.grid_size[0] * self.grid_size[1]

    @property
    def patch_dim(self) -> int:
        """Numbers in one flat patch or tubelet."""
        return (self.tubelet_size or 1) * self.patch_size[0] * self.patch_size[1] * self.num_channels

    @property
    def noise_shape(self) -> tuple[int]:
        """Shape of the noise that decides which patches of a sample are hidden: one number per place in the image.

        A clip hides the same places in each of its slices ("tube masking", Tong et al. 2022, section 3.3).
        """
        return (self.grid_size[0] * self.grid_size[1],)

    @property
    def num_visible(self) -> int:
        """Patches that stay when `mask_ratio` of them are removed."""
        return self.num_slices * int(self.noise_shape[0] * (1 - self.mask_ratio))

    def resized(self, height: int, width: int) -> EncoderConfig:
        """Return this encoder for another image size; its position table will be interpolated over space.

        The decoder is left out, because its table fits only the trained size.

        Raises:
            CheckpointError: The size is not a multiple of the patch size, or far too large.
        """
        if (height, width) == self.image_size:
            return self
        for side, patch in zip((height, width), self.patch_size, strict=True):
            if side < patch or side % patch:
                raise CheckpointError(
                    f"The image size {height} x {width} is not a multiple of the encoder's patches of "
                    f"{self.patch_size[0]} x {self.patch_size[1]} pixels; choose another --image-size."
                )
        trained = self.trained_image_size or self.image_size
        return replace(
            self,
            image_size=(height, width),
            trained_image_size=None if trained == (height, width) else trained,
            decoder=None,
        )
