"""The vision transformer: layers and the encoder. `keras.ops` only, so every Keras backend runs it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from labelrank.models.config import ACTIVATIONS, EncoderConfig, TransformerConfig


def sincos_position_embedding(hidden_dim: int, grid_size: tuple[int, int], num_slices: int = 1) -> np.ndarray:
    """Return the fixed sine-cosine table of patches, float32 (1, 1 + num_slices * grid_h * grid_w, hidden_dim).

    CLS gets zeros. The first half of the channels encodes the column, the second half the row, as in the published MAE
    code. With several slices, a third each encodes slice, row and column, as in V-JEPA's `uniform_power`.

    Source: He et al. 2022, arXiv:2111.06377, Appendix A.1; Bardes et al. 2024, arXiv:2404.08471; Vaswani et al. 2017,
    section 3.5.
    """

    def one_axis(places: np.ndarray, dim: int) -> np.ndarray:
        frequency = 1.0 / 10000 ** (np.arange(dim // 2, dtype=np.float64) / (dim / 2))
        angle = places.reshape(-1, 1) * frequency
        return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)

    slices, rows, columns = np.indices((num_slices, *grid_size), dtype=np.float64)
    axes, dim = [columns, rows], hidden_dim // 2
    if num_slices > 1:
        axes, dim = [slices, rows, columns], 2 * math.ceil(hidden_dim / 6)
    table = np.concatenate([one_axis(axis, dim) for axis in axes], axis=1)[:, :hidden_dim]
    return np.concatenate([np.zeros((1, hidden_dim)), table])[None].astype(np.float32)


def sinusoid_position_embedding(hidden_dim: int, num_tokens: int) -> np.ndarray:
    """Return the fixed 1-D table over numbered tokens, float32 (1, num_tokens, hidden_dim).

    Even channels are sines, odd ones cosines of the same frequency.

    Source: Vaswani et al. 2017, section 3.5; tubelets are numbered as in VideoMAE, slice by slice, row by row.
    """
    channel = np.arange(hidden_dim)
    angle = np.arange(num_tokens).reshape(-1, 1) / np.power(10000.0, 2 * (channel // 2) / hidden_dim)
    return np.where(channel % 2, np.cos(angle), np.sin(angle))[None].astype(np.float32)


def interpolate_position_embedding(
    table: np.ndarray,
    from_grid: tuple[int, int],
    to_grid: tuple[int, int],
    *,
    prefix: int = 0,
    antialias: bool = False,
) -> np.ndarray:
    """Return a position table (1, N, D) for another grid of patches; time and the first `prefix` tokens do not change.

    Source: bicubic convolution (Keys 1981) over pixel centres as PyTorch's `interpolate(mode="bicubic",
    align_corners=False)`, which transformers calls: a = -0.75 and repeated borders, or with `antialias` a = -0.5 and
    weights at the borders that add up to 1.
    """
    if from_grid == to_grid:
        return table
    before, patches = table[:, :prefix], table[:, prefix:]
    dim = table.shape[-1]
    weights = _antialiased_weights if antialias else _bicubic_weights
    rows, columns = (weights(n, m) for n, m in zip(from_grid, to_grid, strict=True))
    grid = patches.reshape(-1, *from_grid, dim).astype(np.float64)  # (slices, rows, columns, D)
    grid = np.einsum("ir,jc,trcd->tijd", rows, columns, grid, optimize=True)
    return np.concatenate([before, grid.reshape(1, -1, dim).astype(np.float32)], axis=1)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _bicubic_weights(length: int, wanted: int) -> np.ndarray:
    """Return the matrix (wanted, length) that resizes one axis."""
    place = (np.arange(wanted) + 0.5) * length / wanted - 0.5
    weights = np.zeros((wanted, length))
    for step in range(-1, 3):
        neighbour = np.floor(place) + step
        source = np.clip(neighbour, 0, length - 1).astype(np.int64)
        np.add.at(weights, (np.arange(wanted), source), _cubic(np.abs(place - neighbour), -0.75))
    return weights


def _antialiased_weights(length: int, wanted: int) -> np.ndarray:
    """Return the matrix (wanted, length) that resizes one axis; a smaller one averages over more places."""
    scale = length / wanted
    width = max(scale, 1.0)
    centre = (np.arange(wanted)[:, None] + 0.5) * scale
    place = np.arange(length)[None, :] + 0.5
    # Whole places within two widths of the centre, as PyTorch counts them.
    first, end = np.floor(centre - 2 * width + 0.5), np.floor(centre + 2 * width + 0.5)
    inside = (place > first) & (place < end)
    weights = np.where(inside, _cubic(np.abs(place - centre) / width, -0.5), 0.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def interpolate_offset_table(table: np.ndarray, from_grid: tuple[int, int], to_grid: tuple[int, int]) -> np.ndarray:
    """Return a table of the offsets of two patches (M, heads), with three rows for CLS, for another grid of patches.

    Source: bilinear, as BEiT's in transformers, which takes the table for one of columns x rows; that makes a
    difference only where an image is not square.
    """
    (height, width), wanted = ((2 * n - 1 for n in grid) for grid in (from_grid, to_grid))
    rows, columns = (_bilinear_weights(n, m) for n, m in zip((width, height), wanted, strict=True))
    offsets = table[:-3].reshape(width, height, -1).astype(np.float64)
    offsets = np.einsum("ir,jc,rch->ijh", rows, columns, offsets, optimize=True)
    return np.concatenate([offsets.reshape(-1, table.shape[1]).astype(np.float32), table[-3:]])


def _bilinear_weights(length: int, wanted: int) -> np.ndarray:
    """Return the matrix (wanted, length) that resizes one axis."""
    place = np.clip((np.arange(wanted) + 0.5) * length / wanted - 0.5, 0, length - 1)
    return np.asarray(np.maximum(0.0, 1 - np.abs(place[:, None] - np.arange(length)[None, :])))


@dataclass(frozen=True)
class Rotary:
    """What rotates queries and keys by their place: x * cos + x[..., partner] * sin.

    `cos` and `sin` float32 (N, head_dim), `sin` with the sign of its partner; `partner` int (head_dim,).
    """

    cos: np.ndarray
    sin: np.ndarray
    partner: np.ndarray

    def __call__(self, x: Any) -> Any:
        """Rotate (B, heads, N, head_dim)."""
        cos, sin = (ops.convert_to_tensor(table, dtype=x.dtype) for table in (self.cos, self.sin))
        return x * cos + ops.take(x, self.partner, axis=-1) * sin


def rotary_of(config: EncoderConfig) -> Rotary | None:
    """Return how an encoder rotates queries and keys; tokens before the patches stay as they are."""
    dim = config.transformer.hidden_dim // config.transformer.num_heads
    places = np.indices((config.num_slices, *config.grid_size)).reshape(3, -1, 1).astype(np.float64)  # (axis, N, 1)
    if config.rotary == "image":
        # Source: Siméoni et al. 2025 (DINOv3), section 3.2: rows and columns from -1 to 1, the halves of a head paired.
        sides = np.array(config.grid_size, np.float64).reshape(2, 1, 1)
        frequency = 2 * math.pi / config.rotary_base ** (4 * np.arange(dim // 4) / dim)
        row, column = (2 * (places[1:] + 0.5) / sides - 1) * frequency
        angles = np.concatenate([row, column, row, column], axis=1)
        channel = np.arange(dim)
        partner, sign = (channel + dim // 2) % dim, np.where(channel < dim // 2, -1, 1)
    elif config.rotary == "clip":
        # Source: the published V-JEPA 2: time, row and column have a third of a head each; the rest is not rotated.
        # Neighbouring channels are paired, but their frequencies come half by half, so the two of a pair differ.
        third = 2 * (dim // 3 // 2)
        frequency = 1 / config.rotary_base ** (np.arange(third // 2) / (third / 2)) if third else np.zeros(0)
        angles = np.zeros((places.shape[1], dim))
        angles[:, : 3 * third] = np.concatenate([np.tile(axis * frequency, 2) for axis in places], axis=1)
        channel = np.arange(dim)
        partner, sign = channel ^ 1, np.where(channel % 2, 1, -1)
        partner[3 * third :] = channel[3 * third :]
    else:
        return None
    still = np.zeros((config.num_prefix, dim))
    angles = np.concatenate([still, angles])
    return Rotary(np.cos(angles).astype(np.float32), (np.sin(angles) * sign).astype(np.float32), partner)


class RelativeBias(keras.layers.Layer):  # type: ignore[misc]
    """A learned number for each offset of two patches, as a bias of the scores (1, heads, 1 + N, 1 + N).

    Source: Bao et al. 2022 (BEiT), arXiv:2106.08254; three more offsets are from, to and of CLS.
    """

    def __init__(self, grid_size: tuple[int, int], num_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.grid_size, self.num_heads = grid_size, num_heads

    def build(self, input_shape: tuple[int | None, ...] | None = None) -> None:
        rows, columns = self.grid_size
        count = (2 * rows - 1) * (2 * columns - 1) + 3
        self.table = self.add_weight(shape=(count, self.num_heads), initializer="zeros", name="table")
        row, column = np.indices(self.grid_size).reshape(2, -1)
        offset = (row[:, None] - row + rows - 1) * (2 * columns - 1) + column[:, None] - column + columns - 1
        self.index = np.pad(offset, ((1, 0), (1, 0)))
        self.index[0], self.index[:, 0], self.index[0, 0] = count - 3, count - 2, count - 1
        self.built = True

    def bias(self) -> Any:
        """Return the bias of the scores. Keras calls no layer without an input, so this is a method of its own."""
        bias = ops.take(ops.cast(ops.convert_to_tensor(self.table), self.compute_dtype), self.index.reshape(-1), axis=0)
        return ops.transpose(ops.reshape(bias, (1, *self.index.shape, self.num_heads)), (0, 3, 1, 2))


def add_position_embedding(
    layer: keras.layers.Layer, hidden_dim: int, config: EncoderConfig, *, learns: bool = False
) -> Any:
    """Return a layer's position table (1, CLS and the like + N, hidden_dim); None if the encoder has none.

    If checkpoints store the table, it is a weight; before loading it holds the fixed table, or noise if it is learned.
    If the table is always computed, it is an array, so that it does not count as a parameter. With `learns`, training
    changes a stored table even where the family keeps it fixed.
    """
    cls = config.num_placed
    if config.position_embedding == "none":
        return None
    if config.position_embedding == "sinusoid":
        (rows, columns), slices = config.trained_grid_size, config.num_slices
        table = sinusoid_position_embedding(hidden_dim, slices * rows * columns)
        return interpolate_position_embedding(table, (rows, columns), config.grid_size, prefix=cls)
    if config.position_embedding == "learned":
        return layer.add_weight(
            shape=(1, cls + config.num_patches, hidden_dim),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="position_embedding",
        )
    table = sincos_position_embedding(hidden_dim, config.grid_size, config.num_slices)
    return layer.add_weight(
        shape=table.shape,
        initializer=lambda shape, dtype=None: ops.convert_to_tensor(table, dtype=dtype),
        trainable=learns,
        name="position_embedding",
    )


def patchify(images: Any, patch_size: tuple[int, int], tubelet_size: int | None = None) -> Any:
    """Cut images (B, H, W, C) into flat patches (B, N, patch_h * patch_w * C), row by row, channels last.

    Pixels at the right and the bottom that fill no patch are left out.

    With `tubelet_size`, cut clips (B, T, H, W, C) into flat tubelets (B, N, tubelet * patch_h * patch_w * C), slice by
    slice, their frames one after the other.
    """
    height, width, channels = images.shape[-3:]
    depth = tubelet_size or 1
    slices = images.shape[1] // depth if tubelet_size else 1
    ph, pw = patch_size
    rows, columns = height // ph, width // pw
    if (height, width) != (rows * ph, columns * pw):
        images = images[..., : rows * ph, : columns * pw, :]
    # The pixels and channels in a row of a patch stay together; slices are merged into the batch axis.
    x = ops.reshape(images, (-1, depth, rows, ph, columns, pw * channels))
    x = ops.transpose(x, (0, 2, 4, 1, 3, 5))  # (B * slices, rows, columns, depth, ph, pw * C)
    return ops.reshape(x, (-1, slices * rows * columns, depth * ph * pw * channels))


class SelfAttention(keras.layers.Layer):  # type: ignore[misc]
    """Multi-head self-attention over tokens (B, N, D)."""

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        *,
        use_qkv_bias: bool = True,
        use_key_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.num_heads = num_heads
        self.use_qkv_bias = use_qkv_bias
        self.use_key_bias = use_key_bias
        self.rotary: Rotary | None = None

        def dense(name: str, use_bias: bool) -> keras.layers.Dense:
            return keras.layers.Dense(hidden_dim, use_bias=use_bias, dtype=self.dtype_policy, name=name)

        self.query = dense("query", use_qkv_bias)
        self.key = dense("key", use_qkv_bias and use_key_bias)
        self.value = dense("value", use_qkv_bias)
        self.output_dense = dense("output", True)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for layer in (self.query, self.key, self.value, self.output_dense):
            layer.build(input_shape)

    def call(self, tokens: Any, bias: Any = None) -> Any:
        """Return tokens of the same shape; `bias` (1, heads, N, N) is added to the scores."""
        num_tokens = tokens.shape[1]
        head_dim = self.hidden_dim // self.num_heads

        def heads(x: Any, axes: tuple[int, ...]) -> Any:
            return ops.transpose(ops.reshape(x, (-1, num_tokens, self.num_heads, head_dim)), axes)

        query = heads(self.query(tokens) * head_dim**-0.5, (0, 2, 1, 3))  # (B, heads, N, head_dim)
        if self.rotary is None:
            key = heads(self.key(tokens), (0, 2, 3, 1))  # (B, heads, head_dim, N)
        else:
            query = self.rotary(query)
            key = ops.transpose(self.rotary(heads(self.key(tokens), (0, 2, 1, 3))), (0, 1, 3, 2))
        value = heads(self.value(tokens), (0, 2, 1, 3))
        scores = ops.matmul(query, key)
        if bias is not None:
            scores = scores + bias
        mixed = ops.matmul(ops.softmax(scores, axis=-1), value)
        return self.output_dense(ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (-1, num_tokens, self.hidden_dim)))

    def compute_output_shape(
        self, tokens_shape: tuple[int | None, ...], bias_shape: tuple[int | None, ...] | None = None
    ) -> tuple[int | None, ...]:
        return tokens_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "num_heads": self.num_heads,
            "use_qkv_bias": self.use_qkv_bias,
            "use_key_bias": self.use_key_bias,
        }


def quick_gelu(x: Any) -> Any:
    """Return x * sigmoid(1.702 x), CLIP's approximation of GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""
    return x * ops.sigmoid(1.702 * x)


class TransformerBlock(keras.layers.Layer):  # type: ignore[misc]
    """A pre-norm block: tokens + attention(norm(tokens)), then + mlp(norm(tokens)).

    With LayerScale, the results of attention and MLP are first multiplied by a learned number for each channel (Touvron
    et al. 2021, arXiv:2103.17239); with a gate, the MLP is SwiGLU (Shazeer 2020, arXiv:2002.05202).
    """

    def __init__(self, config: TransformerConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config = config if isinstance(config, TransformerConfig) else TransformerConfig(**config)
        kind, self.activation_options = ACTIVATIONS[config.activation]
        self.activation = quick_gelu if kind == "quick_gelu" else getattr(keras.activations, kind)
        policy = {"dtype": self.dtype_policy}
        epsilon = config.layer_norm_epsilon
        self.norm_before = keras.layers.LayerNormalization(epsilon=epsilon, name="norm_before", **policy)
        self.attention = SelfAttention(
            config.hidden_dim,
            config.num_heads,
            use_qkv_bias=config.use_qkv_bias,
            use_key_bias=config.use_key_bias,
            name="attention",
            **policy,
        )
        self.norm_after = keras.layers.LayerNormalization(epsilon=epsilon, name="norm_after", **policy)
        self.mlp_in = keras.layers.Dense(config.mlp_dim, name="mlp_in", **policy)
        self.mlp_out = keras.layers.Dense(config.hidden_dim, name="mlp_out", **policy)
        self.mlp_gate = keras.layers.Dense(config.mlp_dim, name="mlp_gate", **policy) if config.gated_mlp else None
        self.relative_bias: RelativeBias | None = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        gate = [self.mlp_gate] if self.mlp_gate else []
        for layer in (self.norm_before, self.attention, self.norm_after, self.mlp_in, *gate):
            layer.build(input_shape)
        self.mlp_out.build((*input_shape[:-1], self.config.mlp_dim))
        if self.relative_bias is not None:
            self.relative_bias.build()
        self.attention_scale = self.mlp_scale = None
        if self.config.layer_scale:
            self.attention_scale, self.mlp_scale = (
                self.add_weight(shape=(self.config.hidden_dim,), initializer="ones", name=name)
                for name in ("attention_scale", "mlp_scale")
            )

    def call(self, tokens: Any, branch_scale: Any = None, bias: Any = None) -> Any:
        """Return tokens of the same shape.

        Args:
            branch_scale: For stochastic depth, float (B, 2): factors of the two branches, 0 for a dropped branch;
                None: factors of 1, as outside training.
            bias: Of the scores, (1, heads, N, N), where all blocks share one.
        """
        if self.relative_bias is not None:
            bias = self.relative_bias.bias()
        attended = self.attention(self.norm_before(tokens), bias)
        if self.attention_scale is not None:
            attended = attended * ops.cast(self.attention_scale, attended.dtype)
        if branch_scale is not None:
            attended = attended * ops.cast(branch_scale[:, :1, None], attended.dtype)
        tokens = tokens + attended
        normed = self.norm_after(tokens)
        hidden = self.mlp_in(normed)
        if self.mlp_gate is None:
            hidden = self.activation(hidden, **self.activation_options)
        else:
            hidden = self.activation(self.mlp_gate(normed), **self.activation_options) * hidden
        hidden = self.mlp_out(hidden)
        if self.mlp_scale is not None:
            hidden = hidden * ops.cast(self.mlp_scale, hidden.dtype)
        if branch_scale is not None:
            hidden = hidden * ops.cast(branch_scale[:, 1:, None], hidden.dtype)
        return tokens + hidden

    def compute_output_shape(
        self,
        tokens_shape: tuple[int | None, ...],
        branch_scale_shape: tuple[int | None, ...] | None = None,
        bias_shape: tuple[int | None, ...] | None = None,
    ) -> tuple[int | None, ...]:
        return tokens_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": asdict(self.config)}


class ViTEncoder(keras.layers.Layer):  # type: ignore[misc]
    """Maps normalised images (B, H, W, C) or clips (B, T, H, W, C) to tokens (B, P + N, D).

    First come the P tokens that stand for no patch (`EncoderConfig.num_prefix`): CLS, a distillation token, registers.

    With `visible` int (B, V), only those patches are encoded, in that order: tokens (B, P + V, D). Without it, all
    patches are encoded in reading order, as feature extraction needs.

    With `branch_scale` float (B, num_layers, 2), each block's two branches are multiplied by these factors, which the
    caller draws in training: stochastic depth (Huang et al. 2016, arXiv:1603.09382).

    Args:
        learns_positions: Whether training changes a position table that the family keeps fixed; not in the config,
            because a trained table is used as any other.

    Source: Dosovitskiy et al. 2021, arXiv:2010.11929; He et al. 2022, arXiv:2111.06377; Tong et al. 2022,
    arXiv:2203.12602.
    """

    def __init__(
        self, config: EncoderConfig | dict[str, Any], *, learns_positions: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.config = config = config if isinstance(config, EncoderConfig) else encoder_config_from_dict(config)
        self.learns_positions = learns_positions
        transformer = config.transformer
        self.patch_embedding = keras.layers.Dense(
            transformer.hidden_dim, use_bias=config.patch_bias, name="patch_embedding", dtype=self.dtype_policy
        )
        self.blocks = [
            TransformerBlock(transformer, name=f"block_{i}", dtype=self.dtype_policy)
            for i in range(transformer.num_layers)
        ]
        rotary = rotary_of(config)
        for block in self.blocks:
            block.attention.rotary = rotary
        self.relative_bias = None
        if config.relative_bias == "shared":
            self.relative_bias = self._bias_layer()
        elif config.relative_bias == "own":
            for block in self.blocks:
                block.relative_bias = self._bias_layer()
        self.pre_norm = self._norm_layer("pre_norm") if config.pre_norm else None
        self.norm = self._norm_layer("norm") if config.final_norm else None

    def _norm_layer(self, name: str) -> Any:
        epsilon = self.config.transformer.layer_norm_epsilon
        return keras.layers.LayerNormalization(epsilon=epsilon, name=name, dtype=self.dtype_policy)

    def _bias_layer(self) -> RelativeBias:
        heads = self.config.transformer.num_heads
        return RelativeBias(self.config.grid_size, heads, name="relative_bias", dtype=self.dtype_policy)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        config = self.config
        dim = config.transformer.hidden_dim
        self.cls_token = self._token("cls_token", int(config.use_cls_token))
        self.distillation_token = self._token("distillation_token", int(config.use_distillation_token))
        self.register_tokens = self._token("register_tokens", config.num_registers)
        self.position_embedding = add_position_embedding(self, dim, config, learns=self.learns_positions)
        self.patch_embedding.build((None, config.num_patches, config.patch_dim))
        tokens_shape = (None, config.num_prefix + config.num_patches, dim)
        if self.relative_bias is not None:
            self.relative_bias.build()
        for layer in (self.pre_norm, *self.blocks, self.norm):
            if layer is not None:
                layer.build(tokens_shape)

    def _token(self, name: str, count: int) -> Any:
        """Return the weight (1, count, D) of tokens that stand for no patch; None if there are none."""
        if not count:
            return None
        shape = (1, count, self.config.transformer.hidden_dim)
        return self.add_weight(shape=shape, initializer=keras.initializers.RandomNormal(stddev=0.02), name=name)

    @property
    def embedding_variables(self) -> list[Any]:
        """The weights before the first block."""
        own = (self.cls_token, self.distillation_token, self.register_tokens, self.position_embedding)
        layers = (self.patch_embedding, self.pre_norm, self.relative_bias)
        return [
            *(weight for weight in own if isinstance(weight, keras.Variable)),
            *(weight for layer in layers if layer is not None for weight in layer.variables),
        ]

    def call(self, images: Any, visible: Any = None, branch_scale: Any = None) -> Any:
        tokens = self.embed_patches(images)
        if visible is not None:
            if not self.config.drops_patches:
                raise ValueError(f"A {self.config.model_type} encoder encodes every patch, and some were chosen.")
            tokens = ops.take_along_axis(tokens, visible[:, :, None], axis=1)
        return self.encode_patches(tokens, branch_scale)

    def embed_patches(self, images: Any) -> Any:
        """Return the tokens of the patches before the first block, with their positions, (B, N, D)."""
        config = self.config
        tokens = self.patch_embedding(patchify(images, config.patch_size, config.tubelet_size))
        place = self._places()
        return tokens if place is None else tokens + place[:, config.num_placed :]

    def embed_pixels(self, pixels: Any, visible: Any) -> Any:
        """Return `embed_patches`' tokens of some patches, from their pixels (B, V, patch_dim) and numbers (B, V)."""
        tokens = self.patch_embedding(pixels)
        place = self._places()
        return tokens if place is None else tokens + ops.take(place[0], visible + self.config.num_placed, axis=0)

    def encode_patches(self, tokens: Any, branch_scale: Any = None) -> Any:
        """Return what the encoder makes of some of `embed_patches`' tokens, (B, V, D): tokens (B, P + V, D)."""
        tokens = self.enter_blocks(tokens)
        bias = None if self.relative_bias is None else self.relative_bias.bias()
        for i, block in enumerate(self.blocks):
            scale = None if branch_scale is None else branch_scale[:, i]
            tokens = block(tokens, branch_scale=scale, bias=bias)
        return tokens if self.norm is None else self.norm(tokens)

    def enter_blocks(self, tokens: Any) -> Any:
        """Return what enters the first block: some of `embed_patches`' tokens after those that stand for no patch."""
        if self.config.num_prefix:
            # Broadcast against the batch without asking for its size, which is unknown while tracing.
            before = self._prefix(self._places()) + ops.zeros_like(tokens[:, :1])
            tokens = ops.concatenate([before, tokens], axis=1)
        return tokens if self.pre_norm is None else self.pre_norm(tokens)

    def _places(self) -> Any:
        """Return the position table in the precision of the computation; None if there is none."""
        if self.position_embedding is None:
            return None
        return ops.cast(ops.convert_to_tensor(self.position_embedding), self.compute_dtype)

    def _prefix(self, place: Any) -> Any:
        """Return the tokens before the patches, (1, P, D); `place` is the position table, None if there is none."""
        tokens = [self.cls_token, self.distillation_token]
        placed = ops.concatenate([ops.cast(t, self.compute_dtype) for t in tokens if t is not None], axis=1)
        if place is not None:
            placed = placed + place[:, : self.config.num_placed]
        if self.register_tokens is None:
            return placed
        return ops.concatenate([placed, ops.cast(self.register_tokens, self.compute_dtype)], axis=1)

    def compute_output_shape(
        self,
        images_shape: tuple[int | None, ...],
        visible_shape: tuple[int | None, ...] | None = None,
        branch_scale_shape: tuple[int | None, ...] | None = None,
    ) -> tuple[int | None, ...]:
        count = self.config.num_patches if visible_shape is None else visible_shape[1]
        tokens = None if count is None else self.config.num_prefix + count
        return (images_shape[0], tokens, self.config.transformer.hidden_dim)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": asdict(self.config)}


class PixelEncoder(keras.layers.Layer):  # type: ignore[misc]
    """Maps the pixels of some patches (B, V, patch_dim) and their numbers int (B, V) to tokens (B, P + V, D).

    The same as the encoder with `visible`, but nothing is computed for the other patches.
    """

    def __init__(self, encoder: ViTEncoder, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.encoder = encoder
        self.built = True

    def call(self, pixels: Any, visible: Any) -> Any:
        return self.encoder.encode_patches(self.encoder.embed_pixels(pixels, visible))

    def compute_output_shape(
        self, pixels_shape: tuple[int | None, ...], visible_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        config = self.encoder.config
        return (pixels_shape[0], config.num_prefix + (pixels_shape[1] or 0), config.transformer.hidden_dim)


class PooledEncoder(keras.layers.Layer):  # type: ignore[misc]
    """Maps what an encoder takes to the mean of its patch tokens or to CLS, float32 (B, D).

    So vectors leave the device and not tokens: 3 kB an image of a ViT-B and not 0.6 MB.

    Args:
        encoder: A layer that returns tokens (B, P + N, D).
        num_prefix: P, tokens before those of the patches; the first is CLS.
        pooling: mean or cls.
    """

    def __init__(self, encoder: Any, num_prefix: int, pooling: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.encoder, self.num_prefix, self.pooling = encoder, num_prefix, pooling
        self.built = True

    def call(self, *inputs: Any) -> Any:
        tokens = keras.ops.cast(self.encoder(*inputs), "float32")
        if self.pooling == "cls":
            return tokens[:, 0]
        return keras.ops.mean(tokens[:, self.num_prefix :], axis=1)


def encoder_config_from_dict(values: dict[str, Any]) -> EncoderConfig:
    """Return the EncoderConfig of a dict from `dataclasses.asdict`, even if it was stored as JSON."""
    decoder, trained = values.get("decoder"), values.get("trained_image_size")
    return EncoderConfig(
        **{
            **values,
            "transformer": TransformerConfig(**values["transformer"]),
            "decoder": TransformerConfig(**decoder) if decoder else None,
            "image_size": tuple(values["image_size"]),
            "patch_size": tuple(values["patch_size"]),
            "trained_image_size": tuple(trained) if trained else None,
        }
    )
