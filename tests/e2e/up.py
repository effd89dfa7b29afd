"""`loraworks up` as a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def loraworks_up(data_dir: Path, **environment: str) -> Iterator[str]:
    """Run the service with an embedded worker on a free port. Yields its URL."""
    with subprocess.Popen(
        [*("loraworks", "up", "--port", "0", "--json", "--data-dir"), str(data_dir)],
        stdout=subprocess.PIPE,
        text=True,
        executable=str(Path(sys.executable).with_name("loraworks")),
        env={**os.environ, **environment},
    ) as service:
        assert service.stdout is not None
        yield json.loads(service.stdout.readline())["url"]
        service.terminate()
        assert service.wait(timeout=60) == 0
