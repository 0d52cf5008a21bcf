"""Tasks that behave in each way a job can; imported by child.py in the job's process."""

import os
import signal
import subprocess
import sys
import threading
import time

from labelrank.errors import Cancelled, DatasetError
from labelrank.progress import Kind, Stage


def run(params, *, settings, on_progress, should_stop, on_report):
    task = globals()[params["do"]]
    return task(params, settings, on_progress, should_stop, **({"on_report": on_report} if task is report else {}))


def count(params, settings, on_progress, should_stop):
    print("counting")
    print("a warning", file=sys.stderr)
    for done in range(1, 6):
        on_progress(done, 5, Stage(Kind.ENCODE, "counting"))
    on_progress(1, 3, Stage(Kind.ENCODE, "tidying up"))
    on_progress(2, 3, Stage(Kind.ENCODE, "tidying up"))
    return {"name": params.get("name"), "workspace": str(settings.workspace), "max_pixels": settings.max_pixels}


def encode_and_tell(params, settings, on_progress, should_stop):
    on_progress(0, 5, Stage(Kind.ENCODE, "counting"))
    on_progress(5, 5, Stage(Kind.ENCODE, "counting"))
    return {"name": "told", "work": {"kind": "count", "amount": 5, "stages": ["encode"], "apart": [], "seconds": None}}


def tokens(params, settings, on_progress, should_stop):
    named = [name for name, value in os.environ.items() if value.startswith("hf_")]
    # Backwards, as no token is to be found in what is kept of a job.
    return {"named": named, "said": settings.hub_token and settings.hub_token[::-1]}


def report(params, settings, on_progress, should_stop, on_report):
    on_report({"done": 1})
    for done in range(1, 4):
        on_progress(done, 10, Stage(Kind.ENCODE, "reporting"))
    on_report({"done": 2, "reasons": [["Image is truncated", 1]]})
    while not should_stop():
        time.sleep(0.01)
    raise Cancelled("stopped on request")


def record(params, settings, on_progress, should_stop):
    with (settings.workspace / "record.txt").open("a") as file:
        file.write(f"{params['name']} starts\n")
        file.flush()
        time.sleep(0.05)
        file.write(f"{params['name']} ends\n")
    return {}


def visible(params, settings, on_progress, should_stop):
    return {"gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}


def wait(params, settings, on_progress, should_stop):
    on_progress(1, 10, Stage(Kind.ENCODE, "waiting"))
    while not should_stop():
        time.sleep(0.01)
    raise Cancelled("stopped on request")


def wait_once(params, settings, on_progress, should_stop):
    mark = settings.workspace / "waited"
    if mark.exists():
        return {"resumed": True}
    mark.touch()
    return wait(params, settings, on_progress, should_stop)


def stubborn(params, settings, on_progress, should_stop):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    on_progress(helper.pid, None, Stage(Kind.ENCODE, "ignoring"))
    while True:
        time.sleep(0.01)


def refuse(params, settings, on_progress, should_stop):
    raise DatasetError("The dataset has 0 classes, a ranking needs 2. Choose another one.")


def refuse_once(params, settings, on_progress, should_stop):
    mark = settings.workspace / "refused"
    if mark.exists():
        return {"attempt": 2}
    mark.touch()
    raise DatasetError("Not yet.")


def crash(params, settings, on_progress, should_stop):
    raise ZeroDivisionError("an inner detail")


def out_of_memory(params, settings, on_progress, should_stop):
    raise MemoryError


def end(params, settings, on_progress, should_stop):
    sys.exit(3)


def segfault(params, settings, on_progress, should_stop):
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)


def no_json(params, settings, on_progress, should_stop):
    return {"value": object()}


def linger(params, settings, on_progress, should_stop):
    threading.Thread(target=time.sleep, args=(600,)).start()
    return {"done": True}


def limits(params, settings, on_progress, should_stop):
    import resource

    names = ("RLIMIT_DATA", "RLIMIT_CPU", "RLIMIT_AS")
    return {name: resource.getrlimit(getattr(resource, name))[0] for name in names}


def take(params, settings, on_progress, should_stop):
    return {"size": len(bytearray(params["size"]))}


def fail_as(params, settings, on_progress, should_stop):
    raise type(params["kind"], (Exception,), {})(params["text"])
