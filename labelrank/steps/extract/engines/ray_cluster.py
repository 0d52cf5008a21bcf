"""The Ray cluster that an engine uses: how it is reached, and what it has room for."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import socket
from collections.abc import Iterator
from typing import Any

from labelrank.errors import SettingsError
from labelrank.models.backend import devices
from labelrank.models.device import Device
from labelrank.words import plural

RESTARTS = 3
"""How often Ray starts a lost actor again, and gives it its parts again."""
_ANSWER_S = 10.0


def ray_module() -> Any:
    """Return the package, or raise SettingsError where it is not installed."""
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise SettingsError('Ray is not installed here; add it with `pip install "labelrank[ray]"`.') from None


@contextlib.contextmanager
def connected(ray: Any, address: str | None) -> Iterator[None]:
    """Connect to a cluster, unless the caller is connected already.

    Raises:
        SettingsError: It cannot be reached.
    """
    if ray.is_initialized():
        yield
        return
    _connect(ray, address)
    try:
        yield
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    # A Ray that is started here tells nobody of it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _check_answers(address)
        ray.init(
            address=address, include_dashboard=None if address else False, log_to_driver=False, logging_level="error"
        )
    except (OSError, RuntimeError, ValueError) as error:  # a ConnectionError is an OSError
        where = f"the Ray cluster at {address}" if address else "Ray on this machine"
        raise SettingsError(
            f"Could not connect to {where} ({first_line(error)}). Start one with `ray start --head`, or leave "
            "--ray-address out to use this machine alone."
        ) from None


def _check_answers(address: str | None) -> None:
    """Raise OSError for an address where nobody listens: Ray itself would wait for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()


def device_of(address: str | None, gpus_per_worker: float | None) -> Device | None:
    """Return the device of a worker of a cluster; None without an address, where it is that of this machine.

    Precision, framework and the size of parts depend on it, and whoever asks need not have it. The connection stays.

    Raises:
        SettingsError: The cluster cannot be reached, or has no room for a worker.
    """
    if address is None:
        return None
    ray = ray_module()
    if not ray.is_initialized():
        _connect(ray, address)
    _, options = workers_of(ray, 1, gpus_per_worker, 1)
    asked = ray.remote(num_cpus=1, num_gpus=options["num_gpus"])(_device_here).remote()
    try:
        device: Device = ray.get(asked)
    except ray.exceptions.RayError as error:
        raise SettingsError(
            f"A worker of the Ray cluster at {address} cannot be used ({first_line(error)}). Install labelrank on each "
            "node, in the version of this machine."
        ) from None
    return device


def _device_here() -> Device:
    return devices()[0]


def workers_of(ray: Any, workers: int | None, gpus: float | None, parts: int) -> tuple[int, dict[str, Any]]:
    """Return how many actors to start for so many parts, and their options.

    Raises:
        SettingsError: The cluster has no room for a worker.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    there = int(sum(node.get("GPU", 0) for node in nodes))
    each = (1 if there else 0) if gpus is None else int(gpus)
    if not nodes or each > max((node.get("GPU", 0) for node in nodes), default=0):
        raise SettingsError(
            f"No node of the Ray cluster has a processor and {each} GPUs for a worker; it has "
            f"{plural(len(nodes), 'node')} with {plural(there, 'GPU')}. Take fewer GPUs a worker (--gpus-per-worker)."
        )
    count = min(workers or (there // each if each else len(nodes)), parts)
    share = int(min(node["CPU"] for node in nodes)) // math.ceil(count / len(nodes))
    return count, {
        "num_cpus": max(1, share),
        "num_gpus": each,
        "max_restarts": RESTARTS,
        "max_task_retries": RESTARTS,
    }


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return (str(error) or type(error).__name__).splitlines()[0]
