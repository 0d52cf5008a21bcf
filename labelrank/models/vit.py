"""The vision transformer: layers and the encoder. `keras.ops` only, so every Keras backend runs it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import keras
import numpy as np
from keras import ops

from labelrank.models.config import ACTIVATIONS, EncoderConfig, TransformerConfig


def sincos_position_embedding(hidden_dim: int, grid_size: tuple[int, int]) -> np.ndarray:
    """Return the fixed 2-D sine-cosine table, float32 (1, 1 + grid_h * grid_w, hidden_dim); CLS gets zeros.

    The first half of the channels encodes the column, the second half the row, as in the published MAE code.

    Source: He et al. 2022, arXiv:2111.06377, Appendix A.1; Vaswani et al. 2017, section 3.5.
    """

    def one_axis(places: np.ndarray, dim: int) -> np.ndarray:
        frequency = 1.0 / 10000 ** (np.arange(dim // 2, dtype=np.float64) / (dim / 2))
        angle = places.reshape(-1, 1) * frequency
        return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)

    rows, columns = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in grid_size), indexing="ij")
    table = np.concatenate([one_axis(columns, hidden_dim // 2), one_axis(rows, hidden_dim // 2)], axis=1)
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
    table: np.ndarray, from_grid: tuple[int, int], to_grid: tuple[int, int], *, use_cls_token: bool
) -> np.ndarray:
    """Return a position table (1, N, D) for another grid of patches; CLS and time do not change.

    Source: bicubic convolution with a = -0.75 (Keys 1981) over pixel centres with repeated borders, as PyTorch's
    `interpolate(mode="bicubic", align_corners=False)`, which transformers calls for `interpolate_pos_encoding`.
    """
    if from_grid == to_grid:
        return table
    cls, patches = table[:, : int(use_cls_token)], table[:, int(use_cls_token) :]
    dim = table.shape[-1]
    rows, columns = (_bicubic_weights(n, m) for n, m in zip(from_grid, to_grid, strict=True))
    grid = patches.reshape(-1, *from_grid, dim).astype(np.float64)  # (slices, rows, columns, D)
    grid = np.einsum("ir,jc,trcd->tijd", rows, columns, grid, optimize=True)
    return np.concatenate([cls, grid.reshape(1, -1, dim).astype(np.float32)], axis=1)


def _bicubic_weights(length: int, wanted: int) -> np.ndarray:
    """Return the matrix (wanted, length) that resizes one axis."""
    a = -0.75
    place = (np.arange(wanted) + 0.5) * length / wanted - 0.5
    weights = np.zeros((wanted, length))
    for step in range(-1, 3):
        neighbour = np.floor(place) + step
        distance = np.abs(place - neighbour)
        near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
        far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
        source = np.clip(neighbour, 0, length - 1).astype(np.int64)
        np.add.at(weights, (np.arange(wanted), source), np.where(distance <= 1, near, far))
    return weights


def add_position_embedding(layer: keras.layers.Layer, hidden_dim: int, config: EncoderConfig) -> Any:
    """Return a layer's position table (1, CLS + N, hidden_dim).

    If checkpoints store the table, it is a weight; before loading it holds the fixed table, or noise if it is learned.
    If the table is always computed, it is an array, so that it does not count as a parameter.
    """
    cls = int(config.use_cls_token)
    if config.position_embedding == "sinusoid":
        (rows, columns), slices = config.trained_grid_size, config.num_slices
        table = sinusoid_position_embedding(hidden_dim, slices * rows * columns)
        return interpolate_position_embedding(table, (rows, columns), config.grid_size, use_cls_token=bool(cls))
    if config.position_embedding == "learned":
        return layer.add_weight(
            shape=(1, cls + config.num_patches, hidden_dim),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="position_embedding",
        )
    table = sincos_position_embedding(hidden_dim, config.grid_size)
    return layer.add_weight(
        shape=table.shape,
        initializer=lambda shape, dtype=None: ops.convert_to_tensor(table, dtype=dtype),
        trainable=False,
        name="position_embedding",
    )


def patchify(images: Any, patch_size: tuple[int, int], tubelet_size: int | None = None) -> Any:
    """Cut images (B, H, W, C) into flat patches (B, N, patch_h * patch_w * C), row by row, channels last.

    With `tubelet_size`, cut clips (B, T, H, W, C) into flat tubelets (B, N, tubelet * patch_h * patch_w * C), slice by
    slice, their frames one after the other.
    """
    height, width, channels = images.shape[-3:]
    depth = tubelet_size or 1
    slices = images.shape[1] // depth if tubelet_size else 1
    ph, pw = patch_size
    rows, columns = height // ph, width // pw
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

        def dense(name: str, use_bias: bool) -> keras.layers.Dense:
            return keras.layers.Dense(hidden_dim, use_bias=use_bias, dtype=self.dtype_policy, name=name)

        self.query = dense("query", use_qkv_bias)
        self.key = dense("key", use_qkv_bias and use_key_bias)
        self.value = dense("value", use_qkv_bias)
        self.output_dense = dense("output", True)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for layer in (self.query, self.key, self.value, self.output_dense):
            layer.build(input_shape)

    def call(self, tokens: Any) -> Any:
        num_tokens = tokens.shape[1]
        head_dim = self.hidden_dim // self.num_heads

        def heads(x: Any, axes: tuple[int, ...]) -> Any:
            return ops.transpose(ops.reshape(x, (-1, num_tokens, self.num_heads, head_dim)), axes)

        query = heads(self.query(tokens) * head_dim**-0.5, (0, 2, 1, 3))  # (B, heads, N, head_dim)
        key = heads(self.key(tokens), (0, 2, 3, 1))  # (B, heads, head_dim, N)
        value = heads(self.value(tokens), (0, 2, 1, 3))
        mixed = ops.matmul(ops.softmax(ops.matmul(query, key), axis=-1), value)
        return self.output_dense(ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (-1, num_tokens, self.hidden_dim)))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "num_heads": self.num_heads,
            "use_qkv_bias": self.use_qkv_bias,
            "use_key_bias": self.use_key_bias,
        }


class TransformerBlock(keras.layers.Layer):  # type: ignore[misc]
    """A pre-norm block: tokens + attention(norm(tokens)), then + mlp(norm(tokens))."""

    def __init__(self, config: TransformerConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config = config if isinstance(config, TransformerConfig) else TransformerConfig(**config)
        kind, options = ACTIVATIONS[config.activation]
        self.activation, self.activation_options = getattr(keras.activations, kind), options
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

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for layer in (self.norm_before, self.attention, self.norm_after, self.mlp_in):
            layer.build(input_shape)
        self.mlp_out.build((*input_shape[:-1], self.config.mlp_dim))

    def call(self, tokens: Any, branch_scale: Any = None) -> Any:
        """Return tokens of the same shape.

        Args:
            branch_scale: For stochastic depth, float (B, 2): factors of the two branches, 0 for a dropped branch;
                None: factors of 1, as outside training.
        """
        attended = self.attention(self.norm_before(tokens))
        if branch_scale is not None:
            attended = attended * ops.cast(branch_scale[:, :1, None], attended.dtype)
        tokens = tokens + attended
        hidden = self.activation(self.mlp_in(self.norm_after(tokens)), **self.activation_options)
        hidden = self.mlp_out(hidden)
        if branch_scale is not None:
            hidden = hidden * ops.cast(branch_scale[:, 1:, None], hidden.dtype)
        return tokens + hidden

    def compute_output_shape(
        self, tokens_shape: tuple[int | None, ...], branch_scale_shape: tuple[int | None, ...] | None = None
    ) -> tuple[int | None, ...]:
        return tokens_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": asdict(self.config)}


class ViTEncoder(keras.layers.Layer):  # type: ignore[misc]
    """Maps normalised images (B, H, W, C) or clips (B, T, H, W, C) to tokens (B, CLS + N, D), a CLS token first.

    With `visible` int (B, V), only those patches are encoded, in that order: tokens (B, CLS + V, D). Without it, all
    patches are encoded in reading order, as feature extraction needs.

    With `branch_scale` float (B, num_layers, 2), each block's two branches are multiplied by these factors, which the
    caller draws in training: stochastic depth (Huang et al. 2016, arXiv:1603.09382).

    Source: Dosovitskiy et al. 2021, arXiv:2010.11929; He et al. 2022, arXiv:2111.06377; Tong et al. 2022,
    arXiv:2203.12602.
    """

    def __init__(self, config: EncoderConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config = config if isinstance(config, EncoderConfig) else encoder_config_from_dict(config)
        transformer = config.transformer
        self.num_cls = int(config.use_cls_token)
        self.patch_embedding = keras.layers.Dense(
            transformer.hidden_dim, name="patch_embedding", dtype=self.dtype_policy
        )
        self.blocks = [
            TransformerBlock(transformer, name=f"block_{i}", dtype=self.dtype_policy)
            for i in range(transformer.num_layers)
        ]
        self.norm = None
        if config.final_norm:
            self.norm = keras.layers.LayerNormalization(
                epsilon=transformer.layer_norm_epsilon, name="norm", dtype=self.dtype_policy
            )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        config = self.config
        dim = config.transformer.hidden_dim
        self.cls_token = None
        if config.use_cls_token:
            self.cls_token = self.add_weight(
                shape=(1, 1, dim), initializer=keras.initializers.RandomNormal(stddev=0.02), name="cls_token"
            )
        self.position_embedding = add_position_embedding(self, dim, config)
        self.patch_embedding.build((None, config.num_patches, config.patch_dim))
        tokens_shape = (None, self.num_cls + config.num_patches, dim)
        for layer in (*self.blocks, *([self.norm] if self.norm else [])):
            layer.build(tokens_shape)

    def call(self, images: Any, visible: Any = None, branch_scale: Any = None) -> Any:
        position = ops.cast(ops.convert_to_tensor(self.position_embedding), self.compute_dtype)
        tokens = self.patch_embedding(patchify(images, self.config.patch_size, self.config.tubelet_size))
        tokens = tokens + position[:, self.num_cls :]
        if visible is not None:
            tokens = ops.take_along_axis(tokens, visible[:, :, None], axis=1)
        if self.cls_token is not None:
            cls = ops.cast(self.cls_token, self.compute_dtype) + position[:, :1]
            # Broadcast against the batch without asking for its size, which is unknown while tracing.
            cls = cls + ops.zeros_like(tokens[:, :1])
            tokens = ops.concatenate([cls, tokens], axis=1)
        for i, block in enumerate(self.blocks):
            tokens = block(tokens) if branch_scale is None else block(tokens, branch_scale=branch_scale[:, i])
        return tokens if self.norm is None else self.norm(tokens)

    def compute_output_shape(
        self,
        images_shape: tuple[int | None, ...],
        visible_shape: tuple[int | None, ...] | None = None,
        branch_scale_shape: tuple[int | None, ...] | None = None,
    ) -> tuple[int | None, ...]:
        count = self.config.num_patches if visible_shape is None else visible_shape[1]
        return (images_shape[0], None if count is None else self.num_cls + count, self.config.transformer.hidden_dim)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": asdict(self.config)}


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
