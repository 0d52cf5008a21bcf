"""Snapshots: whole or not there, and of one run alone."""

import math

import numpy as np
import pytest

from labelrank.models.snapshot import Snapshot, read_snapshot, write_snapshot


def snapshot():
    return Snapshot(
        {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3, np.int32)},
        {"epochs": [{"val_loss": math.nan}], "best": math.inf, "said": "é"},
    )


def test_snapshot_comes_back_as_it_was(tmp_path):
    write_snapshot(tmp_path / "s", "run", snapshot())
    found = read_snapshot(tmp_path / "s", "run")
    assert (found.arrays["a"] == snapshot().arrays["a"]).all()
    assert found.arrays["n"].dtype == np.int32
    assert found.arrays["n"].shape == ()
    assert math.isnan(found.facts["epochs"][0]["val_loss"])
    assert found.facts["best"] == math.inf
    assert found.facts["said"] == "é"
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_arrays_that_are_no_block_of_memory_are_kept_as_they_read(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T
    write_snapshot(tmp_path / "s", "run", Snapshot({"a": array}))
    assert (read_snapshot(tmp_path / "s", "run").arrays["a"] == array).all()


def test_snapshot_of_another_run_is_none_of_this_one(tmp_path):
    write_snapshot(tmp_path / "s", "run", snapshot())
    assert read_snapshot(tmp_path / "s", "other") is None


def test_missing_and_damaged_snapshots_count_as_none(tmp_path):
    path = tmp_path / "s"
    assert read_snapshot(path, "run") is None
    write_snapshot(path, "run", snapshot())
    data = path.read_bytes()
    for size in (0, 4, 20, len(data) - 1):
        path.write_bytes(data[:size])
        assert read_snapshot(path, "run") is None


def test_failed_write_leaves_the_snapshot_before(tmp_path, monkeypatch):
    import safetensors.numpy

    write_snapshot(tmp_path / "s", "run", snapshot())

    def fill(arrays, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", fill)
    with pytest.raises(OSError, match="No space"):
        write_snapshot(tmp_path / "s", "run", Snapshot({}))
    assert read_snapshot(tmp_path / "s", "run").facts["said"] == "é"
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
