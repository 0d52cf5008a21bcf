"""A masked autoencoder with its weights, and layers of it compiled for this device."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelrank.models.runtime import openvino_settings

if TYPE_CHECKING:
    from labelrank.models.checkpoint import Checkpoint


def load_autoencoder(checkpoint: Checkpoint) -> Any:
    """Return a `MaskedAutoencoder` with the weights of a checkpoint that has a decoder."""
    from labelrank.models.convert import load_tensors
    from labelrank.models.mae import MaskedAutoencoder

    autoencoder = MaskedAutoencoder(checkpoint.config)
    autoencoder.build()
    load_tensors(checkpoint.tensors(), autoencoder.encoder, autoencoder.decoder, source=checkpoint.source)
    return autoencoder


def compiled(
    layer: Any, shapes: Sequence[tuple[int, ...]], types: Sequence[str], runtime: str
) -> Callable[..., np.ndarray]:
    """Return a function of arrays with these shapes and types that does what a layer with one output does.

    Args:
        runtime: The backend that is selected (`models.backend.select_backend`).
    """
    if runtime == "openvino":
        return _compile_openvino(layer, shapes, types)
    if runtime == "tensorflow":
        return _compile_tensorflow(layer, shapes, types)

    def run(*inputs: np.ndarray) -> np.ndarray:
        from keras import ops

        return np.asarray(ops.convert_to_numpy(layer(*map(ops.convert_to_tensor, inputs))))

    return run


def _compile_tensorflow(layer: Any, shapes: Any, types: Any) -> Callable[..., np.ndarray]:
    import tensorflow as tf

    # A score is a small difference between two reconstructions.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    signature = [tf.TensorSpec(shape, type_) for shape, type_ in zip(shapes, types, strict=True)]
    on_gpu = bool(tf.config.list_physical_devices("GPU"))

    @tf.function(input_signature=signature, jit_compile=on_gpu, autograph=False)  # type: ignore[untyped-decorator]
    def call(*inputs: Any) -> Any:
        return layer(*inputs)

    call.get_concrete_function()  # traced now, so that errors come before the first sample
    return lambda *inputs: np.asarray(call(*map(tf.convert_to_tensor, inputs)))


def _compile_openvino(layer: Any, shapes: Any, types: Any) -> Callable[..., np.ndarray]:
    import keras
    import openvino

    # Keras exports several inputs only by name, in the order of their names.
    specs = {name: keras.InputSpec(*of) for name, *of in zip("abcd"[: len(types)], types, shapes, strict=True)}
    inputs = {name: keras.Input(batch_shape=spec.shape, dtype=spec.dtype, name=name) for name, spec in specs.items()}
    model = keras.Model(inputs, layer(*inputs.values()))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "layer.xml"
        model.export(str(path), format="openvino", verbose=False, input_signature=specs)
        core = openvino.Core()
        request = core.compile_model(core.read_model(path), "CPU", openvino_settings("float32")).create_infer_request()

    def run(*arrays: np.ndarray) -> np.ndarray:
        request.infer(list(arrays))
        return np.array(request.get_output_tensor(0).data, dtype=np.float32)

    return run
