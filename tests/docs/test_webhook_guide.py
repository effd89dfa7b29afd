"""The receiver in the guide to webhooks accepts what the service sends, and nothing else."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from app.webhooks.signing import new_secret, signed_headers
from tests.docs.blocks import blocks
from tests.servers import free_port
from tests.waiting import wait_until

DOCUMENT = "docs/how-to/webhooks.md"
SECRET = new_secret()
BODY = b'{"type":"job.failed","data":{"id":"1"}}'


class Receiver:
    """The process that runs the code of the guide."""

    def __init__(self, folder: Path) -> None:
        (code,) = (each.text for each in blocks(DOCUMENT) if "HTTPServer" in each.text)
        assert len([line for line in code.splitlines() if line.strip()]) <= 12
        port = free_port()
        script = folder / "receiver.py"
        script.write_text(code.replace("9000", str(port)))
        self.url = f"http://127.0.0.1:{port}/"
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            env=os.environ | {"WEBHOOK_SECRET": SECRET},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        wait_until(self._listens, what="the start of the receiver")

    def _listens(self) -> bool:
        assert self.process.poll() is None
        try:
            return httpx2.get(self.url).status_code == 501  # it has no GET
        except httpx2.ConnectError:
            return False

    def post(self, body: bytes, headers: dict[str, str]) -> int | None:
        """Return the status; None: it closed the connection without an answer."""
        try:
            return httpx2.post(self.url, content=body, headers=headers).status_code
        except httpx2.RemoteProtocolError:
            return None


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    running = Receiver(tmp_path)
    yield running
    running.process.kill()
    running.process.communicate()


def signed(age: float = 0) -> dict[str, str]:
    timestamp = int(time.time() - age)
    return signed_headers(BODY, event_id="evt_1", timestamp=timestamp, secrets=[SECRET])


def test_only_genuine_events_are_printed(receiver: Receiver) -> None:
    assert receiver.post(BODY.replace(b"failed", b"passed"), signed()) is None
    assert receiver.post(BODY, signed(age=301)) is None
    assert receiver.post(BODY, {}) is None
    assert receiver.post(BODY, signed()) == 204
    assert receiver.process.stdout is not None
    assert receiver.process.stdout.readline() == "job.failed 1\n"
