"""A worker as `celery -A worker.celery_app worker` starts it, whose trainings are scripted.

python celery_process.py ACTION...
"""

import sys

from celery.__main__ import main

from tests.shifted_clock import follow_if_asked
from tests.worker.scripted import scripted

if __name__ == "__main__":
    follow_if_asked()
    scripted(*sys.argv[1:])
    sys.argv = ["celery", "-A", "worker.celery_app", "worker"]
    sys.exit(main())
