"""The installation under attack: its workers, its API, its jobs and their twins."""

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
from sqlalchemy import func, select

from app.artifacts.tables import Artifact
from app.jobs.states import JobState
from app.jobs.states import Outcome as Ended
from app.jobs.tables import Job
from tests.e2e.installation import Installation, Outcome, Process
from tests.job_rows import attempts
from tests.servers import PostgresServer, ValkeyServer, free_port
from tests.waiting import wait_until

OPTIM = {"epochs": 3, "batch_size": 8, "encoder_dropout": 0.1, "head_dropout": 0.1}
BODIES: dict[str, dict[str, Any]] = {
    "lora": {"method": {"type": "lora", "r": 4, "targets": ["query", "value", "mlp"]}},
    "full": {"method": {"type": "full"}},
    "baseline": {"method": {"type": "baseline"}},
}
LONGEST_SECONDS = 300.0  # of the last jobs, once nothing is broken any more


@dataclass
class Counts:
    """What came of it."""

    faults: int = 0
    jobs: int = 0
    lost: int = 0
    doubled: int = 0
    not_identical: int = 0

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.not_identical)

    def __add__(self, other: "Counts") -> "Counts":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Counts(*(one + two for one, two in pairs))


class Scene:
    """What faults act on."""

    def __init__(
        self,
        installation: Installation,
        draw: random.Random,
        postgres: PostgresServer | None,
        valkey: ValkeyServer | None,
        kinds: Sequence[str] = tuple(BODIES),
    ) -> None:
        self.installation = installation
        self.draw = draw
        self.postgres = postgres
        self.valkey = valkey
        self.disk_full = installation.folder / "full"  # while this file exists
        self.workers: list[Process] = []
        self.api: Process | None = None
        self._port = free_port()
        self._sent: dict[str, str] = {}  # idempotency key → kind of job
        self._jobs: dict[UUID, str] = {}
        self._twins: dict[str, Outcome] = {}
        self._kinds = kinds

    def rehearse(self) -> None:
        """Run a twin of each kind of job to which nothing happens."""
        self.keep_up(1)
        self._upload()
        for kind in self._kinds:
            job_id = self._send(str(uuid4()), kind)
            self.installation.succeeded(job_id)
            self._twins[kind] = self.installation.outcome(job_id)

    def keep_up(self, workers: int) -> None:
        """Start what is missing. A worker that leaves may still be on its way out."""
        self.workers = [worker for worker in self.workers if worker.alive()]
        while len(self.workers) < workers:
            fault = f"checkpoint_files_written:enospc:{self.disk_full}"
            self.workers.append(self.installation.worker(fault=fault))
        if self.api is None or not self.api.alive():
            self.api = self._start_api()

    def submit_up_to(self, count: int) -> None:
        """Send jobs until so many wait or run; one that cannot be sent now is sent later."""
        while len(self._sent) - self._ended() < count:
            key, kind = str(uuid4()), self.draw.choice(self._kinds)
            self._sent[key] = kind
            try:
                self._jobs[self._send(key, kind)] = kind
            except (httpx2.HTTPError, AssertionError):
                return

    def heal(self, workers: int) -> None:
        """Nothing is broken any more."""
        self.disk_full.unlink(missing_ok=True)
        for server in (self.postgres, self.valkey):
            if server is not None and server.process is None:
                server.start()
        self.keep_up(workers)
        for key, kind in self._sent.items():  # the same key: whether it had come through or not
            job_id = wait_until(partial(self._try, key, kind), seconds=60)
            assert job_id is not None
            self._jobs[job_id] = kind

    def judge(self) -> Counts:
        """Wait for every job and look at its effects."""
        counts = Counts(jobs=len(self._jobs))
        for job_id, kind in self._jobs.items():
            if self.installation.ended(job_id, seconds=LONGEST_SECONDS) is not JobState.SUCCEEDED:
                counts.lost += 1
                self._show(job_id, "lost")
                continue
            if self._effects(job_id) != 1:
                counts.doubled += 1
                self._show(job_id, "doubled")
            if self.installation.outcome(job_id) != self._twins[kind]:
                counts.not_identical += 1
                self._show(job_id, "not identical")
        with self.installation.database.read() as session:
            rows = session.scalars(select(func.count()).select_from(Job)).one()
        counts.doubled += max(0, rows - len(self._jobs) - len(self._kinds))
        return counts

    def _effects(self, job_id: UUID) -> int:
        tried = attempts(self.installation.database, job_id)
        with self.installation.database.read() as session:
            made = session.scalars(select(Artifact.id).where(Artifact.job_id == job_id)).all()
        won = sum(each.outcome == Ended.SUCCEEDED for each in tried)
        return max(won, len(made)) + self.installation.effective_overlaps(job_id)

    def _ended(self) -> int:
        try:
            with self.installation.database.read() as session:
                final = [state for state in JobState if state.final]
                ended = select(func.count()).select_from(Job).where(Job.state.in_(final))
                return session.scalars(ended).one() - len(self._kinds)
        except Exception:
            return 0  # the database is down: nothing is sent then

    def _try(self, key: str, kind: str) -> UUID | None:
        try:
            return self._send(key, kind)
        except (httpx2.HTTPError, AssertionError):
            return None

    def _send(self, key: str, kind: str) -> UUID:
        base = str(self.installation.base)
        body = {"base": base, "data": {"source": "reviews:1"}, "optim": OPTIM, **BODIES[kind]}
        body |= {"runtime": {"device": "cpu", "threads": 1}}
        answer = httpx2.post(
            f"{self._url}/v1/jobs", json=body, headers={"Idempotency-Key": key}, timeout=20
        )
        assert answer.status_code == 202, answer.text
        return UUID(answer.json()["id"])

    def _upload(self) -> None:
        with self.installation.reviews.open("rb") as file:
            answer = httpx2.post(f"{self._url}/v1/datasets", files={"file": ("reviews.csv", file)})
        assert answer.status_code == 201, answer.text

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _start_api(self) -> Process:
        program = str(Path(sys.executable).with_name("loraworks"))
        folder = str(self.installation.folder)
        environment = self.installation.environment(port=self._port, base_dirs=folder)
        api = self.installation.start([program, "up", "--no-worker"], environment)
        wait_until(
            lambda: not api.alive() or self._ready(), seconds=60, what="the start of the API"
        )
        return api

    def _ready(self) -> bool:
        try:
            return httpx2.get(f"{self._url}/livez", timeout=2).status_code == 200
        except httpx2.HTTPError:
            return False

    def _show(self, job_id: UUID, what: str) -> None:
        rows = attempts(self.installation.database, job_id)
        tried = [(r.attempt, r.worker, r.outcome, r.first_step, r.last_step) for r in rows]
        sys.stderr.write(f"{job_id} is {what}: {tried}\n")
