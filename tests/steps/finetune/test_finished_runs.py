"""Finished runs that wait for the rest of their comparison."""

import numpy as np
import pytest

from labelrank.errors import FinetuneError
from labelrank.steps.finetune.finished_runs import KeptRuns
from tests.steps.finetune.made import made_run

Y = np.tile(np.arange(5, dtype=np.int32), 4)


def test_a_kept_run_is_the_same_run(tmp_path):
    kept, run = KeptRuns(tmp_path / "runs", len(Y)), made_run("ranked", 3, Y)
    assert kept.read("ranked", 3) is None
    kept.write([run], in_full=("ranked",))
    found = kept.read("ranked", 3)
    assert (found.arm, found.seed, found.problem, found.seconds) == ("ranked", 3, None, 0.25)
    assert found.epochs == run.epochs
    for name in ("predicted", "nll"):
        np.testing.assert_array_equal(getattr(found, name), getattr(run, name))
        assert getattr(found, name).dtype == getattr(run, name).dtype
    np.testing.assert_array_equal(found.head["kernel"], run.head["kernel"])


def test_heads_are_kept_of_the_one_arm_whose_model_is_written(tmp_path):
    kept = KeptRuns(tmp_path, len(Y))
    kept.write([made_run("ranked", 0, Y), made_run("original", 0, Y)], in_full=("ranked",))
    assert set(kept.read("ranked", 0).head) == {"kernel", "bias"}
    assert kept.read("original", 0).head == {}


def test_a_run_that_came_to_nothing_is_kept_as_such(tmp_path):
    kept = KeptRuns(tmp_path, len(Y))
    kept.write([made_run("ranked", 0, Y, problem="The loss is not finite.")])
    assert kept.read("ranked", 0).problem == "The loss is not finite."


@pytest.mark.parametrize("content", [b"", b"no safetensors", None])
def test_a_damaged_run_is_reported_removed_and_not_trusted(tmp_path, capsys, content):
    kept = KeptRuns(tmp_path, len(Y))
    kept.write([made_run("ranked", 0, Y)])
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-7] if content is None else content)
    assert kept.has("ranked", 0)
    assert kept.read("ranked", 0) is None
    assert "made again" in capsys.readouterr().err
    assert not kept.has("ranked", 0)


def test_a_run_on_other_test_rows_or_under_another_name_is_not_taken(tmp_path, capsys):
    KeptRuns(tmp_path, len(Y)).write([made_run("ranked", 0, Y)])
    (path,) = tmp_path.glob("*.safetensors")
    path.rename(path.with_name("0001-ranked.safetensors"))
    assert KeptRuns(tmp_path, len(Y)).read("ranked", 1) is None
    KeptRuns(tmp_path, len(Y)).write([made_run("ranked", 0, Y)])
    assert KeptRuns(tmp_path, len(Y) + 1).read("ranked", 0) is None
    assert "another run" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told_with_what_to_do(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(FinetuneError, match="start the same fine-tune again"):
        KeptRuns(tmp_path / "runs", len(Y)).write([made_run("ranked", 0, Y)])


def test_clearing_removes_every_run(tmp_path):
    kept = KeptRuns(tmp_path, len(Y))
    kept.write([made_run("ranked", seed, Y) for seed in range(3)])
    kept.clear()
    assert not any(kept.has("ranked", seed) for seed in range(3))
