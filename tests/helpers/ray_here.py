"""A real Ray on this machine, and the processes of its actors."""

import contextlib
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def ray():
    """A real Ray with two processors on this machine; engines of a module use it."""
    ray = pytest.importorskip("ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield ray
    ray.shutdown()


@pytest.fixture
def actors():
    """Return a function that returns the process ids of actors that run on this machine."""

    def found():
        ids = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if path.read_bytes().startswith(b"ray::_Worker"):
                    ids.append(int(path.parent.name))
        return ids

    return found
