"""The real app stops as `docker stop` asks it: within 10 s, with its job resumable, whatever its visitors do."""

import os
import signal
import socket

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from tests.browser.conftest import start_server
from tests.helpers.processes import runs, wait_for
from tests.ui.conftest import PARAMS

DOCKER_S = 10
XSRF_OFF = {"STREAMLIT_SERVER_ENABLE_XSRF_PROTECTION": "false"}  # as in the image


def session_of(visitor):
    """Ask for a page over the connection of a visitor, and return the id of the session."""
    asked = BackMsg()
    asked.rerun_script.query_string = ""
    visitor.send(asked.SerializeToString())
    while True:
        heard = ForwardMsg.FromString(visitor.recv())
        if heard.HasField("new_session"):
            return heard.new_session.initialize.session_id


def begin_upload(port, session_id):
    """Begin an upload that never ends, and return its connection."""
    connection = socket.create_connection(("127.0.0.1", port))
    head = (
        f"PUT /_stcore/upload_file/{session_id}/pets HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: multipart/form-data; boundary=pets",
        "Content-Length: 1000000",
    )
    connection.sendall("\r\n".join((*head, "", "--pets\r\n")).encode())
    return connection


@pytest.mark.slow
def test_sigterm_makes_the_running_job_resumable_within_the_time_of_docker(settings, store):
    work = {"dataset": "moving-digits", "checkpoint": "videomae-tiny-moving-digits", "max_per_class": None}
    waiting = store.create("extract", PARAMS | work, "local", "moving digits")
    server = start_server(settings.workspace, XSRF_OFF)
    try:
        address, port = server.url.removeprefix("http://"), int(server.url.rpartition(":")[2])
        # Nobody has visited the app yet.
        parts = wait_for(lambda: len(found := list(settings.workspace.glob("parts/*/*.parquet"))) > 1 and found, 120)
        running = store.get(waiting.id)
        assert running.state == "running" and runs(running.pid)
        # It waits for the visitor, so that it cannot be done before the signal.
        os.kill(running.pid, signal.SIGSTOP)
        with (
            connect(f"ws://{address}/_stcore/stream", max_size=None) as visitor,
            begin_upload(port, session_of(visitor)) as upload,
        ):
            upload.settimeout(0.5)
            with pytest.raises(TimeoutError):
                upload.recv(1)  # it is accepted, and goes on
            os.kill(running.pid, signal.SIGCONT)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(DOCKER_S) in (0, -signal.SIGTERM)
            # At once: a child that is left behind ends by itself soon.
            stopped, left_behind = store.get(waiting.id), runs(running.pid)
    finally:
        server.process.kill()
        server.process.wait()
    assert not left_behind
    assert (stopped.state, stopped.resumable) == ("interrupted", True)
    assert stopped.error == "The process that ran this job has stopped. Resume goes on from what was finished."
    assert all(part.exists() for part in parts)
