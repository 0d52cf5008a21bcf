"""The Keras backend, device and precision of this process."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata

from labelrank.errors import SettingsError
from labelrank.models.device import Device, cpu, gpus, has_gpu

TRAINING_BACKENDS = ("tensorflow", "jax", "torch")
BACKENDS = ("openvino", *TRAINING_BACKENDS)
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def preferred_backend(*, training: bool = False) -> str:
    """Return the Keras backend that this process uses or would use, without importing anything.

    Unless `KERAS_BACKEND` says otherwise: on a GPU the first of TensorFlow, JAX and PyTorch that can use it; else
    OpenVINO, and TensorFlow for training.

    Raises:
        SettingsError: `KERAS_BACKEND` is not an installed backend, or cannot train.
    """
    if "keras" in sys.modules:
        return str(sys.modules["keras"].backend.backend())
    chosen = _wanted_backend(training=training)
    known = TRAINING_BACKENDS if training else BACKENDS
    if chosen not in known or importlib.util.find_spec(chosen) is None:
        raise SettingsError(
            f"KERAS_BACKEND is {chosen!r}; {'training runs' if training else 'labelrank runs'} on {', '.join(known)}, "
            "where it is installed. Unset the variable, or install the backend."
        )
    return chosen


def _wanted_backend(*, training: bool = False) -> str:
    fitting = (name for name in TRAINING_BACKENDS if _runs_on_gpu(name))
    return os.environ.get("KERAS_BACKEND") or next(fitting, "tensorflow" if training else "openvino")


def _runs_on_gpu(backend: str) -> bool:
    return backend in TRAINING_BACKENDS and has_gpu() and _has_gpu_build(backend)


@functools.cache
def _has_gpu_build(backend: str) -> bool:
    """Return whether the installed version of a backend can use an NVIDIA GPU, from the packages' metadata."""
    if backend == "tensorflow":
        # The wheel supports GPUs; its libraries come with the extra, or with the system (containers for GPUs).
        needed = [
            re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
            for requirement in (metadata.requires(backend) or () if _version(backend) else ())
            if "and-cuda" in requirement
        ]
        return bool(needed) and (all(map(_version, needed)) or _system_has("cudnn"))
    if backend == "jax":
        return any(_version(f"jax-cuda{major}-plugin") for major in (12, 13, 14))
    # PyTorch's own index marks builds, as 2.11.0+cu130 and +cpu; on PyPI the one for Linux needs CUDA's packages.
    version = _version(backend) or ""
    mark = version.partition("+")[2]
    return mark.startswith("cu") or (
        not mark and any("nvidia-" in r or "cuda" in r for r in (metadata.requires(backend) or () if version else ()))
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def version_of(package: str) -> str | None:
    """Return the version of an installed package, from its metadata; None if it is not there."""
    # TensorFlow without the code for GPUs, as the Docker image has it, is a package of another name.
    return _version(package) or (_version("tensorflow-cpu") if package == "tensorflow" else None)


def _system_has(library: str) -> bool:
    import ctypes.util

    return ctypes.util.find_library(library) is not None


def select_backend(*, training: bool = False) -> str:
    """Set the Keras backend of this process and return its name; call this before Keras is imported.

    TensorFlow is imported here, so that its start-up messages can be hidden from users.
    """
    _keep_private()
    # Users see TensorFlow's errors, but not its start-up messages.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = backend = preferred_backend(training=training)
    if backend == "jax":  # otherwise it takes three quarters of a GPU's memory at its start
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if training:
        _keep_freed_memory()
    if backend == "tensorflow":
        _start_tensorflow()
    return backend


@functools.cache
def _keep_freed_memory() -> None:
    """Let this process reuse the memory of large arrays instead of giving it back after each use.

    By default glibc asks the system for each large array anew, which clears every page of it; a training step does so
    for all its activations. Pre-training on a processor is 1.8 times as fast without (docs/performance.md), and its
    peak is the same. Other C libraries have no such switch.
    """
    import ctypes

    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of glibc's malloc.h
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


def _keep_private() -> None:
    """Keep the libraries below from sending anything, and from files outside the workspace."""
    # OpenVINO's converter posts usage data with a lasting id, which it keeps in ~/intel, on every export. Where this
    # package is missing, it takes a stub of its own.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    # Keras writes ~/.keras/keras.json, and would take its number format and its epsilon from one that is there.
    os.environ["KERAS_HOME"] = os.devnull


@functools.cache
def _start_tensorflow() -> None:
    """Import TensorFlow and let it look for devices; its messages are shown only if one of these fails.

    Its libraries write to the file descriptor before any log level applies: about processor features, and about a
    missing CUDA driver on machines without a GPU.
    """
    with _holding_stderr() as show:
        try:
            import tensorflow as tf

            found = tf.config.list_physical_devices("GPU")
        except BaseException:
            show()
            raise
        if has_gpu() and not found:
            show()


@contextlib.contextmanager
def _holding_stderr() -> Iterator[Callable[[], None]]:
    """Hold back what this process writes to file descriptor 2; call the yielded function to show it at the end."""
    shown = False

    def show() -> None:
        nonlocal shown
        shown = True

    sys.stderr.flush()
    try:
        stderr = os.dup(2)
    except OSError:  # stderr is closed
        yield show
        return
    try:
        with tempfile.TemporaryFile() as held:
            os.dup2(held.fileno(), 2)
            try:
                yield show
            finally:
                sys.stderr.flush()
                os.dup2(stderr, 2)
                if shown:
                    held.seek(0)
                    with open(2, "wb", closefd=False) as file:
                        shutil.copyfileobj(held, file)
    finally:
        os.close(stderr)


def devices() -> tuple[Device, ...]:
    """Return the devices for encoders in this process: the GPUs that the backend can use, or else the CPU.

    Reads the system and the packages' metadata; imports no framework.
    """
    return (gpus() if _runs_on_gpu(_wanted_backend()) else ()) or (cpu(),)


def usable_gpus() -> list[str]:
    """Return, for each GPU that this process may use, the value of CUDA_VISIBLE_DEVICES that selects it."""
    count = sum(device.kind == "GPU" for device in devices())
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return given[:count] if given else [str(number) for number in range(count)]


def resolve_precision(precision: str, *, training: bool = False) -> str:
    """Return the precision that is used for a given one, in inference or in training.

    `auto` is bfloat16 if the device supports it natively, float16 on older GPUs, and float32 otherwise. On a CPU,
    backends other than OpenVINO gain nothing from bfloat16.

    Raises:
        SettingsError: `precision` is not one of `PRECISIONS`, or the device does not support it.
    """
    backend = preferred_backend(training=training)
    return _resolved(precision, gpus()[0] if _runs_on_gpu(backend) else cpu(), backend)


def elsewhere(device: Device, precision: str) -> tuple[str, str]:
    """Return the backend and the precision of an encoder on a machine with this device.

    Raises:
        SettingsError: As `resolve_precision`.
    """
    backend = "tensorflow" if device.kind == "GPU" else "openvino"
    return backend, _resolved(precision, device, backend)


def _resolved(precision: str, device: Device, backend: str) -> str:
    if precision not in PRECISIONS:
        raise SettingsError(f"Precision is {precision!r}; choose one of {', '.join(PRECISIONS)}.")
    if (
        device.kind == "CPU"
        and precision in ("bfloat16", "float16")
        and not (precision == "bfloat16" and device.bfloat16)
    ):
        possible = "auto, bfloat16 or float32" if device.bfloat16 else "auto or float32"
        raise SettingsError(
            f"Precision is {precision!r}, which this processor ({device.name}) does not support. Choose {possible}."
        )
    if precision != "auto":
        return precision
    if device.kind == "GPU":
        return "bfloat16" if device.bfloat16 else "float16" if device.capability else "float32"
    return "bfloat16" if backend == "openvino" and device.bfloat16 else "float32"
