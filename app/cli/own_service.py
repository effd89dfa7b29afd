"""A service for the length of a `with` block, in a folder of its own."""

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.cli.errors import Unreachable
from app.cli.library import tail

STOP_SECONDS = 90
PR_SET_PDEATHSIG = 1
COMMAND = (sys.executable, "-P", "-m", "app.cli.main", "up", "--port", "0", "--json")


@contextmanager
def own_service(directory: Path, *, slots: int = 1) -> Iterator[str]:
    """Its URL: on a free port, with a fresh database, under no setting of the environment.

    `slots`: trainings on the CPU at a time, which share the cores. The service is stopped on the
    way out, whatever happened, and also when this process is killed. Raises `Unreachable`.
    """
    log = directory / "service.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [*COMMAND, "--data-dir", str(directory / "data")],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=plain_environment() | {"LORAWORKS_SLOTS": str(slots)},
            start_new_session=True,  # Ctrl-C reaches this program alone, which stops the service
            preexec_fn=_stop_with_parent,
        ) as service,
    ):
        try:
            line = service.stdout.readline() if service.stdout else b""
            if not line:
                why = tail(log.read_text("utf-8", "replace"))
                raise Unreachable(f"the service did not start: {why}", "not_started")
            yield str(json.loads(line)["url"])
        finally:
            _stop(service)


def plain_environment() -> dict[str, str]:
    """Without the settings of a service, which then has its defaults."""
    ours = {name for name in os.environ if name.startswith("LORAWORKS_")} - {"LORAWORKS_CACHE"}
    return {name: value for name, value in os.environ.items() if name not in ours}


def _stop_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _stop(service: subprocess.Popen[bytes]) -> None:
    service.terminate()
    try:
        service.wait(timeout=STOP_SECONDS)
    except BaseException:  # too slow, or a second Ctrl-C: its children notice that it is gone
        service.kill()
        raise
