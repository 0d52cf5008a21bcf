"""Files made to do harm are refused in one sentence or read within limits, and lead to no other file and no network."""

import re
import sys

import pytest

from tests.hostile.corpus import CORPUS
from tests.hostile.watched import hostile, run, trick

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited and measured on Linux")

MOST_SECONDS = 15
MOST_BYTES = 2 * 2**30  # of which a WebP of 98 million pixels takes 1.9 GB


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What came of each file, read in a process apart, by its name."""
    return {one.name: one for one in run([*map(hostile, CORPUS)], tmp_path_factory.mktemp("hostile"))}


@pytest.mark.slow
@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_file_is_refused_or_bounded(name, outcomes):
    found, wanted = outcomes[name], CORPUS[name].message
    assert found.fault == ""
    assert found.seconds < MOST_SECONDS
    assert found.peak_bytes < MOST_BYTES
    if wanted is None:
        assert found.outcome == "read"
    else:
        assert found.outcome == "refused"
        assert re.search(wanted, found.message), found.message


@pytest.mark.slow
def test_no_hostile_file_leads_to_another_machine(outcomes):
    assert {*outcomes} == {*CORPUS}, "an attempt would be one more"


@pytest.mark.parametrize("way", ["opens", "connects", "dies", "takes"])
def test_what_a_reader_must_not_do_is_seen(way, tmp_path):
    """Else the tests above could pass without a reason."""
    (found, *more) = run([trick(way)], tmp_path)
    if way == "opens":
        assert found.fault == "opened /etc/hostname"
    elif way == "connects":
        assert (found.outcome, more[0].name) == ("error", "network")
        assert "192.0.2.1" in more[0].fault
    elif way == "dies":
        assert (found.outcome, "exit status -11" in found.fault) == ("crash", True)
    else:
        assert "MemoryError" in found.fault
