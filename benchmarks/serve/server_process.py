"""A server in its own process."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from app.cli.demo import environment_without_settings
from benchmarks.child_process import ROOT
from benchmarks.serve.target import Target

START_SECONDS = 240.0  # the model is loaded and engines are timed first
STOP_SECONDS = 30.0


class Server:
    """A running one."""

    def __init__(self, process: "subprocess.Popen[Any]", log: Path) -> None:
        self.process, self._log = process, log

    def wait_until_it_answers(self, target: Target, text: str) -> Any:
        """Wait for the first response. Exits with the end of the server's log if there is none."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(OSError):
                status, _, answer = target.ask(text)
                if status == 200:
                    return answer
            time.sleep(0.2)
        sys.exit(f"{self.process.args!r} does not answer:\n{self._log.read_text()[-6000:]}")

    def rss_mb(self) -> float:
        """Resident memory of the process and its children."""
        pages = sum(
            int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            for pid in _family(self.process.pid)
        )
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def cpu_seconds(self) -> float:
        """CPU seconds of the process and its children."""
        fields = [
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            for pid in _family(self.process.pid)
        ]
        ticks = sum(int(each[11]) + int(each[12]) for each in fields)  # in user and system mode
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Stop with SIGINT, then SIGKILL."""
        self.process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def running(words: Sequence[str], environment: Mapping[str, str], folder: Path) -> Iterator[Server]:
    """With its output in a file in `folder`. Its process group ends with the block."""
    log = folder / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            words,
            cwd=ROOT,
            env={**environment_without_settings(), **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    server = Server(process, log)
    try:
        yield server
    finally:
        server.stop()


def free_port() -> int:
    """A free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number: int = listener.getsockname()[1]
        return number


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _family(int(child)))]
