"""An extraction whose features do not fit into memory: they stay in the files of its parts."""

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from labelrank.cli import main
from labelrank.errors import Cancelled
from labelrank.features import streamed
from labelrank.features.folder import WHOLE, write_folder
from labelrank.features.joining import merge_features, read_features
from labelrank.features.store import write_features
from labelrank.features.streamed import StreamedRows
from labelrank.ranking.rows import RowsInFiles
from labelrank.settings import Settings
from labelrank.steps.extract import plan as planning
from labelrank.steps.extract.run import obtain, run_job
from labelrank.steps.rank import rank
from tests.steps.extract.test_extraction import PARAMS
from tests.steps.extract.test_resume import encoder, made_dataset, plan_of  # noqa: F401


@pytest.fixture
def few_at_once(monkeypatch, encoder):  # noqa: F811
    """Hold 30 vectors in memory, and end parts after 16 samples."""
    monkeypatch.setattr(streamed, "HELD_BYTES", 30 * 3 * 4)
    monkeypatch.setattr(planning, "_MAX_PART_SAMPLES", 16)
    return encoder


def of_memory(tmp_path, dataset, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(streamed, "HELD_BYTES", 2**30)
        settings = Settings(workspace=tmp_path / "other")
        return obtain(plan_of(settings, dataset), settings).features


def test_the_features_are_those_of_one_file_in_the_order_of_the_parts(settings, few_at_once, tmp_path, monkeypatch):
    dataset = made_dataset()
    held = of_memory(tmp_path, dataset, monkeypatch)
    assert isinstance(held.X, np.ndarray)
    outcome = obtain(plan_of(settings, dataset), settings)
    found = outcome.features
    assert isinstance(found.X, StreamedRows)
    assert found.digest == held.digest
    np.testing.assert_array_equal(found.X[np.argsort(found.rows)], held.X)
    assert [found.keys[i] for i in np.argsort(found.rows)] == list(held.keys)
    assert rank(found).label_map.names == rank(held).label_map.names


def test_what_is_kept_takes_no_second_place_on_the_disk(settings, few_at_once):
    path = obtain(plan_of(settings, made_dataset()), settings).path
    assert path.is_dir()
    parts = sorted(path.glob("*.parquet"))
    assert len(parts) > 5
    assert all(part.stat().st_nlink == 2 for part in parts)


def test_the_same_request_is_computed_once(settings, few_at_once):
    dataset = made_dataset()
    first = obtain(plan_of(settings, dataset), settings)
    again = obtain(plan_of(settings, dataset), settings)
    assert few_at_once.pictures == 200
    assert again.reused
    assert again.features.digest == first.features.digest
    np.testing.assert_array_equal(again.features.X[:], first.features.X[:])
    assert again.features.keys == first.features.keys


def test_features_outlive_the_parts_they_came_from(settings, few_at_once):
    path = obtain(plan_of(settings, made_dataset()), settings).path
    for part in (settings.workspace / "parts").rglob("*.parquet"):
        part.unlink()
    assert len(rank(read_features(path)).label_map.classes) == 5


def test_a_stopped_extraction_goes_on_from_its_parts(settings, few_at_once):
    dataset = made_dataset()
    seen = []

    def stop_late():
        seen.append(0)
        return len(seen) > 12

    with pytest.raises(Cancelled):
        obtain(plan_of(settings, dataset), settings, should_stop=stop_late)
    before = few_at_once.pictures
    assert 0 < before < 200
    whole = obtain(plan_of(settings, dataset), settings).features
    assert few_at_once.pictures < 200 + 16
    assert sorted(whole.keys, key=int) == [str(i) for i in range(200)]


def test_shards_are_merged_without_holding_them(settings, few_at_once, tmp_path, monkeypatch):
    dataset = made_dataset()
    held = of_memory(tmp_path, dataset, monkeypatch)
    paths = []
    for index in (1, 2):
        shard = obtain(plan_of(settings, dataset, shard=(index, 2)), settings).features
        paths.append(tmp_path / f"shard-{index}")
        (write_folder if index == 1 else write_features)(shard, paths[-1])
    merged = merge_features(paths)
    assert isinstance(merged.X, RowsInFiles)
    assert merged.digest == held.digest
    order = np.argsort(merged.rows)
    np.testing.assert_array_equal(merged.X[order], held.X)
    write_folder(merged, tmp_path / "merged")
    again = read_features(tmp_path / "merged")
    assert again.keys == merged.keys
    np.testing.assert_array_equal(again.rows, merged.rows)
    assert "shard" not in again.provenance


def test_a_job_tells_its_rows(settings, monkeypatch, few_at_once):
    told = run_job(PARAMS, settings=settings, on_progress=lambda *a: None, should_stop=lambda: False)
    assert told["rows"] == 30
    monkeypatch.setattr(streamed, "HELD_BYTES", 12)
    again = run_job(
        PARAMS | {"recompute": True}, settings=settings, on_progress=lambda *a: None, should_stop=lambda: False
    )
    assert again["rows"] == 30
    assert again["digest"] == told["digest"]


def test_the_command_line_writes_a_folder_that_is_there(few_at_once, tmp_path, monkeypatch):
    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path / "home"))
    out = tmp_path / "parts"
    out.mkdir()
    arguments = ["extract", "digits", "--checkpoint", "mae-tiny-digits", "--split", "val", "--out", str(out)]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 0, found.output
    assert (out / WHOLE).is_file()
    assert len(read_features(out).keys) == 250
    ranked = CliRunner().invoke(main, ["rank", str(out), "--resamples", "0"])
    assert ranked.exit_code == 0, ranked.output


def test_a_folder_with_other_files_is_left_alone(few_at_once, tmp_path, monkeypatch):
    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path / "home"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    arguments = ["extract", "digits", "--checkpoint", "mae-tiny-digits", "--out", str(tmp_path / "mine")]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 1
    assert "holds 'notes.txt', which would be removed" in found.output
    assert (tmp_path / "mine" / "notes.txt").read_text() == "kept"


def test_few_features_in_a_folder_are_read_as_a_file(settings, encoder, tmp_path):  # noqa: F811
    features = obtain(plan_of(settings, made_dataset()), settings).features
    write_folder(features, tmp_path / "folder")
    write_features(features, tmp_path / "file.parquet")
    one, other = read_features(tmp_path / "folder"), read_features(tmp_path / "file.parquet")
    np.testing.assert_array_equal(one.X, other.X)
    assert replace(one, X=other.X, y=other.y) == other
