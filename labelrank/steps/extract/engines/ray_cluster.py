"""The Ray cluster that an engine uses: how it is reached, and what it has room for."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from labelrank.errors import LabelRankError, SettingsError
from labelrank.models.backend import devices
from labelrank.models.device import Device
from labelrank.words import plural

T = TypeVar("T")
RESTARTS = 3
"""How often Ray starts a lost actor again, and gives it its parts again."""
_ANSWER_S = 10.0


def ray_module() -> Any:
    """Return the package, or raise SettingsError where it is not installed."""
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise SettingsError('Ray is not installed here; add it with `pip install "labelrank[ray]"`.') from None


@dataclass(frozen=True)
class Cluster:
    """A cluster, and what of it is taken.

    Raises:
        SettingsError: Ray is not installed, or a number cannot be.
    """

    address: str | None = None
    """As `ray.init` takes it; None: a Ray of its own on this machine."""
    workers: int | None = None
    """Actors; None: one for each GPU, or for each node of a cluster without GPUs."""
    gpus_per_worker: float | None = None
    """None: 1 where there are any."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise SettingsError(f"The number of workers is {self.workers}; expected at least 1.")
        gpus = self.gpus_per_worker
        if gpus is not None and (gpus < 0 or gpus != int(gpus)):
            raise SettingsError(
                f"The GPUs of a worker are {gpus:g}; expected a whole number: an encoder takes a GPU for itself."
            )
        ray_module()

    @contextlib.contextmanager
    def connected(self) -> Iterator[Any]:
        """Connect to the cluster, unless the caller is connected already; yield the package.

        Raises:
            SettingsError: It cannot be reached.
        """
        ray = ray_module()
        if ray.is_initialized():
            yield ray
            return
        _connect(ray, self.address)
        try:
            yield ray
        finally:
            ray.shutdown()

    def ask(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return what a function gives in a worker's place; the connection stays.

        Raises:
            SettingsError: The cluster cannot be reached, or has no room for a worker.
            LabelRankError: The function raised it.
        """
        ray = ray_module()
        if not ray.is_initialized():
            _connect(ray, self.address)
        _, options = self.room(ray, 1)
        asked = ray.remote(num_cpus=1, num_gpus=options["num_gpus"], max_calls=1)(function).remote(*arguments)
        try:
            answer: T = ray.get(asked)
        except ray.exceptions.RayError as error:
            if isinstance(cause := getattr(error, "cause", None), LabelRankError):
                raise cause from None
            where = f"the Ray cluster at {self.address}" if self.address else "Ray on this machine"
            raise SettingsError(
                f"A worker of {where} cannot be used ({first_line(error)}). Install labelrank on each node, in the "
                "version of this machine."
            ) from None
        return answer

    def room(self, ray: Any, most: int) -> tuple[int, dict[str, Any]]:
        """Return how many actors to start, at most so many, and their options.

        Raises:
            SettingsError: The cluster has no room for a worker.
        """
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        there = int(sum(node.get("GPU", 0) for node in nodes))
        each = (1 if there else 0) if self.gpus_per_worker is None else int(self.gpus_per_worker)
        if not nodes or each > max((node.get("GPU", 0) for node in nodes), default=0):
            raise SettingsError(
                f"No node of the Ray cluster has a processor and {each} GPUs for a worker; it has "
                f"{plural(len(nodes), 'node')} with {plural(there, 'GPU')}. Take fewer GPUs a worker "
                "(--gpus-per-worker)."
            )
        count = min(self.workers or (there // each if each else len(nodes)), most)
        share = int(min(node["CPU"] for node in nodes)) // math.ceil(count / len(nodes))
        return count, {
            "num_cpus": max(1, share),
            "num_gpus": each,
            "max_restarts": RESTARTS,
            "max_task_retries": RESTARTS,
        }


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


def device_of(cluster: Cluster) -> Device | None:
    """Return the device of a worker of a cluster; None without an address, where it is that of this machine.

    Precision, framework and the size of parts depend on it, and whoever asks need not have it.

    Raises:
        SettingsError: As `Cluster.ask`.
    """
    return cluster.ask(_device_here) if cluster.address else None


def _device_here() -> Device:
    return devices()[0]


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, of one in a worker that of its cause."""
    error = getattr(error, "cause", None) or error
    return (str(error) or type(error).__name__).splitlines()[0]
