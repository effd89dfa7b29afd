"""A worker as `python -m worker` starts it, whose trainings are scripted.

python worker_process.py ACTION...
"""

import sys

from tests.shifted_clock import follow_if_asked
from tests.worker.scripted import scripted
from worker.__main__ import main

if __name__ == "__main__":
    follow_if_asked()
    sys.exit(main(scripted(*sys.argv[1:])))
