"""The API with timed writes: `python -m benchmarks.scale.api FILE PORT`.

Whenever FILE is removed, it is rewritten with the milliseconds of the longest write since then.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.cli.errors import ServiceUnreachableOrFailed
from app.cli.json_client import JsonClient
from app.settings import Settings
from benchmarks.child_process import ROOT
from benchmarks.scale.writes import WriteClock
from tests.servers import HOST, free_port
from tests.waiting import wait_until

LOOK_SECONDS = 0.05
START_SECONDS = 60


class Api:
    """A process that serves one installation."""

    def __init__(self, file: Path, connection: JsonClient, *, url: str, pid: int) -> None:
        self.connection, self.url, self.pid = connection, url, pid
        self._file = file
        self.longest_write_ms()  # what the start wrote is of no interest

    def longest_write_ms(self) -> float:
        """Of all writes since the last call."""
        self._file.unlink()
        wait_until(self._file.exists, seconds=START_SECONDS, what="the longest write", pause=0.01)
        return float(self._file.read_text())


@contextmanager
def serving(settings: Settings) -> Iterator[Api]:
    """Run an API for this database."""
    port, file = free_port(), settings.data_dir / "longest-write"
    file.touch()
    changes = {
        "DATA_DIR": str(settings.data_dir),
        "DATABASE_URL": settings.database_url,
        "MAX_STREAMS_PER_KEY": str(settings.max_streams_per_key),
    }
    environment = {f"LORAWORKS_{name}": value for name, value in changes.items() if value}
    log = settings.data_dir / "api.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(file), str(port)],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=output,
            stderr=output,
        )
    try:
        url = f"http://{HOST}:{port}"
        with JsonClient(url) as connection:

            def ready() -> bool:
                assert process.poll() is None, log.read_text()
                with suppress(ServiceUnreachableOrFailed):
                    return bool(connection.request("GET", "/readyz"))
                return False

            wait_until(ready, seconds=START_SECONDS, what="the start of the API")
            yield Api(file, connection, url=url, pid=process.pid)
    finally:
        process.kill()
        process.wait()


def main() -> None:
    file, port = Path(sys.argv[1]), sys.argv[2]
    clock = WriteClock()

    def write_longest() -> None:
        while True:
            if not file.exists():
                unfinished = file.with_suffix(".unfinished")
                unfinished.write_text(str(clock.longest_ms()))
                unfinished.replace(file)
            time.sleep(LOOK_SECONDS)

    threading.Thread(target=write_longest, daemon=True).start()
    from app.cli.main import main as loraworks

    sys.argv = ["loraworks", "api", "--port", port]
    loraworks()


if __name__ == "__main__":
    main()
