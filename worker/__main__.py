"""`python -m worker`: trains the jobs of an embedded installation.

SIGTERM or SIGINT drains: trainings are stopped, their jobs go back to the queue, exit 0. The same
happens when standard input is a pipe and closes: whoever started the worker is gone.
"""

import os
import select
import signal
import stat
import sys

from worker.service import Service, open_service, or_exit


def main() -> int:
    """The exit status."""
    service = or_exit(open_service)
    try:
        return serve(service)
    finally:
        service.close()


def serve(service: Service) -> int:
    """Work until told to leave. 0: every job was given back; 1: one was not in time."""
    reasons = [_signals(), *_lifeline()]
    service.start()
    select.select(reasons, [], [])
    return 0 if service.wait() else 1


def _signals() -> int:
    """A descriptor that becomes readable with the first signal to leave."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def _lifeline() -> list[int]:
    """Standard input, if it is a pipe. A terminal or /dev/null says nothing about a parent."""
    return [0] if stat.S_ISFIFO(os.fstat(0).st_mode) else []


if __name__ == "__main__":
    sys.exit(main())
