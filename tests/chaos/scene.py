"""The installation under attack: its workers, its API, its jobs and their twins."""

import random
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
from sqlalchemy import and_, func, select

from app.queue.enums import AttemptOutcome as Ended
from app.queue.enums import JobKind, JobState
from app.queue.tables import Job
from app.storage.tables import Artifact
from tests.chaos.annotators import Annotators
from tests.e2e.installation import Installation, Outcome, Process
from tests.hostile_archives import hostile_archive
from tests.job_rows import attempts, get_job
from tests.servers import PostgresServer, ValkeyServer, free_port
from tests.waiting import wait_until

OPTIM = {"epochs": 3, "batch_size": 8, "encoder_dropout": 0.1, "head_dropout": 0.1}
BODIES: dict[str, dict[str, Any]] = {
    "lora": {"method": {"type": "lora", "r": 4, "targets": ["query", "value", "mlp"]}},
    "full": {"method": {"type": "full"}},
    "baseline": {"method": {"type": "baseline"}},
    "auto": {
        "method": {
            "type": "auto",
            "candidates": [
                {"method": {"type": "lora", "r": 4, "targets": ["query", "value"]}, "folds": 2},
                {"method": {"type": "probe"}},
            ],
        }
    },
}
TEXTS = ["an awful film", "great, it made me laugh"]
# Submitted by the scene, not by a sweep.
_IS_TRAINING = and_(Job.kind == JobKind.TRAINING, Job.sweep_id.is_(None))
LONGEST_SECONDS = 300.0  # of the last jobs, once nothing is broken any more


@dataclass(frozen=True)
class Sent:
    """A submitted job."""

    kind: str
    time_limit_seconds: float | None = None


@dataclass
class Counts:
    """The result of a run."""

    faults: int = 0
    jobs: int = 0
    lost: int = 0
    doubled: int = 0
    not_identical: int = 0
    answers_changed: int = 0
    labels: int = 0
    labels_lost: int = 0
    labels_doubled: int = 0

    @property
    def clean(self) -> bool:
        wrong = (self.lost, self.doubled, self.not_identical, self.answers_changed)
        return not any((*wrong, self.labels_lost, self.labels_doubled))

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
        self.annotators = Annotators(self.url, str(installation.base), draw)
        self._sent: dict[str, Sent] = {}  # by idempotency key
        self._jobs: dict[UUID, str] = {}  # the kind of each that must succeed
        self._retried: dict[UUID, str] = {}  # the kind of each whose retry must succeed instead
        self._paused: set[UUID] = set()
        self._twins: dict[str, Outcome] = {}
        self._kinds = kinds
        self._honest = b""  # the archive of a valid model
        self._answer: Any = None  # its predictions
        self._answers_changed = 0

    def rehearse(self) -> None:
        """Run a reference of each kind of job without faults."""
        self.keep_up(1)
        self._upload()
        for kind in self._kinds:
            job_id = self._send(str(uuid4()), Sent(kind))
            self.installation.succeeded(job_id)
            self._twins[kind] = self.installation.outcome(job_id)
            if not self._honest:
                self._register(job_id)
        self.annotators.upload()
        self.annotators.start()

    def keep_up(self, workers: int) -> None:
        """Start missing processes. A stopping worker may still be running."""
        self.workers = [worker for worker in self.workers if worker.alive()]
        while len(self.workers) < workers:
            self.workers.append(self.start_worker())
        if self.api is None or not self.api.alive():
            self.api = self._start_api()

    def start_worker(self) -> Process:
        """Start a worker whose disk `fill_disk` fills."""
        fault = f"checkpoint_files_written:enospc:{self.disk_full}"
        return self.installation.worker(fault=fault)

    def submit_up_to(self, count: int) -> None:
        """Submit jobs until enough are active; a failed submission is repeated later."""
        while len(self._sent) - self._ended() < count:
            if not self.submit():
                return

    def submit(self, *, time_limit_seconds: float | None = None) -> bool:
        """Submit a job; returns whether it was accepted. If not, it is sent again later."""
        key, sent = str(uuid4()), Sent(self.draw.choice(self._kinds), time_limit_seconds)
        self._sent[key] = sent
        try:
            self._jobs[self._send(key, sent)] = sent.kind
        except (httpx2.HTTPError, AssertionError):
            return False
        return True

    def open_jobs(self) -> list[UUID]:
        """Active jobs."""
        with self.installation.database.read() as session:
            final = [state for state in JobState if state.final]
            rows = session.scalars(select(Job.id).where(Job.state.not_in(final)).order_by(Job.id))
            return [job_id for job_id in rows if job_id in self._jobs]

    def retry(self, job_id: UUID) -> bool:
        """Cancel a job and retry it, from its checkpoint if it has one."""
        path, kind = f"/v1/jobs/{job_id}", self._jobs[job_id]
        self._insist("POST", f"{path}/cancel")
        if self.installation.ended(job_id, seconds=LONGEST_SECONDS) is JobState.CANCELLED:
            self._replace(job_id, kind)
            return True
        return False  # it had already ended

    def pause(self, job_id: UUID) -> bool:
        """Pause a job; returns whether it had not ended yet."""
        if self._insist("POST", f"/v1/jobs/{job_id}/pause").status_code == 409:
            return False
        self._paused.add(job_id)
        return True

    def resume_paused(self) -> bool:
        """Resume every job that was paused; returns whether there was one."""
        resumed = bool(self._paused)
        while self._paused:
            self._insist("POST", f"/v1/jobs/{self._paused.pop()}/resume")
        return resumed

    def import_hostile(self, name: str) -> bool:
        """Import a malicious model, and compare the predictions of a valid one."""
        archive = hostile_archive(self._honest, name)
        files = {"file": ("model.tar", archive, "application/x-tar")}
        with suppress(httpx2.HTTPError):
            answer = self._call("POST", "/v1/models/hostile/versions/import", files=files)
            if answer.status_code == 201:
                model = f"hostile:{answer.json()['number']}"
                self._call("POST", "/predict", json={"inputs": TEXTS, "model": model})
        self.keep_up(0)  # it may have crashed the API
        if not _equal((answer := self._predict()), self._answer):
            self._answers_changed += 1
            sys.stderr.write(f"answers changed by: {name}\n{self._answer}\n{answer}\n")
        return True

    def heal(self, workers: int) -> None:
        """Repair everything."""
        self.disk_full.unlink(missing_ok=True)
        for server in (self.postgres, self.valkey):
            if server is not None and server.process is None:
                server.start()
        self.keep_up(workers)
        for (
            key,
            sent,
        ) in self._sent.items():  # the same idempotency key, so nothing is created twice
            job_id = wait_until(partial(self._try, key, sent), seconds=60)
            assert job_id is not None
            if job_id not in self._retried:
                self._jobs[job_id] = sent.kind
        self.resume_paused()

    def judge(self) -> Counts:
        """Wait for every job and check its effects."""
        self._retry_what_ran_out_of_time()
        counts = Counts(jobs=len(self._jobs), answers_changed=self._answers_changed)
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
        self._judge_labels(counts)
        with self.installation.database.read() as session:
            rows = session.scalars(select(func.count()).where(_IS_TRAINING)).one()
        made = len(self._jobs) + len(self._retried) + len(self._kinds)
        counts.doubled += max(0, rows - made)
        return counts

    def _judge_labels(self, counts: Counts) -> None:
        self.annotators.finish()
        labels = self.annotators.judge(self.installation.database)
        counts.labels, counts.labels_lost = labels.labels, labels.lost
        counts.labels_doubled = labels.doubled
        vectors = self.annotators.project_job(self.installation.database)
        assert vectors is not None
        if self.installation.ended(vectors, seconds=LONGEST_SECONDS) is not JobState.SUCCEEDED:
            counts.lost += 1
            self._show(vectors, "lost")

    def _retry_what_ran_out_of_time(self) -> None:
        """Retry until no job fails: each retry gets further."""
        waiting = list(self._jobs)
        while waiting:
            job_id = waiting.pop()
            ended = self.installation.ended(job_id, seconds=LONGEST_SECONDS)
            row = get_job(self.installation.database, job_id)
            if ended is JobState.FAILED and row.error_code == "time_limit":
                waiting.append(self._replace(job_id, self._jobs[job_id]))

    def _replace(self, job_id: UUID, kind: str) -> UUID:
        """Replace a job: by its retry, or without a checkpoint by a new one."""
        answer = self._insist("POST", f"/v1/jobs/{job_id}/retry")
        if answer.status_code == 202:
            new_id = UUID(answer.json()["id"])
        else:
            assert answer.json()["code"] == "no_checkpoint", answer.text
            key = str(uuid4())
            new_id = wait_until(partial(self._try, key, Sent(kind)), seconds=60) or job_id
        self._retried[job_id] = self._jobs.pop(job_id)
        self._jobs[new_id] = kind
        return new_id

    def _register(self, job_id: UUID) -> None:
        """Export the model of a job, and store its predictions."""
        artifact_id = self._call("GET", f"/v1/jobs/{job_id}").json()["artifact_id"]
        self._honest = self._call("GET", f"/v1/artifacts/{artifact_id}/archive").content
        answer = self._call("POST", "/v1/models/honest/versions", json={"job_id": str(job_id)})
        assert answer.status_code == 201, answer.text
        self._answer = self._predict()
        assert "label" in str(self._answer), self._answer

    def _predict(self) -> Any:
        return self._insist("POST", "/predict", json={"inputs": TEXTS, "model": "honest:1"}).json()

    def _insist(self, method: str, path: str, **sent: Any) -> httpx2.Response:
        """The response, with reconnects. One idempotency key, so nothing is created twice."""
        headers = {"Idempotency-Key": str(uuid4())}

        def ask() -> httpx2.Response | None:
            with suppress(httpx2.HTTPError):
                answer = self._call(method, path, headers=headers, **sent)
                return None if answer.status_code >= 500 else answer
            self.keep_up(0)
            return None

        answer = wait_until(ask, seconds=60, what=f"an answer to {method} {path}", pause=0.2)
        assert answer is not None
        return answer

    def _call(self, method: str, path: str, **sent: Any) -> httpx2.Response:
        return httpx2.request(method, f"{self.url}{path}", timeout=60, **sent)

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
                ended = select(func.count()).where(_IS_TRAINING, Job.state.in_(final))
                extra = len(self._kinds) + len(self._retried)
                return session.scalars(ended).one() - extra
        except Exception:
            return 0  # the database is down: nothing is sent then

    def _try(self, key: str, sent: Sent) -> UUID | None:
        try:
            return self._send(key, sent)
        except (httpx2.HTTPError, AssertionError):
            return None

    def _send(self, key: str, sent: Sent) -> UUID:
        base = str(self.installation.base)
        body = {"base": base, "data": {"source": "reviews:1"}, "optim": OPTIM, **BODIES[sent.kind]}
        body |= {"runtime": {"device": "cpu", "threads": 1}}
        body |= {"time_limit_seconds": sent.time_limit_seconds}
        answer = httpx2.post(
            f"{self.url}/v1/jobs", json=body, headers={"Idempotency-Key": key}, timeout=20
        )
        assert answer.status_code == 202, answer.text
        return UUID(answer.json()["id"])

    def _upload(self) -> None:
        with self.installation.reviews.open("rb") as file:
            answer = self._call("POST", "/v1/datasets", files={"file": ("reviews.csv", file)})
        assert answer.status_code == 201, answer.text

    @property
    def url(self) -> str:
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
            return httpx2.get(f"{self.url}/livez", timeout=2).status_code == 200
        except httpx2.HTTPError:
            return False

    def _show(self, job_id: UUID, what: str) -> None:
        rows = attempts(self.installation.database, job_id)
        tried = [(r.attempt, r.worker, r.outcome, r.first_step, r.last_step) for r in rows]
        row = get_job(self.installation.database, job_id)
        sys.stderr.write(f"{job_id} is {what}: {row.error_code} {row.error_message} {tried}\n")


def _equal(answer: Any, expected: Any) -> bool:
    """Whether two responses have the same labels, and scores equal up to rounding.

    How texts share batches depends on the time, and changes the last bits.
    """
    found, wanted = ([each for text in texts for each in text] for texts in (answer, expected))
    return [each["label"] for each in found] == [each["label"] for each in wanted] and all(
        abs(a["score"] - b["score"]) < 1e-6 for a, b in zip(found, wanted, strict=True)
    )
