"""`python -m worker`: runs the jobs of an installation without a broker.

SIGTERM or SIGINT drains the worker: it stops its trainings, requeues their jobs, and exits with 0.
The same happens when standard input is a pipe that closes: the parent process is gone.
"""

import os
import select
import signal
import stat
import sys

from worker.service import WorkerService, open_service, start_or_exit


def main() -> int:
    """Run the worker and return its exit status."""
    service = start_or_exit(open_service)
    try:
        return run_until_drained(service)
    finally:
        service.close()


def run_until_drained(service: WorkerService) -> int:
    """Run until asked to drain. Return 0 if every job was requeued in time, else 1."""
    exit_fds = [_signal_fd(), *_parent_pipe()]
    service.start()
    select.select(exit_fds, [], [])
    return 0 if service.requeue_jobs_and_wait() else 1


def _signal_fd() -> int:
    """Return a file descriptor that becomes readable at the first SIGTERM or SIGINT."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def _parent_pipe() -> list[int]:
    """Return standard input if it is a pipe. A terminal or /dev/null does not follow a parent."""
    return [0] if stat.S_ISFIFO(os.fstat(0).st_mode) else []


if __name__ == "__main__":
    sys.exit(main())
