"""A 202 response means that the job is stored, even if the API crashes right after it."""

import json
import re
import socket
import sys
from pathlib import Path
from uuid import UUID

import pytest

from tests.e2e.installation import Installation, Process
from tests.e2e.kinds import EMBEDDED_FIRST
from tests.servers import HOST, free_port
from tests.waiting import wait_until
from tests.worker.test_job_runner import GOOD

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
BODY = json.dumps({"method": {"type": "lora"}})


def start_api(installation: Installation, port: int) -> Process:
    program = str(Path(sys.executable).with_name("loraworks"))
    api = installation.start([program, "up", "--no-worker"], installation.environment(port=port))

    def listens() -> bool:
        assert api.alive(), installation.tail()
        with socket.socket() as connection:
            return connection.connect_ex((HOST, port)) == 0

    wait_until(listens, seconds=60, what="the start of the API")
    return api


def submit_and_kill(port: int, api: Process) -> UUID:
    """Submit a job, and kill the API at the first bytes of its response."""
    request = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(BODY)}\r\n\r\n{BODY}"
    )
    with socket.create_connection((HOST, port), timeout=60) as connection:
        connection.sendall(request.encode())
        answer = connection.recv(65_536)
        api.kill()
    assert answer.startswith(b"HTTP/1.1 202"), answer
    location = re.search(rb"location: /v1/jobs/(\S+)", answer)
    assert location is not None
    return UUID(location[1].decode())


def kill_again_and_again(installation: Installation, *, times: int) -> None:
    port = free_port()
    jobs = [submit_and_kill(port, start_api(installation, port)) for _ in range(times)]
    installation.worker(*GOOD)
    installation.succeeded(*jobs)


@EMBEDDED_FIRST
def test_accepted_job_survives_an_api_crash(installation: Installation) -> None:
    kill_again_and_again(installation, times=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_accepted_jobs_survive_many_api_crashes(installation: Installation) -> None:
    kill_again_and_again(installation, times=50)
