"""A worker as `python -m worker` starts it, whose trainings are scripted.

python worker_process.py ACTION...

With FINAL_WRITE_SECONDS in the environment it gives up that soon when it leaves.
"""

import os
import sys

from tests.shifted_clock import follow_if_asked
from tests.worker.scripted import scripted
from worker import service
from worker.__main__ import main

if __name__ == "__main__":
    follow_if_asked()
    if (seconds := os.environ.get("FINAL_WRITE_SECONDS")) is not None:
        service.FINAL_WRITE_SECONDS = service.DEREGISTER_SECONDS = float(seconds)
    scripted(*sys.argv[1:])
    sys.exit(main())
