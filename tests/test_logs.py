"""The server's own log: what each line has, and what it never has."""

import io
import json
import logging
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from labelrank import cli, logs

SECRET = "hf_abcdefgHIJKLMNOP0123"


@pytest.fixture
def written():
    """Start the log with these settings; the result reads its lines."""
    logger = logging.getLogger("labelrank")
    before, level = [*logger.handlers], logger.level
    # A server that another test has started in this process may have started the log.
    logger.handlers.clear()
    stream = io.StringIO()

    def start(shared, workspace=Path("/home/user/work space")):
        logs.start(workspace, shared=shared, stream=stream)
        return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]

    yield start
    logger.handlers[:] = before
    logger.setLevel(level)


def test_a_line_has_time_level_event_job_and_facts(written):
    lines = written(shared=False)
    logging.getLogger("labelrank.jobs.queue").info("job queued", extra=logs.about("abc", kind="extract"))
    logging.getLogger("labelrank.other").warning("a\nbreak of %s", "words")
    first, second = lines()
    assert datetime.fromisoformat(first.pop("time")).utcoffset().total_seconds() == 0
    assert first == {"level": "info", "event": "job queued", "job": "abc", "kind": "extract"}
    assert (second["level"], second["event"]) == ("warning", "a\nbreak of words")


@pytest.mark.parametrize("shared", [True, False])
def test_tokens_are_never_there_and_paths_not_on_a_shared_server(written, shared):
    lines = written(shared)
    try:
        raise OSError(f"no '/home/user/work space/uploads/x' with Bearer {SECRET}, {SECRET} of /srv/data/cat/1.png")
    except OSError:
        logging.getLogger("labelrank.ui").exception(
            "page failed", extra=logs.about("abc", reason=f"at /srv/a/{SECRET}")
        )
    (line,) = lines()
    text = json.dumps(line, ensure_ascii=False)
    assert SECRET not in text
    assert line["error"].startswith("Traceback")
    assert ("/srv/" in text) == (not shared)
    assert ("work space" in text) == (not shared)
    assert (__file__ in text) == (not shared)
    assert "1.png" in text


def test_a_second_start_changes_nothing(written):
    lines = written(shared=True)
    written(shared=False)
    logging.getLogger("streamlit").info("not ours")
    logging.getLogger("labelrank").info("once")
    assert [line["event"] for line in lines()] == ["once"]


def test_the_worker_writes_this_log(written, monkeypatch, tmp_path):
    lines = written(shared=False)
    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path))
    monkeypatch.setattr(
        "labelrank.jobs.queue.run_consumer", lambda settings: logging.getLogger("labelrank").info("ran")
    )
    assert CliRunner().invoke(cli.main, ["worker"]).exit_code == 0
    assert [line["event"] for line in lines()] == ["ran"]
