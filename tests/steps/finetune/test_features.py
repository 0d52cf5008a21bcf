"""Features made in a process of their own, and what comes back when they cannot be."""

import os
import signal
import threading
from multiprocessing import active_children

import pytest

from labelrank.errors import Cancelled, FeaturesError, NoTrainSplit
from labelrank.steps.extract.request import Request
from labelrank.steps.finetune.features import obtain_elsewhere
from tests.helpers.datasets import png
from tests.helpers.processes import runs, wait_for

DIGITS = Request("digits", "mae-tiny-digits", max_per_class=4)


def test_an_error_is_the_one_that_was_raised_there(settings, tmp_path):
    for name in ("val/cat", "val/dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.png").write_bytes(png())
    with pytest.raises(NoTrainSplit, match="val") as caught:
        obtain_elsewhere([Request(str(tmp_path / "data"), "mae-tiny-digits")], settings)
    assert caught.value.splits == ("val",)


def test_a_killed_process_is_told_with_its_exit_status(settings):
    killer = threading.Thread(target=lambda: os.kill(wait_for(active_children)[0].pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(FeaturesError, match=r"ended without a message \(exit status -9\); most often memory ran out"):
        obtain_elsewhere([DIGITS], settings)
    killer.join()


def test_a_cancelled_extraction_leaves_no_process(settings):
    pids = []

    def should_stop():
        pids.extend(child.pid for child in active_children())
        return True

    with pytest.raises(Cancelled, match="finished parts are kept"):
        obtain_elsewhere([DIGITS], settings, should_stop=should_stop)
    assert [runs(pid) for pid in pids] == [False]
