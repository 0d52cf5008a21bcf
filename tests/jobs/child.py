"""A job's process with the tasks of the tests: child.py [--alone] JOB_ID."""

import sys

from labelrank.jobs.worker import main

if __name__ == "__main__":
    # Alone: it does not look whether its parent lives, as a process that hangs in native code cannot act on it.
    watch_interval_s = 3600 if "--alone" in sys.argv else 0.05
    sys.exit(main(sys.argv[-1], tasks={"extract": "tasks:run"}, watch_interval_s=watch_interval_s, grace_s=0.3))
