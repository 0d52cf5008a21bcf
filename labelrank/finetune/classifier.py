"""A complete classifier as it is saved after training: encoder, pooling and head, without steps that only training
needs. Importing this module lets `keras.saving.load_model` read a `model.keras`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import keras
from keras import ops

from labelrank.errors import CheckpointError
from labelrank.finetune.meanings import LOGIT_MEANINGS, meaning_of
from labelrank.models.config import EncoderConfig
from labelrank.models.vit import ViTEncoder, encoder_config_from_dict

POOLINGS = ("mean", "cls")
_PACKAGE = "labelrank"


@keras.saving.register_keras_serializable(package=_PACKAGE)
class Classifier(keras.Model):  # type: ignore[misc]
    """Maps normalised images (B, H, W, C) or clips (B, T, H, W, C) to float32 (B, K); the softmax over positions gives
    the probabilities of the classes.

    Tokens are pooled (`mean` of the patches, or `cls`). With `fc_norm_epsilon`, the norm of the checkpoint's head
    follows; with `norm_epsilon`, the norm of the trained layers. Then comes the head. For a `meaning` other than
    softmax and gaussian, its outputs are turned into log-probabilities.

    Args:
        n_classes: K.
        meaning: One of `labelrank.finetune.recipe.MEANINGS`.
    """

    def __init__(
        self,
        encoder_config: EncoderConfig | dict[str, Any],
        n_classes: int,
        *,
        meaning: str = "softmax",
        pooling: str = "mean",
        fc_norm_epsilon: float | None = None,
        norm_epsilon: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(encoder_config, EncoderConfig):
            encoder_config = encoder_config_from_dict(encoder_config)
        if pooling not in POOLINGS or (pooling == "cls" and not encoder_config.use_cls_token):
            known = POOLINGS if encoder_config.use_cls_token else POOLINGS[:1]
            raise CheckpointError(f"Pooling is {pooling!r}; this encoder has {', '.join(known)}. Choose one of these.")
        self.encoder_config, self.n_classes, self.meaning, self.pooling = encoder_config, n_classes, meaning, pooling
        self.fc_norm_epsilon, self.norm_epsilon = fc_norm_epsilon, norm_epsilon
        self.encoder = ViTEncoder(encoder_config, name="encoder", dtype=self.dtype_policy)

        def norm(epsilon: float | None, name: str) -> Any:
            return epsilon and keras.layers.LayerNormalization(epsilon=epsilon, name=name, dtype="float32")

        self.fc_norm, self.norm = norm(fc_norm_epsilon, "fc_norm"), norm(norm_epsilon, "norm")
        self.head = Head(n_classes, meaning, name="head", dtype="float32")

    def build(self, input_shape: Any = None) -> None:
        self.encoder.build((None, *self.encoder_config.input_shape))
        pooled = (None, self.encoder_config.transformer.hidden_dim)
        for layer in (self.fc_norm, self.norm, self.head):
            if layer is not None:
                layer.build(pooled)
        self.built = True

    def call(self, images: Any) -> Any:
        pooled = pool(self.encoder(images), self.pooling, self.encoder_config.num_prefix)
        for layer in (self.fc_norm, self.norm):
            if layer is not None:
                pooled = layer(pooled)
        return self.head.scores(self.head(pooled))

    def compute_output_shape(self, images_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (images_shape[0], self.n_classes)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "encoder_config": asdict(self.encoder_config),
            "n_classes": self.n_classes,
            "meaning": self.meaning,
            "pooling": self.pooling,
            "fc_norm_epsilon": self.fc_norm_epsilon,
            "norm_epsilon": self.norm_epsilon,
        }


@keras.saving.register_keras_serializable(package=_PACKAGE)
class Head(keras.layers.Layer):  # type: ignore[misc]
    """The last layer: maps pooled features (B, D) to the outputs (B, M) of a meaning.

    Args:
        n_classes: K.
        meaning: One of `labelrank.finetune.recipe.MEANINGS`.
    """

    def __init__(self, n_classes: int, meaning: str = "softmax", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_classes, self.meaning = n_classes, meaning

    def build(self, pooled_shape: tuple[int | None, ...]) -> None:
        self._meaning = meaning_of(self.meaning, self.n_classes)
        shape = (pooled_shape[-1], self._meaning.n_columns)
        self.kernel = self.add_weight(shape=shape, initializer="zeros", name="kernel")
        # An ordinal head stores its thresholds as they are used; training has a form of them that stays in order.
        name = "thresholds" if self.meaning == "ordinal" else "bias"
        self.shift = self.add_weight(shape=(self._meaning.n_outputs,), initializer="zeros", name=name)

    def call(self, pooled: Any) -> Any:
        columns = ops.matmul(pooled, self.kernel)
        return columns - self.shift if self.meaning == "ordinal" else columns + self.shift

    def scores(self, outputs: Any) -> Any:
        """Return scores (B, K) whose softmax gives the probabilities of the positions."""
        return outputs if self.meaning in LOGIT_MEANINGS else self._meaning.log_probabilities(outputs, ops)

    def compute_output_shape(self, pooled_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*pooled_shape[:-1], meaning_of(self.meaning, self.n_classes).n_outputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "n_classes": self.n_classes, "meaning": self.meaning}


def pool(tokens: Any, pooling: str, num_prefix: int) -> Any:
    """Pool tokens (B, N, D) to float32 (B, D): the mean of the patch tokens, or the CLS token."""
    tokens = ops.cast(tokens, "float32")
    return tokens[:, 0] if pooling == "cls" else ops.mean(tokens[:, num_prefix:], axis=1)


def copy_encoder(source: ViTEncoder, target: ViTEncoder) -> None:
    """Copy weights into a built encoder of the same sizes; a final norm that only one of them has is not copied."""

    shares_norm = source.norm is not None and target.norm is not None

    def layers(encoder: ViTEncoder) -> list[Any]:
        norm = encoder.norm.variables if encoder.norm is not None and shares_norm else []
        return [*encoder.embedding_variables, *(v for b in encoder.blocks for v in b.variables), *norm]

    for old, new in zip(layers(source), layers(target), strict=True):
        new.assign(ops.convert_to_numpy(old))
