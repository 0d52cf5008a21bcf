"""What labelrank does sends nothing to other machines, and leaves nothing outside its workspace and its results."""

import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.helpers.processes import wait_for

ROOT = Path(__file__).parents[1]
GUARD = ROOT / "tests" / "helpers" / "guard"
# An encoder of another size is exported anew, whatever a workspace holds.
EXPORTS_ANOTHER = ("--checkpoint", "mae-tiny-digits", "--image-size", "32")
LABELRANK = (sys.executable, "-m", "labelrank")


class Outside:
    """A fresh home and temporary folder, a folder for results, and a guard on the network."""

    def __init__(self, path):
        self.path = path
        for name in ("home", "tmp", "results"):
            (path / name).mkdir()
        # Not CI: where that is set, some libraries send nothing of themselves.
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(path / "home"),
            "TMPDIR": str(path / "tmp"),
            "LABELRANK_HOME": str(path / "workspace"),
            "LABELRANK_TEST_GUARD": str(path / "guard.txt"),
            "PYTHONPATH": f"{GUARD}{os.pathsep}{ROOT}",
        }

    def start(self, *command, **options):
        return subprocess.Popen(command, env=self.env, cwd=self.path / "results", **options)

    def run(self, *command):
        process = self.start(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
        return output

    def left(self):
        return [str(p.relative_to(self.path)) for name in ("home", "tmp") for p in (self.path / name).rglob("*")]

    def attempts(self):
        """Return what the guard has seen, with how many processes it stood before."""
        lines = (self.path / "guard.txt").read_text().splitlines()
        return lines.count("started"), [line for line in lines if line != "started"]


@pytest.fixture
def outside(tmp_path):
    return Outside(tmp_path)


def test_the_guard_sees_what_is_sent_and_left(outside):
    """Else the tests below could pass without a reason: OpenVINO's converter, left to itself."""
    outside.run(
        sys.executable,
        "-c",
        "from openvino.tools.ovc.telemetry_utils import init_ovc_telemetry\n"
        "telemetry = init_ovc_telemetry(); telemetry.start_session('ovc'); telemetry.send_event('ovc', 'a', 'b')\n"
        "telemetry.end_session('ovc'); telemetry.force_shutdown(0.2)",
    )
    # It is posted from a forked process.
    wait_for(lambda: "socket.getaddrinfo www.google-analytics.com" in outside.attempts()[1])
    assert "home/intel/openvino_ga_cid" in outside.left()


def test_a_process_that_is_forked_is_guarded_and_this_machine_can_be_reached(outside):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        outside.run(
            sys.executable,
            "-c",
            f"import os, socket; socket.create_connection(('localhost', {port})).close()\n"
            "pid = os.fork()\n"
            "try: socket.create_connection(('192.0.2.1', 80), 1)\n"
            "except ConnectionRefusedError: pass\n"
            "if pid: os.waitpid(pid, 0)",
        )
    assert outside.attempts() == (1, ["socket.getaddrinfo 192.0.2.1"] * 2)


def test_the_demo_sends_nothing_and_leaves_nothing(outside):
    """It exports an encoder."""
    outside.run(*LABELRANK, "demo")
    processes, attempts = outside.attempts()
    assert processes >= 1
    assert attempts == []
    assert outside.left() == []


@pytest.mark.slow
def test_a_fine_tune_sends_nothing_and_leaves_nothing(outside):
    """After an extraction, which exports an encoder; the fine-tune trains it in TensorFlow."""
    outside.run(*LABELRANK, "extract", "digits", "--max-per-class", "4", *EXPORTS_ANOTHER, "--out", "x.parquet")
    assert len(list((outside.path / "workspace" / "encoders").iterdir())) == 1
    short = ("--depth", "1", "--epochs", "1", "--orders", "ranked", "--no-control")
    outside.run(*LABELRANK, "finetune", "x.parquet", *short, "--files", "all")
    assert (outside.path / "results" / "all" / "model.keras").is_file()
    processes, attempts = outside.attempts()
    assert processes >= 2
    assert attempts == []
    assert outside.left() == []


def test_what_a_file_in_the_home_says_of_keras_changes_nothing(outside):
    folder = outside.path / "home" / ".keras"
    folder.mkdir()
    (folder / "keras.json").write_text('{"floatx": "float16", "epsilon": 0.1}')
    program = "from labelrank.models.backend import select_backend; select_backend(); import keras; c = keras.config; "
    assert outside.run(sys.executable, "-c", f"{program}print(c.floatx(), c.epsilon())").split() == ["float32", "1e-07"]


def test_the_app_sends_nothing_and_asks_the_browser_for_nothing(outside):
    """From any folder; its first page runs, as a browser would have it run."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ClientState_pb2 import ClientState
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from websockets.sync.client import connect

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        at = f"127.0.0.1:{probe.getsockname()[1]}"
    command = (sys.executable, "-m", "streamlit", "run", str(ROOT / "app.py"), "--server.port", at.split(":")[1])
    with (outside.path / "app.txt").open("wb") as log:
        app = outside.start(*command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for(lambda: answers(f"http://{at}/_stcore/health"), 60)
        with connect(f"ws://{at}/_stcore/stream", subprotocols=["streamlit"], max_size=None) as page:
            page.send(BackMsg(rerun_script=ClientState()).SerializeToString())
            messages = [ForwardMsg.FromString(page.recv(60))]
            while messages[-1].WhichOneof("type") != "script_finished":
                messages.append(ForwardMsg.FromString(page.recv(60)))
    finally:
        app.terminate()
        app.wait(20)
    sessions = [m.new_session for m in messages if m.WhichOneof("type") == "new_session"]
    assert [s.config.gather_usage_stats for s in sessions] == [False] * len(sessions) != []
    assert outside.attempts() == (1, [])
    assert outside.left() == []


def answers(url):
    try:
        return urllib.request.urlopen(url, timeout=1).status == 200
    except OSError:
        return False
