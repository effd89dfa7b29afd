"""The service under test: API and worker in one process, and a client that survives its crashes."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from httpx2 import Response
from sqlalchemy import select
from starlette.testclient import TestClient

from app.database.errors import OUTAGE_ERRORS
from app.main import create_app
from app.queue.enums import JobState
from app.queue.tables import Job
from app.resources import Resources, open_resources
from app.retraining import repository as retraining
from app.settings import Settings
from app.webhooks import repository as webhooks
from tests.e2e.installation import read_outcome
from worker.devices import CPU
from worker.recorder import Recorder
from worker.service import open_service
from worker.spawn import ChildProcess, ChildTask
from worker.webhooks import WebhookDeliverer

LONGEST_SECONDS = 240.0  # until something that is waited for
PAUSE_SECONDS = 0.05
_DONE_BEFORE = ("nothing_to_extend", "retraining_finished")
# What was interrupted is taken again after this.
CLAIM_SECONDS = 2.0
retraining.claim_seconds = lambda settings: CLAIM_SECONDS  # noqa: ARG005 - the original's name
webhooks.LEASE_SECONDS = CLAIM_SECONDS
# It depends on the load of the machine whether this would write anything.
Recorder.renewing_lease = lambda self: nullcontext()  # type: ignore[method-assign]  # noqa: ARG005


def _deliver_in_turn(self: WebhookDeliverer, endpoint_ids: Iterable[UUID]) -> None:
    for endpoint_id in endpoint_ids:
        self._deliver_due(endpoint_id)


WebhookDeliverer._start_threads = _deliver_in_turn  # type: ignore[method-assign]


class Service:
    """API, worker and client. The worker's loops take their turns one after the other, so that each
    run passes the same crash points in the same order.
    """

    def __init__(self, settings: Settings, client_file: Path) -> None:
        self.settings = settings
        self._client_file = client_file
        self._answers: dict[str, Any] = {}  # the answers that the client has got
        if client_file.exists():
            self._answers = json.loads(client_file.read_bytes())
        self._stack = ExitStack()
        self.resources: Resources = open_resources(settings)
        self._stack.callback(self.resources.close)
        app = create_app(settings)
        self._client = self._stack.enter_context(TestClient(app, raise_server_exceptions=False))
        self._worker = open_service(settings, devices=(CPU,))
        self._stack.callback(self._worker.close)
        # Called while a job is running, before its process is started.
        self.before_training: Callable[[], object] = lambda: None
        runner = self._worker._poller._runner
        self._spawn, runner._spawn = runner._spawn, self._spawn_training
        if settings.fork_server:
            self._start_fork_server()

    def close(self) -> None:
        self._stack.close()

    def send(self, method: str, path: str, *, key: str = "", **content: Any) -> Any:
        """Send a request until it is answered, as clients do; return the body of the answer.

        Once it has been answered, it is not sent again, not even by the next process. `key` tells
        requests with the same path apart.
        """
        key = f"{method} {path} {key}".strip()
        if key not in self._answers:
            self._remember(key, self._ask(method, path, {"Idempotency-Key": key}, content))
        return self._answers[key]

    def remember(self, key: str, find: Callable[[], Any]) -> Any:
        """Return what `find` has found when it was called first."""
        if key not in self._answers:
            self._remember(key, find())
        return self._answers[key]

    def die_once(self) -> None:
        """Kill this process, but not the one that takes its place."""
        if "death" not in self._answers:
            self._remember("death", True)
            os.kill(os.getpid(), signal.SIGKILL)

    def get_bytes(self, path: str) -> bytes:
        """Return a file."""
        return self._ask_until_answered("GET", path, {}, {}).content

    def get(self, path: str) -> Any:
        """Return what is there now."""
        return self._ask("GET", path, {}, {})

    def once(self, key: str, action: Callable[[], object]) -> None:
        """Do something else than a request, until it has succeeded once."""
        if key not in self._answers:
            action()
            self._remember(key, True)

    def finish_job(self, job: dict[str, Any]) -> Any:
        """Let the worker work until a job has ended; return the job."""
        path = f"/v1/jobs/{job['id']}"
        self.work_until(lambda: JobState(self.get(path)["state"]).final)
        return self.get(path)

    def work_until(self, done: Callable[[], object]) -> None:
        deadline = time.monotonic() + LONGEST_SECONDS
        while not done():
            assert time.monotonic() < deadline, "the worker does not get there"
            self.work()

    def work(self) -> None:
        """Take one turn of each loop of the worker, then run the jobs that are due."""
        self._worker._reconciler.run_once()
        for _, task, _ in self._worker._repeated:
            with suppress(Exception):  # `repeat_until_drained` logs them and goes on
                task()
        with self.resources.database.read() as session:
            queued = select(Job.id).where(Job.state == JobState.QUEUED).order_by(Job.id)
            due = session.scalars(queued).all()
        for job_id in due:
            with suppress(*OUTAGE_ERRORS):  # its task is sent again
                self._worker.run_job(job_id)

    def result(self, job_id: str) -> dict[str, Any]:
        """Return what a repeated run must reproduce bit by bit."""
        found = read_outcome(self.resources.database, self.settings, UUID(job_id))
        return {"curves": found.curves, "files": found.files}

    def _start_fork_server(self) -> None:
        server = self._worker._fork_server
        threading.Thread(target=server.run_until_closed, daemon=True).start()
        deadline = time.monotonic() + LONGEST_SECONDS
        while server.pid is None:
            assert time.monotonic() < deadline, "the fork server does not get ready"
            time.sleep(PAUSE_SECONDS / 10)

    def _spawn_training(self, task: ChildTask) -> ChildProcess:
        self.before_training()
        return self._spawn(task)

    def _ask(self, method: str, path: str, headers: dict[str, str], content: Any) -> Any:
        response = self._ask_until_answered(method, path, headers, content)
        kind = response.headers.get("content-type", "")
        is_json = kind.startswith("application/") and "json" in kind and response.content
        return response.json() if is_json else response.text

    def _ask_until_answered(
        self, method: str, path: str, headers: dict[str, str], content: Any
    ) -> Response:
        deadline = time.monotonic() + LONGEST_SECONDS
        while True:
            response = self._client.request(method, path, headers=headers, **content)
            repeat = response.status_code >= 500 or "retry-after" in response.headers
            if not repeat:
                break
            assert time.monotonic() < deadline, response.text
            time.sleep(PAUSE_SECONDS)
        gone = method == "DELETE" and response.status_code == 404  # its first answer was lost
        done = any(code in response.text for code in _DONE_BEFORE)  # likewise
        restart = "no_checkpoint" in response.text
        assert response.is_success or gone or done or restart, f"{method} {path}: {response.text}"
        return response

    def _remember(self, key: str, answer: Any) -> None:
        self._answers[key] = answer
        unfinished = self._client_file.with_suffix(".new")
        unfinished.write_text(json.dumps(self._answers))
        os.replace(unfinished, self._client_file)
