"""Sound files are read; damaged ones are read or refused in one sentence, within limits of time and memory."""

import sys

import pytest

from tests.hostile.formats import FORMATS
from tests.hostile.mutations import mutate
from tests.hostile.watched import mutations, run

COUNT = 12
"""Mutations of each format; `make fuzz` reads 1,000."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    if sys.platform != "linux":
        pytest.skip("memory is limited and measured on Linux")
    tasks = [mutations(name, 0, COUNT) for name in FORMATS]
    return [*run(tasks, tmp_path_factory.mktemp("mutations"))]


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_damage_to_a_file_ends_in_a_sentence_or_in_what_was_read(name, outcomes):
    sound, *damaged = (one for one in outcomes if one.name == name)
    assert sound.outcome == "read", sound.message or sound.fault
    assert [one.number for one in damaged] == [*range(COUNT)]
    assert {one.outcome for one in damaged} <= {"read", "refused"}
    assert [one.fault for one in damaged if one.fault] == []


def test_damage_follows_from_its_number():
    data = bytes(range(256)) * 8
    damaged = [mutate(data, (1, number)) for number in range(50)]
    assert damaged == [mutate(data, (1, number)) for number in range(50)]
    assert len({data, *damaged}) > 45
