"""The model that trains: encoder, pooling, norm, head, and AdamW with a rate for each layer, on any Keras backend."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops

from labelrank.errors import SettingsError
from labelrank.finetune.classifier import POOLINGS, copy_encoder, pool
from labelrank.finetune.meanings import Meaning
from labelrank.finetune.recipe import TuneRecipe
from labelrank.models.backend import resolve_precision
from labelrank.models.config import EncoderConfig
from labelrank.models.names import HEAD_NORM
from labelrank.models.vit import ViTEncoder

_BETA_1 = 0.9


def prepare_backend() -> None:
    """Make the backend give the same numbers for the same inputs, if it has a setting for that."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            # With TensorFlow's own setting for deterministic ops, Keras compiles nothing with XLA.
            _add_flag("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
        else:
            tf.config.experimental.enable_op_determinism()
        for device in gpus:
            try:
                tf.config.experimental.set_memory_growth(device, True)
            except RuntimeError:  # the GPU is in use already, so its settings are fixed
                break


def _add_flag(variable: str, flag: str) -> None:
    flags = os.environ.get(variable, "").split()
    if flag not in flags:
        os.environ[variable] = " ".join([*flags, flag])


def training_precision(precision: str) -> str:
    """Return the precision that encoders train in when `precision` is requested; weights are always float32.

    Works as `labelrank.models.backend.resolve_precision`, for the backend that this process trains on.

    Raises:
        SettingsError: The device does not support the precision.
    """
    return resolve_precision(precision, training=True)


def on_gpu() -> bool:
    """Return whether the backend computes on a GPU."""
    if keras.backend.backend() == "torch":
        import importlib

        return bool(importlib.import_module("torch").cuda.is_available())
    return any(device.split(":")[0].lower() in ("gpu", "cuda") for device in keras.distribution.list_devices())


class LayerwiseAdamW(keras.optimizers.Adam):  # type: ignore[misc]
    """AdamW with a learning rate and decay for each variable.

    Args:
        factors: Factors of the learning rate, by index of the trained variable; they scale the decay, too.
        decays: Weight decay of each trained variable.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2, with Keras' epsilon beside the uncorrected root.
    """

    def __init__(self, factors: Sequence[float], decays: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factors, self.decays = list(factors), list(decays)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        # Adam finds its moments in the same way; the variable may be the backend's.
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype) * self.factors[index]
        if self.decays[index]:
            self.assign_sub(variable, ops.multiply(variable, rate * self.decays[index]))
        super().update_step(gradient, variable, rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factors": self.factors, "decays": self.decays}


class Tuner(keras.Model):  # type: ignore[misc]
    """Maps {"images", "visible", "branch_scale", "dropout"} to a meaning's outputs, float32 (B, n_outputs).

    `visible` int (B, V) are the patches that are encoded; without it all are.

    `branch_scale` (B, num_layers, 2) and `dropout` (B, D) hold the factors of stochastic depth and dropout, which the
    caller draws; without them nothing is dropped.
    """

    def __init__(
        self,
        encoder: ViTEncoder,
        meaning: Meaning,
        recipe: TuneRecipe,
        *,
        pooling: str,
        fc_norm: Mapping[str, np.ndarray] | None,
        n_steps: int,
    ) -> None:
        super().__init__(name="tuner", dtype=encoder.dtype_policy)
        config = encoder.config
        if pooling == "fc_norm" and not fc_norm:
            raise SettingsError("Pooling is 'fc_norm', but this checkpoint's head has no norm. Choose mean.")
        self.pooling = config.fc_norm_pools if pooling == "fc_norm" else pooling
        if self.pooling not in POOLINGS or (self.pooling == "cls" and not config.use_cls_token):
            known = POOLINGS if config.use_cls_token else POOLINGS[:1]
            raise SettingsError(f"Pooling is {pooling!r}; this encoder has {', '.join(known)}. Choose one of these.")
        self.meaning, self.recipe = meaning, recipe
        self.fc_norm: Any = None
        self.norm_epsilon = 0.0
        if self.pooling == "mean" or fc_norm:
            self._move_norm(encoder, fc_norm)
        else:
            self.encoder = self._own(encoder, config)
        dim = config.transformer.hidden_dim
        self.hidden = None
        if recipe.head == "reference":
            self.hidden = keras.layers.Dense(recipe.hidden_dim, name="hidden", dtype="float32")
            self.hidden.build((None, dim))
            dim = recipe.hidden_dim
        # From the pooling on, everything is float32, whatever the encoder computes in.
        options = {"dtype": "float32", "autocast": False}
        self.kernel = self.add_weight(shape=(dim, meaning.n_columns), name="kernel", **options)
        self.bias = self.add_weight(shape=(meaning.n_outputs,), name="bias", **options)
        self.built = True
        self._freeze()
        self.take_steps(n_steps)

    def _move_norm(self, encoder: ViTEncoder, fc_norm: Mapping[str, np.ndarray] | None) -> None:
        """Remove the encoder's final norm and add a norm after the pooling. It starts from the norm in the checkpoint's
        head, else from the final norm, or with `fresh_norm` from 1 and 0."""
        config = encoder.config
        # The epsilon of each family's class in transformers.
        self.norm_epsilon = config.head_norm_epsilon
        self.fc_norm = keras.layers.LayerNormalization(epsilon=self.norm_epsilon, name="fc_norm", dtype="float32")
        self.fc_norm.build((None, config.transformer.hidden_dim))
        if fc_norm:
            self.fc_norm.gamma.assign(fc_norm[HEAD_NORM[0]])
            self.fc_norm.beta.assign(fc_norm[HEAD_NORM[1]])
        elif encoder.norm is not None and not self.recipe.fresh_norm:
            self.fc_norm.gamma.assign(ops.convert_to_numpy(encoder.norm.gamma))
            self.fc_norm.beta.assign(ops.convert_to_numpy(encoder.norm.beta))
        self.encoder = self._own(encoder, replace(config, final_norm=False))

    def _own(self, encoder: ViTEncoder, config: EncoderConfig) -> ViTEncoder:
        """Return an encoder of this config, with the weights of `encoder`, that learns what the recipe says."""
        learns_positions = self.recipe.learns_positions
        if config == encoder.config and not learns_positions:
            return encoder
        own = ViTEncoder(config, learns_positions=learns_positions, name="encoder", dtype=encoder.dtype_policy)
        own.build((None, *config.input_shape))
        copy_encoder(encoder, own)
        return own

    def _freeze(self) -> None:
        unfreeze, encoder = self.recipe.unfreeze, self.encoder
        if unfreeze is None:
            return
        if unfreeze == 0:
            encoder.trainable = False
            return
        for block in encoder.blocks[: len(encoder.blocks) - unfreeze]:
            block.trainable = False
        for variable in encoder.embedding_variables:
            variable.trainable = False

    def _rate_and_decay(self, variable: Any) -> tuple[float, float]:
        """Return the factor of the learning rate for a variable's layer, and its weight decay.

        Source: He et al. 2022, published fine-tuning code: embeddings are layer 0, then come the blocks, then the rest
        as the last layer; biases, norms, CLS and the position table do not decay.
        """
        encoder = self.encoder
        last = len(encoder.blocks) + 1
        block_of = {id(v): i + 1 for i, block in enumerate(encoder.blocks) for v in block.variables}
        block_of |= {id(v): 0 for v in encoder.embedding_variables}
        factor = self.recipe.layer_decay ** (last - block_of.get(id(variable), last))
        is_matrix = len(variable.shape) == 2
        return factor, self.recipe.weight_decay if is_matrix else 0.0

    def call(self, inputs: dict[str, Any]) -> Any:
        pooled = pool(
            self.encoder(inputs["images"], inputs.get("visible"), branch_scale=inputs.get("branch_scale")),
            self.pooling,
            self.encoder.config.num_prefix,
        )
        for layer in (self.fc_norm, self.hidden):
            if layer is not None:
                pooled = layer(pooled)
        if "dropout" in inputs:
            pooled = pooled * ops.cast(inputs["dropout"], "float32")
        return self.meaning.outputs(ops.matmul(pooled, self.kernel), self.bias, ops)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        targets, weights = ops.convert_to_tensor(y), ops.convert_to_tensor(sample_weight)
        return ops.sum(weights * self.meaning.loss(y_pred, targets, ops))

    # --- Used by a run

    def take_steps(self, n_steps: int) -> None:
        """Set the number of steps per update; the optimizer starts anew."""
        self.n_steps = n_steps
        factors, decays = zip(*map(self._rate_and_decay, self.trainable_variables), strict=True)
        self.adamw = LayerwiseAdamW(
            factors,
            decays,
            learning_rate=self.recipe.learning_rate,  # `update` sets it each time
            beta_1=_BETA_1,
            beta_2=self.recipe.beta_2,
            gradient_accumulation_steps=n_steps if n_steps > 1 else None,
            name="adamw",
        )
        self.compile(optimizer=self.adamw, jit_compile=on_gpu())
        self.train_function = None  # it belongs to the former optimizer
        self.optimizer.build(self.trainable_variables)

    def step_size(self, update_size: int) -> int:
        """Return the number of samples per step for updates of at most `update_size` samples."""
        return math.ceil(update_size / self.n_steps)

    def update(
        self, inputs: dict[str, np.ndarray], targets: np.ndarray, weights: np.ndarray, rate: float, size: int
    ) -> float:
        """Change the weights once; return the weighted mean of the loss over the update's samples.

        Args:
            inputs, targets, weights: For B samples each; weights are 0 or 1.
            size: Samples of the largest update. Smaller updates are padded with samples of weight 0, so that nothing is
                compiled again.
        """
        step, count = self.step_size(size), len(targets)
        self.adamw.learning_rate = rate
        # Keras averages the gradients of the steps; so each step's loss is scaled to its share of the update's mean.
        weights = weights * np.float32(self.n_steps / max(1.0, float(weights.sum())))
        loss = 0.0
        for number in range(self.n_steps):
            part = slice(number * step, min((number + 1) * step, count))
            x = {name: _filled(value[part], step) for name, value in inputs.items()}
            logs = self.train_on_batch(
                x, _filled(targets[part], step), sample_weight=_filled(weights[part], step), return_dict=True
            )
            loss += float(logs["loss"])
        return loss / self.n_steps

    def outputs(self, inputs: dict[str, np.ndarray], size: int) -> np.ndarray:
        """Return the outputs float32 (B, n_outputs) of at most `size` images; the batch is padded to `size`."""
        padded = {name: _filled(value, size) for name, value in inputs.items()}
        return np.asarray(self.predict_on_batch(padded))[: len(inputs["images"])]

    def set_head(self, hidden: np.ndarray | None, kernel: np.ndarray) -> None:
        """Set the initial kernels of the hidden layer, if there is one, and of the last layer."""
        if self.hidden is not None:
            assert hidden is not None
            self.hidden.kernel.assign(hidden.astype(np.float32))
        self.kernel.assign(kernel.astype(np.float32))
        self.bias.assign(self.meaning.initial_bias())

    def head_arrays(self) -> tuple[Any, ...]:
        """Return gamma, beta and epsilon of the norm, then kernel and bias of the hidden and of the last layer; None
        for those that do not exist."""
        value = ops.convert_to_numpy
        norm = (value(self.fc_norm.gamma), value(self.fc_norm.beta)) if self.fc_norm is not None else (None, None)
        hidden = (value(self.hidden.kernel), value(self.hidden.bias)) if self.hidden is not None else None
        return (*norm, self.norm_epsilon, hidden, value(self.kernel), value(self.bias))

    def weights_of(self) -> dict[str, np.ndarray]:
        """Return the trained weights by name; frozen weights are still those of the checkpoint."""
        return {f"model/{i}": ops.convert_to_numpy(v) for i, v in enumerate(self.trainable_variables)}

    def set_weights_of(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set trained weights that `weights_of` returned."""
        for i, variable in enumerate(self.trainable_variables):
            variable.assign(arrays[f"model/{i}"])

    def state(self) -> dict[str, np.ndarray]:
        """Return the weights and the optimizer's state between two updates; it does not depend on the steps."""
        state = self.weights_of()
        for name, variable in self._optimizer_variables():
            value = ops.convert_to_numpy(variable)
            state[name] = value // self.n_steps if variable is self.adamw._iterations else value
        return state

    def set_state(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set what `state` returned, also for another number of steps."""
        self.set_weights_of(arrays)
        for name, variable in self._optimizer_variables():
            value = arrays[name]
            variable.assign(value * self.n_steps if variable is self.adamw._iterations else value)

    def _optimizer_variables(self) -> list[tuple[str, Any]]:
        # Between two updates, the accumulated gradients are 0.
        kept = [v for v in self.optimizer.variables if "gradient_accumulator" not in v.path]
        return [(f"optimizer/{i}", v) for i, v in enumerate(kept)]


def _filled(values: np.ndarray, size: int) -> np.ndarray:
    if len(values) == size:
        return values
    return np.concatenate([values, np.zeros((size - len(values), *values.shape[1:]), values.dtype)])
