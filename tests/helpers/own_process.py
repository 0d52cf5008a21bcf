"""A process of its own for tests that choose a backend: Keras keeps the first one as long as a process lives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def own_process(request):
    """Run the selected tests of this file in a process of their own, unless this one runs no other file."""
    items = request.session.items
    if {item.path for item in items} == {request.path}:
        return
    chosen = [item.nodeid for item in items if item.path == request.path]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "", *chosen]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "KERAS_"))}
    done = subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:]
    pytest.skip("ran in a process of its own")
