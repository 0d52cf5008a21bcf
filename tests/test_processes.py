"""Child processes: what they tell, how they fail, and that nothing of them stays."""

import inspect
import os
import signal
import subprocess
import sys
import time

import pytest

from labelrank import errors
from labelrank.errors import (
    DatasetError,
    LabelRankError,
    NoTrainSplit,
    ProcessError,
    UnclearColumn,
    Unreachable,
    UntoldNames,
)
from labelrank.processes import Call, Failure, start_command, stop
from tests.helpers.processes import runs, wait_for

ERRORS = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, LabelRankError)]
MORE_THAN_A_MESSAGE = {
    "NoTrainSplit": NoTrainSplit("No split train.", ("a", "b")),
    "Unreachable": Unreachable("No answer.", wait_s=3.5, no_network=True, retry=False),
    "UnclearColumn": UnclearColumn("Which column?", ("fine", "coarse")),
    "UntoldNames": UntoldNames("Which encoding?", (("gbk", ("a", "b")),)),
    "ProcessError": ProcessError("exit status -9", exit_status=-9),
}


def count(until, *, tell, should_stop):
    for done in range(until):
        tell(done, "counting")
    return {"counted": until}


def fail(name, *, tell, should_stop):
    tell(1, "before")
    raise MORE_THAN_A_MESSAGE[name] if name in MORE_THAN_A_MESSAGE else ZeroDivisionError("an inner detail")


def die(*, tell, should_stop):
    os.kill(os.getpid(), signal.SIGKILL)


def leave(*, tell, should_stop):
    sys.exit(3)


def hang(stubborn, *, tell, should_stop):
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tell(os.getpid())
    time.sleep(600)


def wait_to_stop(*, tell, should_stop):
    tell(os.getpid())
    while not should_stop():
        time.sleep(0.01)


def have_a_child(*, tell, should_stop):
    """Start a process and be killed: nobody can stop that one but itself."""
    call = Call(wait_to_stop, name="grandchild")
    tell(*heard(call))
    os.kill(os.getpid(), signal.SIGKILL)


def heard(call, timeout_s=20.0):
    """Return what a call tells first."""
    return wait_for(lambda: next(call.hear(0.1), None), timeout_s)


def all_heard(call):
    told = []
    while not call.done:
        told += call.hear(0.1)
    return told


@pytest.fixture
def called():
    """Start calls that are stopped after the test."""
    calls = []

    def call(function, *arguments):
        calls.append(Call(function, *arguments, name="a-child"))
        return calls[-1]

    yield call
    stop([one.child for one in calls], 0.0)


def test_a_call_tells_its_progress_in_order_and_its_result(called):
    call = called(count, 1000)
    assert all_heard(call) == [(done, "counting") for done in range(1000)]
    assert call.result == {"counted": 1000}
    assert list(call.hear()) == []


@pytest.mark.parametrize("name", sorted(MORE_THAN_A_MESSAGE))
def test_an_error_comes_back_with_all_that_it_carries(called, name):
    call, raised = called(fail, name), MORE_THAN_A_MESSAGE[name]
    assert heard(call) == (1, "before")
    with pytest.raises(type(raised)) as caught:
        all_heard(call)
    assert type(caught.value) is type(raised)
    assert (str(caught.value), vars(caught.value)) == (str(raised), vars(raised))


@pytest.mark.parametrize("known", ERRORS, ids=lambda known: known.__name__)
def test_each_class_of_error_passes_by_name(known):
    raised = MORE_THAN_A_MESSAGE.get(known.__name__) or known("What is wrong. What to do.")
    passed = Failure.of(raised).error()
    assert type(passed) is known
    assert (str(passed), passed.args, vars(passed)) == (str(raised), raised.args, vars(raised))


def test_what_carries_more_than_a_message_is_tested_above():
    needs_more = {known.__name__ for known in ERRORS if "__init__" in vars(known)}
    assert needs_more == set(MORE_THAN_A_MESSAGE)


def test_a_mistake_in_the_program_is_told_with_its_kind(called, capfd):
    with pytest.raises(ProcessError, match="^ZeroDivisionError: an inner detail$") as caught:
        all_heard(called(fail, "no name"))
    assert caught.value.exit_status is None
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.parametrize(("function", "status"), [(die, -9), (leave, 3)])
def test_a_process_that_ends_without_a_word_is_told_with_its_exit_status(called, function, status):
    with pytest.raises(ProcessError, match=f"^exit status {status}$") as caught:
        all_heard(called(function))
    assert caught.value.exit_status == status


@pytest.mark.parametrize("stubborn", [False, True])
def test_children_are_stopped_and_the_stubborn_killed_after_their_time(called, stubborn):
    calls = [called(hang, stubborn) for _ in range(2)]
    pids = [heard(call)[0] for call in calls]
    began = time.monotonic()
    stop([call.child for call in calls], 0.5)
    assert (time.monotonic() - began >= 0.5) == stubborn
    assert not any(map(runs, pids))
    assert [call.child.kill() for call in calls] == [-9 if stubborn else -15] * 2, "again, nothing happens"


def test_a_child_stops_when_its_parent_is_gone(called):
    call = called(have_a_child)
    (pid,) = heard(call)
    wait_for(lambda: not runs(pid))


def test_ctrl_c_is_left_to_the_parent(called):
    call = called(hang, False)
    (pid,) = heard(call)
    os.kill(pid, signal.SIGINT)
    time.sleep(0.3)
    assert runs(pid)


PARENT = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True); sys.stdin.read(); {end}"


@pytest.mark.parametrize("end", ["sys.exit(3)", "import time; time.sleep(600)"])
def test_a_command_is_ended_with_all_that_it_started(tmp_path, end):
    with (tmp_path / "log").open("wb") as log:
        child = start_command([sys.executable, "-c", PARENT.format(end=end)], env=os.environ, log=log)
    said = wait_for((tmp_path / "log").read_text)
    child.wait(0.3)
    assert child.has_ended() == end.startswith("sys.exit")
    assert runs(int(said))
    os.kill(child.pid, 0)  # a zombie at most: its number is still its own
    assert child.kill() == (3 if end.startswith("sys.exit") else -9)
    wait_for(lambda: not runs(int(said)))


def test_a_child_that_was_waited_for_elsewhere_has_ended(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        child = start_command([sys.executable, "-c", ""], env=os.environ, log=log)
    assert isinstance(child.process, subprocess.Popen)
    child.process.wait()
    assert child.has_ended()
    assert child.kill() == 0


def test_a_dataset_error_stays_what_a_caller_can_catch():
    with pytest.raises(DatasetError):
        raise Failure.of(MORE_THAN_A_MESSAGE["NoTrainSplit"]).error()
