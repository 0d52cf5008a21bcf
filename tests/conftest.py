"""What every test may use: goldens, a private workspace, Keras on a backend that trains, the command line."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

from labelrank.settings import Settings

GOLDEN = Path(__file__).parent / "data" / "golden"

# No test is timed: on a busy machine any example may take long.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers and their children share the cores. Threads of matrix products that wait for each other spin meanwhile,
    # and would take the time that another worker's need. NumPy reads these when it is imported, which is later.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@pytest.fixture(scope="module", autouse=True)
def little_garbage():
    """Spare the garbage collector what earlier files have loaded.

    Streamlit collects after each run of a page, which takes a second where TensorFlow is loaded.
    """
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def settings(tmp_path):
    return Settings(workspace=tmp_path / "workspace")


@pytest.fixture(scope="session")
def keras():
    """Keras on TensorFlow, in this process; child processes go on choosing for themselves."""
    before = os.environ.get("KERAS_BACKEND")
    os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="2")
    import keras

    if before is None:
        del os.environ["KERAS_BACKEND"]
    else:
        os.environ["KERAS_BACKEND"] = before
    return keras


@pytest.fixture
def run_cli(tmp_path):
    """Run the real command in a process of its own and a workspace of its own."""

    def run(*arguments, env=None, timeout=240):
        child_env = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
        child_env |= {"LABELRANK_HOME": str(tmp_path / "workspace"), **(env or {})}
        command = [sys.executable, "-m", "labelrank", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=child_env, cwd=tmp_path, timeout=timeout)

    return run


@pytest.fixture
def run_python():
    """Run a program in a fresh process and return what it prints."""

    def run(program):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run
