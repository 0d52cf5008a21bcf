"""A compiled encoder for this device and precision.

Inference on a CPU runs in OpenVINO: Keras' OpenVINO backend starts without TensorFlow and is the fastest there. A
model is exported from Keras once and kept, so the next start does not need Keras; that of the embedded checkpoint of
the demo is exported already. Training and inference on a GPU use
TensorFlow, or JAX or PyTorch if only they have a GPU build. The variable `KERAS_BACKEND` overrides both choices.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

import labelrank
from labelrank.cores import cpu_cores
from labelrank.errors import CheckpointError, SettingsError
from labelrank.models.backend import devices, resolve_precision, select_backend
from labelrank.models.config import EncoderConfig
from labelrank.models.cutting import cut_patches
from labelrank.models.exported import Damaged, Unwritable, copy_entry, entry_path, load_kept
from labelrank.models.names import HEAD_NORM
from labelrank.settings import assets_dir

if TYPE_CHECKING:
    from labelrank.models.checkpoint import Checkpoint


T = TypeVar("T")
_MODEL, _HEAD = "encoder.xml", "head.safetensors"  # the weights lie beside the first


# --- Encoders


@dataclass(frozen=True)
class Steps:
    """The three steps of encoding a batch; the device may still be working when the first two return."""

    put: Callable[..., Any]
    """Copies the model's inputs to the device."""
    encode: Callable[[Any], Any]
    """Runs the model on them and returns tokens in float32."""
    fetch: Callable[[Any], np.ndarray]
    """Copies tokens from the device."""

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        return self.fetch(self.encode(self.put(*inputs)))


@dataclass(frozen=True)
class CompiledEncoder:
    """Maps normalised images or clips float32 (batch_size, [T,] H, W, C) to tokens float32 (batch_size, P + N, D).

    Where the device pools them, to features (batch_size, D).
    """

    run: Callable[..., np.ndarray]
    """Encodes a full batch: inputs, or with `cut` what that returns and the numbers of the patches. For backends other
    than OpenVINO these are `Steps`, which `benchmarks/gpu.py` times."""
    batch_size: int
    hidden_dim: int
    precision: str
    runtime: str
    device: str
    num_prefix: int = 1
    """Tokens before those of the patches; the first is CLS."""
    fc_norm: Callable[[np.ndarray], np.ndarray] | None = None
    """The norm of the checkpoint's head, over pooled features (B, D); None for a checkpoint without one."""
    fc_norm_pools: str = "mean"
    """What that norm is for: the mean of the patch tokens, or cls."""
    reused: bool = False
    """Whether the model came from the cache."""
    entry: Path | None = None
    """Folder of the exported model; None if none is kept. The model is already loaded, so eviction is no problem."""
    cut: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    """Takes the pixels (B, K, patch_dim) of the kept patches int (B, K) from inputs; None: all patches are encoded."""

    def __call__(self, images: np.ndarray, visible: np.ndarray | None = None) -> np.ndarray:
        """Encode up to `batch_size` images; a short batch is padded to avoid a second compilation.

        Args:
            visible: The patches of each image to encode, int (B, K), for an encoder that was compiled for K of them;
                then the tokens are (B, P + K, D).
        """
        if self.cut is None:
            assert visible is None, "compile_encoder was not told how many patches are kept"
            return _padded(self.run, self.batch_size, images)
        assert visible is not None, "compile_encoder was told that some patches are kept"
        return _padded(self.run, self.batch_size, self.cut(images, visible), visible)


@dataclass(frozen=True)
class CompiledLayer:
    """Maps inputs float32 (batch_size, ...) to what a layer makes of them, float32."""

    run: Callable[[np.ndarray], np.ndarray]
    """Takes a full batch."""
    batch_size: int
    precision: str
    runtime: str
    device: str
    reused: bool = False
    """Whether the model came from the cache."""
    entry: Path | None = None
    """Folder of the exported model; None if none is kept."""

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Return the results of up to `batch_size` inputs; a short batch is padded."""
        return _padded(self.run, self.batch_size, inputs)


def _padded(run: Callable[..., np.ndarray], batch_size: int, *inputs: np.ndarray) -> np.ndarray:
    count = len(inputs[0])
    if count < batch_size:
        inputs = tuple(np.concatenate([x, np.zeros((batch_size - count, *x.shape[1:]), x.dtype)]) for x in inputs)
    return run(*inputs)[:count]


@dataclass(frozen=True)
class _Input:
    """An input of a model."""

    name: str
    shape: tuple[int, ...]
    """Of one input, without the axis of the batch."""
    dtype: str = "float32"


def build_encoder(checkpoint: Checkpoint, *, dtype: str = "float32", image_size: tuple[int, int] | None = None) -> Any:
    """Return the checkpoint's encoder, a built `ViTEncoder` with its weights, on the current Keras backend.

    Args:
        dtype: A Keras dtype policy, such as mixed_bfloat16.
        image_size: Height and width of the input; the position table is interpolated to it. None: the trained size.

    Raises:
        CheckpointError: The weights do not fit config.json, or the size is not a multiple of the patches.
    """
    from labelrank.models.convert import load_tensors
    from labelrank.models.vit import ViTEncoder

    config = _sized(checkpoint, image_size)
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
    keep: int | None = None,
    pooling: str | None = None,
    cache: Path | None = None,
) -> CompiledEncoder:
    """Return the checkpoint's encoder ready to run.

    Args:
        precision: float32 agrees with the published implementation to 1e-4. bfloat16 is faster on processors that
            support it and differs by about one percent; the same holds for float16 on GPUs. auto suits the device
            (`resolve_precision`).
        image_size: Height and width of the input; None: the trained size.
        keep: How many patches of each input are encoded; which ones is given with it. None: all.
        pooling: How tokens will be pooled, so that backends other than OpenVINO do it on the device and return features
            (batch_size, D); before the norm of `fc_norm`. In bfloat16, OpenVINO would round the mean once more.
        cache: Folder in which exported models are kept for the next time; None: nothing is kept. One model serves
            every precision and batch size, which are set when it is loaded. Backends other than OpenVINO keep none.

    Raises:
        CheckpointError: The weights do not fit config.json, or the size is not a multiple of the patches; or some
            patches are to be kept, and the encoder takes all of them (`check_droppable`).
        SettingsError: Unknown precision, or float16 without a GPU.
    """
    precision = resolve_precision(precision)
    backend = select_backend()
    config = _sized(checkpoint, image_size)
    if keep is not None:
        check_droppable(config)
    entry, reused, inputs = None, False, _inputs(config, keep)
    if backend == "openvino":
        on_gpu = False
        (run, head), entry, reused = _load_exported(
            checkpoint,
            config,
            cache,
            lambda folder: (
                _compile_openvino(folder / _MODEL, inputs, batch_size, precision),
                _read_head(folder, config),
            ),
            keep=keep,
        )
    else:
        build = functools.partial(_build, checkpoint, config, keep, pooling)
        run, on_gpu = _compile_keras(build, inputs, batch_size, backend, precision)
        head = _head_of(checkpoint, config)
    return CompiledEncoder(
        run=run,
        batch_size=batch_size,
        hidden_dim=config.transformer.hidden_dim,
        precision=precision,
        runtime=backend,
        device="GPU" if on_gpu else "CPU",
        num_prefix=config.num_prefix,
        fc_norm=_norm(head[HEAD_NORM[0]], head[HEAD_NORM[1]], config.head_norm_epsilon) if head else None,
        fc_norm_pools=config.fc_norm_pools,
        reused=reused,
        entry=entry,
        cut=None if keep is None else lambda images, visible: cut_patches(images, config, visible),
    )


def compile_layer(
    build: Callable[..., Any],
    input_shape: tuple[int, ...],
    *,
    identity: Mapping[str, Any],
    what: str,
    precision: str = "auto",
    batch_size: int = 8,
    cache: Path | None = None,
    training: bool = False,
) -> CompiledLayer:
    """Return a layer of one input and one output ready to run, as `compile_encoder` does an encoder.

    Args:
        build: Called with the keyword `dtype`, a Keras dtype policy; returns the built layer with its weights.
        input_shape: Of one input.
        identity: Everything that determines the layer, as JSON values; versions of libraries are added.
        what: What to call it in messages.
        training: Whether it runs beside a model that is trained, so on that model's backend.
        The others are as for `compile_encoder`.

    Raises:
        CheckpointError: The exported model cannot be written.
        SettingsError: As for `compile_encoder`.
    """
    precision = resolve_precision(precision)
    backend = select_backend(training=training)
    entry, reused, inputs = None, False, (_Input("images", input_shape),)
    if backend == "openvino":
        on_gpu = False
        run, entry, reused = _kept_or_exported(
            {**identity, **_versions()},
            lambda folder: _export_layer(build(dtype="float32"), inputs, folder),
            cache,
            lambda folder: _compile_openvino(folder / _MODEL, inputs, batch_size, precision),
            what=what,
        )
    else:
        run, on_gpu = _compile_keras(build, inputs, batch_size, backend, precision)
    return CompiledLayer(run, batch_size, precision, backend, "GPU" if on_gpu else "CPU", reused, entry)


def check_droppable(config: EncoderConfig) -> None:
    """Raise CheckpointError if an encoder cannot encode some of its patches alone."""
    if not config.drops_patches:
        raise CheckpointError(
            f"A {config.model_type} encoder looks up where patches are by their number in the sequence, so none can be "
            "left out. Leave out --keep, or choose an encoder that adds a place to each patch, such as a ViT-MAE, "
            "VideoMAE, DINOv2 or CLIP."
        )


def _inputs(config: EncoderConfig, keep: int | None) -> tuple[_Input, ...]:
    """Return the inputs of an encoder, sorted by name, as Keras exports them."""
    if keep is None:
        return (_Input("images", config.input_shape),)
    return _Input("pixels", (keep, config.patch_dim)), _Input("visible", (keep,), "int32")


def _build(
    checkpoint: Checkpoint,
    config: EncoderConfig,
    keep: int | None,
    pooling: str | None = None,
    *,
    dtype: str = "float32",
) -> Any:
    """Return the layer that takes `_inputs`."""
    encoder = build_encoder(checkpoint, dtype=dtype, image_size=config.image_size)
    from labelrank.models.vit import PixelEncoder, PooledEncoder

    layer = encoder if keep is None else PixelEncoder(encoder, dtype=dtype)
    if pooling is None:
        return layer
    return PooledEncoder(layer, config.num_prefix, config.fc_norm_pools if pooling == "fc_norm" else pooling)


def _sized(checkpoint: Checkpoint, image_size: tuple[int, int] | None) -> EncoderConfig:
    return checkpoint.config if image_size is None else checkpoint.config.resized(*image_size)


def _head_of(checkpoint: Checkpoint, config: EncoderConfig) -> dict[str, np.ndarray]:
    """Return scale and shift of the norm in a checkpoint's head, by `HEAD_NORM`; empty if it has no such norm."""
    from labelrank.models.convert import read_head_norm

    return read_head_norm(checkpoint.tensors(), config, source=checkpoint.source) if config.fc_norm else {}


def _norm(scale: np.ndarray, shift: np.ndarray, epsilon: float) -> Callable[[np.ndarray], np.ndarray]:
    def norm(features: np.ndarray) -> np.ndarray:
        centred = features - features.mean(axis=1, keepdims=True)
        deviation = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + epsilon)
        result: np.ndarray = (centred / deviation * scale + shift).astype(np.float32)
        return result

    return norm


# --- OpenVINO, from a model that was exported once


def openvino_settings(precision: str) -> dict[str, Any]:
    """Return how OpenVINO compiles our models for this processor, in float32 or bfloat16."""
    return {
        # By default OpenVINO uses bfloat16 if the processor supports it; here the caller decides.
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "PERFORMANCE_HINT": "LATENCY",
        # OpenVINO counts the cores of the machine, not those that a container allows.
        "INFERENCE_NUM_THREADS": cpu_cores(),
        # A pinned thread waits for other programs on its core; without other programs, pinning gains nothing.
        "ENABLE_CPU_PINNING": False,
    }


def _compile_openvino(
    model: Path, inputs: Sequence[_Input], batch_size: int, precision: str
) -> Callable[..., np.ndarray]:
    import openvino

    core = openvino.Core()
    exported = core.read_model(model)
    exported.reshape({port: [batch_size, *of.shape] for port, of in zip(exported.inputs, inputs, strict=True)})
    request = core.compile_model(exported, "CPU", openvino_settings(precision)).create_infer_request()

    def run(*arrays: np.ndarray) -> np.ndarray:
        request.infer([np.ascontiguousarray(x, of.dtype) for x, of in zip(arrays, inputs, strict=True)])
        return np.array(request.get_output_tensor(0).data, dtype=np.float32)

    return run


def _load_exported(
    checkpoint: Checkpoint,
    config: EncoderConfig,
    cache: Path | None,
    load: Callable[[Path], T],
    *,
    keep: int | None = None,
) -> tuple[T, Path | None, bool]:
    """As `_kept_or_exported`, for a checkpoint's encoder."""
    identity = _identity(checkpoint, config) | ({} if keep is None else {"keep": keep})

    def export(folder: Path) -> None:
        if not _copy_shipped(identity, folder):
            _export(checkpoint, config, folder, keep=keep)

    return _kept_or_exported(identity, export, cache, load, what=f"encoder of {checkpoint.source}")


def shipped_encoders() -> Path:
    """Return the folder of the encoders that come with labelrank, in the form of the cache.

    `make encoders` writes it. An encoder of another version of labelrank, Keras or OpenVINO is of another identity, so
    it is not used.
    """
    return assets_dir() / "encoders"


def _copy_shipped(identity: Mapping[str, Any], folder: Path) -> bool:
    """Fill an empty folder with the exported encoder that came with labelrank, and return whether there is one."""
    entry = entry_path(shipped_encoders(), identity)
    if not entry.is_dir():
        return False
    try:
        copy_entry(entry, identity, folder)
    except Damaged as error:
        print(f"{entry} came with labelrank and has changed since ({error}); it is made again.", file=sys.stderr)
        return False
    return True


def _kept_or_exported(
    identity: Mapping[str, Any],
    export: Callable[[Path], None],
    cache: Path | None,
    load: Callable[[Path], T],
    *,
    what: str,
) -> tuple[T, Path | None, bool]:
    """Load an exported model from its folder; export it first if needed.

    Args:
        export: Fills an empty folder; may raise `Unwritable`.
        load: Takes the folder, whose content is complete and checked. The folder may be removed afterwards.
        what: What to call the model in messages.

    Returns:
        The result of `load`; the folder of the model, None if it is not kept; whether it existed before.
    """
    if cache is not None:
        try:
            loaded, reused = load_kept(cache, identity, export, load)
            return loaded, entry_path(cache, identity), reused
        except Unwritable as error:
            print(f"The {what} cannot be kept in {cache} ({error}), so the next start is slower.", file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        try:
            export(Path(name))
        except Unwritable as error:
            raise CheckpointError(
                f"The {what} cannot be written to {name} ({error}). Make room there, or set TMPDIR to another folder."
            ) from error
        return load(Path(name)), None, False


def _identity(checkpoint: Checkpoint, config: EncoderConfig) -> dict[str, Any]:
    """Return everything that determines an exported model."""
    return {"checkpoint": checkpoint.digest, "image_size": list(config.image_size), **_versions()}


def _versions() -> dict[str, str]:
    return {"labelrank": labelrank.__version__, **{name: metadata.version(name) for name in ("keras", "openvino")}}


def _export(checkpoint: Checkpoint, config: EncoderConfig, folder: Path, *, keep: int | None = None) -> None:
    """Write a checkpoint's encoder for OpenVINO, with any batch size, and the norm of its head.

    Raises:
        CheckpointError: The weights do not fit config.json.
        HubError: The weights cannot be downloaded.
        Unwritable: The folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    _export_layer(_build(checkpoint, config, keep), _inputs(config, keep), folder)
    if head := _head_of(checkpoint, config):
        try:
            save_file(head, folder / _HEAD)
        except (OSError, SafetensorError) as error:
            raise _unwritable(folder, error) from error


def _export_layer(layer: Any, inputs: Sequence[_Input], folder: Path) -> None:
    import keras

    given = {of.name: keras.Input(of.shape, dtype=of.dtype, name=of.name) for of in inputs}
    if len(inputs) == 1:
        model, signature = keras.Model(*given.values(), layer(*given.values())), None
    else:
        # Keras exports several inputs only by name.
        model = keras.Model(given, layer(*given.values()))
        signature = {of.name: keras.InputSpec(of.dtype, (None, *of.shape)) for of in inputs}
    try:
        model.export(str(folder / _MODEL), format="openvino", verbose=False, input_signature=signature)
    except (OSError, RuntimeError) as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: Exception) -> Unwritable:
    # OpenVINO's only message for a full disk is "iostream error".
    return Unwritable(f"{error}; {shutil.disk_usage(folder).free / 2**20:,.0f} MiB are free")


def _read_head(folder: Path, config: EncoderConfig) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / _HEAD) if config.fc_norm else {}


# --- Keras' other backends


def _compile_keras(
    build: Callable[..., Any], inputs: Sequence[_Input], batch_size: int, backend: str, precision: str
) -> tuple[Steps, bool]:
    """Return a layer compiled for a batch, and whether it runs on a GPU."""
    # Must run before a device is used.
    prepare, compile_ = {
        "tensorflow": (_prepare_tensorflow, _compile_tensorflow),
        "jax": (_prepare_jax, _compile_jax),
        "torch": (_prepare_torch, _compile_torch),
    }[backend]
    prepare(is_exact=precision == "float32")
    layer = build(dtype=precision if precision == "float32" else f"mixed_{precision}")
    on_gpu = _is_on_gpu(backend)
    if not on_gpu and devices()[0].kind == "GPU":
        raise SettingsError(
            f"{backend} finds no GPU, though the driver offers {devices()[0].name}. Reinstall {backend} with its CUDA "
            "libraries, or set CUDA_VISIBLE_DEVICES to nothing to run on the CPU."
        )
    return compile_(layer, [replace(of, shape=(batch_size, *of.shape)) for of in inputs], on_gpu), on_gpu


def _is_on_gpu(backend: str) -> bool:
    if backend == "torch":  # Keras does not list its devices
        return bool(importlib.import_module("torch").cuda.is_available())
    import keras

    return any(device.split(":")[0].lower() in ("gpu", "cuda") for device in keras.distribution.list_devices())


def _prepare_tensorflow(*, is_exact: bool) -> None:
    import tensorflow as tf

    for device in tf.config.list_physical_devices("GPU"):
        # Fails once a device is in use; then its first user has chosen this setting.
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(device, True)
    if is_exact:
        tf.config.experimental.enable_tensor_float_32_execution(False)


def _compile_tensorflow(layer: Any, inputs: Sequence[_Input], on_gpu: bool) -> Steps:
    import tensorflow as tf

    # On a CPU, XLA is no faster than TensorFlow's own kernels.
    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec(of.shape, of.dtype) for of in inputs], jit_compile=on_gpu, autograph=False
    )
    def encode(*tensors: Any) -> Any:
        return tf.cast(layer(*tensors, training=False), tf.float32)

    encode.get_concrete_function()  # traced now, so that errors come before the first batch
    return Steps(
        lambda *arrays: [tf.convert_to_tensor(x, of.dtype) for x, of in zip(arrays, inputs, strict=True)],
        lambda tensors: encode(*tensors),
        lambda tokens: tokens.numpy(),
    )


def _prepare_jax(*, is_exact: bool) -> None:
    jax = importlib.import_module("jax")

    if is_exact:
        jax.config.update("jax_default_matmul_precision", "highest")


def _compile_jax(layer: Any, inputs: Sequence[_Input], on_gpu: bool) -> Steps:
    jax = importlib.import_module("jax")

    # The weights are arguments: as constants they would be folded and copied during compilation.
    weights = [[v.value for v in vs] for vs in (layer.trainable_variables, layer.non_trainable_variables)]

    @jax.jit  # type: ignore[untyped-decorator]
    def encode(weights: Any, *arrays: Any) -> Any:
        return layer.stateless_call(*weights, *arrays)[0].astype("float32")

    compiled = encode.lower(weights, *(jax.ShapeDtypeStruct(of.shape, of.dtype) for of in inputs)).compile()
    return Steps(
        lambda *arrays: [jax.device_put(np.asarray(x, of.dtype)) for x, of in zip(arrays, inputs, strict=True)],
        lambda arrays: compiled(weights, *arrays),
        np.asarray,
    )


def _prepare_torch(*, is_exact: bool) -> None:
    torch = importlib.import_module("torch")

    if is_exact:
        torch.set_float32_matmul_precision("highest")


def _compile_torch(layer: Any, inputs: Sequence[_Input], on_gpu: bool) -> Steps:
    torch = importlib.import_module("torch")

    device = "cuda" if on_gpu else "cpu"
    return Steps(
        lambda *arrays: [
            torch.as_tensor(np.asarray(x, of.dtype), device=device) for x, of in zip(arrays, inputs, strict=True)
        ],
        torch.inference_mode()(lambda tensors: layer(*tensors).float()),
        lambda tokens: tokens.cpu().numpy(),
    )
