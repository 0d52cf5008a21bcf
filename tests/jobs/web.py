"""A process that has a consumer, like the app's: web.py app|worker [child options].

Its devices are those that DEVICES names, by default the machine's own. It prints whether it started the consumer and
then ends when its standard input is closed (app) or on a signal.
"""

import os
import sys
from pathlib import Path

from labelrank.jobs.queue import ensure_consumer, run_consumer
from labelrank.settings import Settings


def command(job_id):
    return [sys.executable, str(Path(__file__).with_name("child.py")), *sys.argv[2:], job_id]


if __name__ == "__main__":
    devices = os.environ.get("DEVICES", "").split() or None
    if sys.argv[1] == "worker":
        run_consumer(Settings.from_env(), command=command, grace_s=2.0, devices=devices)
        print("stopped")
    else:
        print(ensure_consumer(Settings.from_env(), command=command, grace_s=2.0, devices=devices), flush=True)
        sys.stdin.read()
