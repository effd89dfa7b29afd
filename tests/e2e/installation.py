"""A full installation of real processes, embedded or clustered, for fault injection."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.database import migrations
from app.database.engines import Database, open_database
from app.queue.enums import JobState
from app.settings import Settings
from app.storage.tables import Artifact
from lora_core import manifest
from lora_core.artifact_base_sharing import BASE_DIGEST
from lora_core.specs.train import TrainSpec
from lora_core.tasks.single_label_metrics import CURVE_METRICS
from tests.job_rows import add_job, attempts, events, get_job, points
from tests.tiny_base import make_base, make_reviews
from tests.waiting import wait_until

SCRIPTS = Path(__file__).parents[1] / "worker"
EXACT = frozenset({"grad_norm", "learning_rate", *CURVE_METRICS})  # not speeds
PLAN = {"parameters": {"trainable": 1, "total": 2, "exact": True}, "estimated_seconds": 9}
QUICK: dict[str, Any] = {
    "poll_seconds": 0.2,
    "heartbeat_seconds": 0.3,
    "lease_seconds": 4,
    "reconcile_seconds": 0.3,
    "retry_seconds": 0.1,
    "redispatch_seconds": 2,
    "checkpoint_seconds": 0,
    "min_free_bytes": 0,
    "keep_curve_points": "forever",  # the curves of two runs are compared
}


@dataclass(frozen=True)
class Outcome:
    """What a repeated run must reproduce bitwise."""

    curves: dict[str, str]  # "split name step" → hex of the value
    files: dict[str, str]  # of the artifact: name → sha256


@dataclass
class Installation:
    """The folder of an installation and its processes."""

    folder: Path
    database_url: str | None = None
    broker_url: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.base = make_base(self.folder / "tiny")
        self.reviews = make_reviews(self.folder / "reviews.csv")
        self.settings = Settings(
            data_dir=self.folder / "data", database_url=self.database_url, **(QUICK | self.changes)
        )
        migrations.upgrade(self.settings)
        self.database: Database = open_database(self.settings)
        self.log = self.folder / "processes.log"

    def environment(self, **changes: Any) -> dict[str, str]:
        """For a process of this installation."""
        chosen = QUICK | self.changes | {"data_dir": self.settings.data_dir} | changes
        chosen |= {"database_url": self.database_url, "broker_url": self.broker_url}
        own = {f"LORAWORKS_{n.upper()}": str(v) for n, v in chosen.items() if v is not None}
        threads = {"OMP_NUM_THREADS": "1"}
        outside = {n: v for n, v in os.environ.items() if n != "LORAWORKS_TEST_DATABASE"}
        return outside | threads | own

    def worker(self, *actions: str, fault: str | None = None, **changes: Any) -> "Process":
        """Real training without `actions`; else a worker whose trainings do those."""
        command = [sys.executable, "-P", "-m", "worker"]
        if actions:
            script = "celery_process.py" if self.broker_url else "worker_process.py"
            command = [sys.executable, str(SCRIPTS / script), *actions]
        elif self.broker_url:
            command = [sys.executable, "-P", "-m", "celery", "-A", "worker.celery_app", "worker"]
        environment = self.environment(**changes)
        return self.start(command, environment | ({"LORAWORKS_FAULT": fault} if fault else {}))

    def start(self, command: list[str], environment: dict[str, str]) -> "Process":
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=Path(__file__).parents[2],
                start_new_session=True,
            )
        self.processes.append(process)
        return Process(process)

    def submit(self, **changes: Any) -> UUID:
        """A real training of a few seconds, with dropout so that randomness counts."""
        spec = {
            "method": {"type": "lora", "r": 4, "targets": ["query", "value", "mlp"]},
            "base": str(self.base),
            "data": {"source": str(self.reviews)},
            "optim": {"epochs": 2, "batch_size": 8, "encoder_dropout": 0.1, "head_dropout": 0.1},
            "runtime": {"device": "cpu", "threads": 1},
            "result": {"cross_validation": False},
            **changes.pop("spec", {}),
        }
        made = TrainSpec.model_validate(spec).model_dump(mode="json")
        return add_job(self.database, spec=made, base=made["base"], plan=PLAN, **changes)

    def ended(self, job_id: UUID, *, seconds: float = 120) -> JobState:
        """Wait for a final state."""

        def state() -> JobState | None:
            now = JobState(get_job(self.database, job_id).state)
            return now if now.final else None

        try:
            ended = wait_until(state, seconds=seconds, what="the end of the job", pause=0.1)
            return ended or JobState.QUEUED
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from error

    def succeeded(self, *job_ids: UUID, seconds: float = 120) -> None:
        for job_id in job_ids:
            state = self.ended(job_id, seconds=seconds)
            row = get_job(self.database, job_id)
            assert state is JobState.SUCCEEDED, (row.error_code, row.error_message, self.tail())

    def runs(self, job_id: UUID, *, seconds: float = 60) -> None:
        """Wait until a worker has claimed it."""
        wait_until(
            lambda: get_job(self.database, job_id).state == JobState.RUNNING,
            seconds=seconds,
            what=f"the claim of {job_id}",
        )

    def saw(self, job_id: UUID, kind: str, *, count: int = 1, seconds: float = 60) -> None:
        """Wait for a number of events of a kind."""

        def seen() -> bool:
            return [e.kind for e in events(self.database, job_id)].count(kind) >= count

        try:
            wait_until(seen, seconds=seconds, what=f"{kind} of {job_id}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from error

    def outcome(self, job_id: UUID) -> Outcome:
        """Metrics and files of a succeeded job."""
        return read_outcome(self.database, self.settings, job_id)

    def children(self) -> list[int]:
        """Training processes of this installation, found by their working directory."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (entry / "cwd").readlink().is_relative_to(self.settings.work_dir / "jobs"):
                    found.append(int(entry.name))
        return found

    def fork_servers(self, *workers: "Process") -> list[int]:
        """Processes from which these workers, or all of this installation, fork trainings."""
        parents, trainings = {each.pid for each in workers or self.processes}, self.children()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                line = (entry / "cmdline").read_bytes().split(b"\0")
                pid = int(entry.name)
                if parent in parents and pid not in trainings and b"lora_core.fork_server" in line:
                    found.append(pid)
        return found

    def effective_overlaps(self, job_id: UUID) -> int:
        """Number of attempts that started before the previous one had ended."""
        rows = attempts(self.database, job_id)
        return sum(
            one.ended_at is None or two.started_at < one.ended_at for one, two in pairwise(rows)
        )

    def tail(self) -> str:
        """The end of the processes' output."""
        return self.log.read_text(errors="replace")[-6000:] if self.log.exists() else ""

    def close(self) -> None:
        """End every process."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pid in self.children():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.database.close()


class Process:
    """A started process, the leader of its process group."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.popen = process
        self.pid = process.pid

    def kill(self) -> None:
        """Send SIGKILL."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.popen.wait()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def leave(self, *, seconds: float = 60) -> int:
        """Send SIGTERM; returns the exit status."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        return self.popen.wait(seconds)

    def alive(self) -> bool:
        return self.popen.poll() is None


def read_outcome(database: Database, settings: Settings, job_id: UUID) -> Outcome:
    """Metrics and files of a succeeded job. The table has a unique constraint on steps."""
    curves = {
        f"{p.split} {p.name} {p.step}": "nothing" if p.value is None else p.value.hex()
        for p in points(database, job_id)
        if p.name in EXACT
    }
    with database.read() as session:
        (key,) = session.scalars(select(Artifact.key).where(Artifact.job_id == job_id))
    directory = settings.artifacts_dir / key
    told_time = directory / "manifest.json"  # it has seconds in it
    files = [each for each in directory.rglob("*") if each.is_file() and each != told_time]
    facts = manifest.read(directory)
    return Outcome(
        curves,
        {
            str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in files
        }
        | {name: facts[name] for name in ("merged_sha256", BASE_DIGEST) if name in facts},
    )


def gone(pid: int, *, seconds: float = 20) -> None:
    """Wait until no process has this number."""
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.05)
