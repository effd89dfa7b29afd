"""A worker as `celery -A worker.celery_app worker` starts it, whose trainings are scripted.

python celery_process.py ACTION... [-- OPTION...]

The options are those of `celery worker`. With TASK_HEAD_START_SECONDS in the environment, it polls
only that long after a slot has become free; with FINAL_WRITE_SECONDS it gives up that soon when it
leaves.
"""

import os
import sys

from celery.__main__ import main

from tests.shifted_clock import follow_if_asked
from tests.worker.scripted import scripted
from worker import poller, service

if __name__ == "__main__":
    follow_if_asked()
    if (seconds := os.environ.get("TASK_HEAD_START_SECONDS")) is not None:
        poller.TASK_HEAD_START_SECONDS = float(seconds)
    if (seconds := os.environ.get("FINAL_WRITE_SECONDS")) is not None:
        service.FINAL_WRITE_SECONDS = service.DEREGISTER_SECONDS = float(seconds)
    actions, options = sys.argv[1:], []
    if "--" in actions:
        at = actions.index("--")
        actions, options = actions[:at], actions[at + 1 :]
    scripted(*actions)
    sys.argv = ["celery", "-A", "worker.celery_app", "worker", *options]
    sys.exit(main())
