"""A compiled encoder for this device and precision.

Inference on a CPU runs in OpenVINO: Keras' OpenVINO backend starts without TensorFlow and is the fastest path
there. Training, and inference on a GPU, use TensorFlow. Whoever sets `KERAS_BACKEND` decides for both.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelrank.errors import SettingsError

if TYPE_CHECKING:
    from labelrank.models.checkpoint import Checkpoint

TRAINING_BACKENDS = ("tensorflow", "jax", "torch")
BACKENDS = ("openvino", *TRAINING_BACKENDS)
PRECISIONS = ("auto", "float32", "bfloat16")


def preferred_backend(*, training: bool = False) -> str:
    """Return the Keras backend that this process uses, or would use; changes and imports nothing.

    Raises:
        SettingsError: `KERAS_BACKEND` names none that is installed, or one that cannot train.
    """
    if "keras" in sys.modules:
        return sys.modules["keras"].backend.backend()
    default = "tensorflow" if training or has_gpu() else "openvino"
    chosen = os.environ.get("KERAS_BACKEND", default)
    known = TRAINING_BACKENDS if training else BACKENDS
    if chosen not in known or importlib.util.find_spec(chosen) is None:
        raise SettingsError(
            f"KERAS_BACKEND is {chosen!r}; {'training runs' if training else 'labelrank runs'} on {', '.join(known)}, "
            "where it is installed. Unset the variable, or install the backend."
        )
    return chosen


def select_backend(*, training: bool = False) -> str:
    """Settle the Keras backend of this process and return its name; to be called before Keras is imported."""
    # TensorFlow's start-up notes are not for our users; its errors are.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = backend = preferred_backend(training=training)
    return backend


def has_gpu() -> bool:
    """Return whether an NVIDIA driver offers a device here; asks no framework, so it is safe anywhere."""
    return Path("/dev/nvidia0").exists() and os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in ("", "-1")


@dataclass(frozen=True)
class CompiledEncoder:
    """Maps normalised images or clips float32 (batch_size, [T,] H, W, C) to tokens float32 (batch_size, CLS + N, D)."""

    run: Callable[[np.ndarray], np.ndarray]
    batch_size: int
    hidden_dim: int
    precision: str
    runtime: str
    device: str
    has_cls: bool = True
    """Whether the first token is CLS."""
    fc_norm: Callable[[np.ndarray], np.ndarray] | None = None
    """The norm of the checkpoint's head, over pooled features (B, D); None where there is none."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Encode up to `batch_size` images; a short batch is padded, so that nothing is compiled again."""
        count = len(images)
        if count < self.batch_size:
            images = np.concatenate([images, np.zeros((self.batch_size - count, *images.shape[1:]), images.dtype)])
        return self.run(images)[:count]


def resolve_precision(precision: str) -> str:
    """Return the precision that runs for the one asked for.

    Raises:
        SettingsError: It is not one of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise SettingsError(f"Precision is {precision!r}; choose one of {', '.join(PRECISIONS)}.")
    return "float32" if precision == "auto" else precision


def build_encoder(checkpoint: Checkpoint, *, dtype: str = "float32", image_size: tuple[int, int] | None = None) -> Any:
    """Return the checkpoint's encoder, a built `ViTEncoder` with its weights, on the current Keras backend.

    Args:
        image_size: Height and width to encode, to which the position table is interpolated; None: the trained one.

    Raises:
        CheckpointError: The weights do not fit config.json, or the size is not a multiple of the patches.
    """
    from labelrank.models.convert import load_tensors
    from labelrank.models.vit import ViTEncoder

    config = checkpoint.config
    if image_size is not None:
        config = config.resized(*image_size)
    encoder = ViTEncoder(config, name="encoder", dtype=dtype)
    encoder.build((None, *config.input_shape))
    load_tensors(checkpoint.tensors(), encoder, source=checkpoint.source)
    return encoder


def compile_encoder(
    checkpoint: Checkpoint,
    *,
    precision: str = "auto",
    batch_size: int = 8,
    image_size: tuple[int, int] | None = None,
) -> CompiledEncoder:
    """Return the checkpoint's encoder ready to run.

    Args:
        precision: float32 agrees with the published implementation to 1e-4; bfloat16 is faster on processors that
            compute it and off by about one percent; auto is float32.
        image_size: Height and width to encode; None: the trained one.

    Raises:
        CheckpointError: The weights do not fit config.json, or the size is not a multiple of the patches.
        SettingsError: Unknown precision.
    """
    precision = resolve_precision(precision)
    backend = select_backend()
    if backend == "openvino":
        run = _compile_openvino(_as_model(build_encoder(checkpoint, image_size=image_size)), batch_size, precision)
        device = "CPU"
    else:
        policy = "float32" if precision == "float32" else "mixed_bfloat16"
        model = _as_model(build_encoder(checkpoint, dtype=policy, image_size=image_size))
        device = "GPU" if _is_on_gpu(backend) else "CPU"

        def run(images: np.ndarray) -> np.ndarray:
            return np.asarray(model.predict_on_batch(images), dtype=np.float32)

    config = checkpoint.config
    return CompiledEncoder(
        run=run,
        batch_size=batch_size,
        hidden_dim=config.transformer.hidden_dim,
        precision=precision,
        runtime=backend,
        device=device,
        has_cls=config.use_cls_token,
        fc_norm=_head_norm(checkpoint) if config.fc_norm else None,
    )


def _is_on_gpu(backend: str) -> bool:
    if backend == "torch":  # Keras does not list its devices
        return importlib.import_module("torch").cuda.is_available()
    import keras

    return any(device.split(":")[0].lower() in ("gpu", "cuda") for device in keras.distribution.list_devices())


def _head_norm(checkpoint: Checkpoint) -> Callable[[np.ndarray], np.ndarray]:
    from labelrank.models.config import HEAD_NORM_EPSILON
    from labelrank.models.convert import read_tensor

    tensors, shape = checkpoint.tensors(), (checkpoint.config.transformer.hidden_dim,)
    gamma, beta = (
        read_tensor(tensors, f"fc_norm.{part}", shape, source=checkpoint.source) for part in ("weight", "bias")
    )

    def norm(features: np.ndarray) -> np.ndarray:
        centred = features - features.mean(axis=1, keepdims=True)
        deviation = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + HEAD_NORM_EPSILON)
        return (centred / deviation * gamma + beta).astype(np.float32)

    return norm


def _as_model(encoder: Any) -> Any:
    import keras

    images = keras.Input(encoder.config.input_shape, name="images")
    return keras.Model(images, encoder(images))


def _compile_openvino(model: Any, batch_size: int, precision: str) -> Callable[[np.ndarray], np.ndarray]:
    import openvino

    core = openvino.Core()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.xml"
        model.export(str(path), format="openvino", verbose=False)
        exported = core.read_model(path)
        exported.reshape([batch_size, *model.inputs[0].shape[1:]])
        compiled = core.compile_model(
            exported,
            "CPU",
            # OpenVINO takes bfloat16 by itself where the processor has it; the caller decides.
            {
                "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
                "PERFORMANCE_HINT": "LATENCY",
            },
        )
    request = compiled.create_infer_request()

    def run(images: np.ndarray) -> np.ndarray:
        request.infer([np.ascontiguousarray(images, dtype=np.float32)])
        return np.array(request.get_output_tensor(0).data, dtype=np.float32)

    return run
