"""The layer of a patch ranker, its weights read and written. `keras.ops` only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from labelrank.models.convert import load_tensors, read_tensor, save_tensors
from labelrank.models.vit import ViTEncoder
from labelrank.patches.losses import LOSSES
from labelrank.patches.ranker_config import HEAD_BIAS, HEAD_WEIGHT, RankerConfig


class PatchRanker(keras.layers.Layer):  # type: ignore[misc]
    """Maps normalised images (B, H, W, C) or clips (B, T, H, W, C) to a score of each patch (B, N).

    A ViT that sees all patches; its head is one number from each patch's token (token), or N from CLS (cls).

    Source: Luo et al. 2024, arXiv:2404.00680, whose head is cls.
    """

    def __init__(self, config: RankerConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.encoder = ViTEncoder(config.encoder, name="encoder", dtype=self.dtype_policy)
        # Scores are compared with each other, so the last step is as exact as it can be.
        self.head = keras.layers.Dense(config.head_dim, name="ranking_head", dtype="float32")

    def build(self, input_shape: tuple[int | None, ...] | None = None) -> None:
        vit = self.config.encoder
        self.encoder.build((None, *vit.input_shape))
        self.head.build((None, vit.transformer.hidden_dim))
        self.built = True

    def call(self, images: Any) -> Any:
        tokens = self.encoder(images)
        if self.config.head == "cls":
            return self.head(tokens[:, 0])
        return ops.squeeze(self.head(tokens[:, self.config.encoder.num_prefix :]), axis=-1)

    def compute_output_shape(self, images_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (images_shape[0], self.config.num_patches)


class RankerTrainer(keras.Model):  # type: ignore[misc]
    """A ranker in training.

    Called with a dict: `images`, and `visible` int (B, lists, V), the patches that have scores. Returns the ranker's
    scores of these (B * lists, V); the targets are the teacher's, of the same shape.
    """

    def __init__(self, ranker: PatchRanker, loss: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ranker, self.ranking_loss = ranker, LOSSES[loss]

    def build(self, input_shape: Any = None) -> None:
        self.ranker.build()
        self.built = True

    def call(self, inputs: dict[str, Any]) -> Any:
        visible = inputs["visible"]
        lists, count = visible.shape[1:]
        flat = ops.reshape(visible, (-1, lists * count))
        return ops.reshape(ops.take_along_axis(self.ranker(inputs["images"]), flat, axis=1), (-1, count))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Keras' hook."""
        return self.ranking_loss(y_pred, y)


def load_ranker(
    config: RankerConfig, tensors: Mapping[str, np.ndarray], *, source: str, dtype: str = "float32"
) -> PatchRanker:
    """Return a ranker's layer, built and with its weights.

    Args:
        tensors: As `ranker_tensors` gives them.
        source: What to call the file in errors.
        dtype: A Keras dtype policy.

    Raises:
        CheckpointError: The weights are damaged, or do not fit the sizes.
    """
    layer = PatchRanker(config, name="ranker", dtype=dtype)
    layer.build()
    in_vit = {name: tensor for name, tensor in tensors.items() if name not in (HEAD_WEIGHT, HEAD_BIAS)}
    load_tensors(in_vit, layer.encoder, source=source)
    out, dim = config.head_dim, config.encoder.transformer.hidden_dim
    layer.head.kernel.assign(read_tensor(tensors, HEAD_WEIGHT, (out, dim), source=source).T)
    layer.head.bias.assign(read_tensor(tensors, HEAD_BIAS, (out,), source=source))
    return layer


def ranker_tensors(layer: PatchRanker) -> dict[str, np.ndarray]:
    """Return name -> float32 array in Hugging Face's layout; `load_ranker` is the inverse."""
    head = {
        HEAD_WEIGHT: np.ascontiguousarray(ops.convert_to_numpy(layer.head.kernel).T),
        HEAD_BIAS: ops.convert_to_numpy(layer.head.bias),
    }
    return {**save_tensors(layer.encoder), **head}
