"""A worker that claims and writes like a real one, but does not train."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import Session

from app.database.engines import Database
from app.queue import checkpoints, leases
from app.queue.enums import DeviceClass
from app.queue.fencing import ClaimedJob, Lease, WorkerIdentity
from app.queue.tables import JobEvent, MetricPoint
from app.queue.transitions import AttemptResult
from app.storage.store import ArtifactRef


class FakeWorker:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.owner = WorkerIdentity(id="worker-1", host="here", boot_id="boot", pid=1, pid_start=1)

    def claim(self, device_class: DeviceClass = DeviceClass.CPU) -> ClaimedJob:
        with self.database.write() as session:
            claimed = leases.claim_job(
                session, owner=self.owner, device_class=device_class, device="cpu", lease_seconds=60
            )
        assert claimed is not None
        return claimed

    def log(self, lease: Lease, *, step: int, points: dict[str, float | None]) -> int:
        """Write one point per name; return the last sequence number."""
        with self._renewed(lease, step=step, reserve=len(points)) as (session, first):
            for seq, (name, value) in enumerate(points.items(), start=first):
                session.add(
                    MetricPoint(
                        job_id=lease.job_id,
                        seq=seq,
                        attempt=lease.attempt,
                        split="train",
                        name=name,
                        step=step,
                        epoch=step / 10,
                        value=value,
                        nonfinite=value is None,
                    )
                )
        return first + len(points) - 1

    def note(
        self, lease: Lease, message: str, *, step: int = 0, kind: str = "noted", **changes: Any
    ) -> int:
        """Write an event; return its sequence number."""
        with self._renewed(lease, step=step, reserve=1) as (session, seq):
            session.add(
                JobEvent(
                    job_id=lease.job_id,
                    seq=seq,
                    attempt=lease.attempt,
                    kind=kind,
                    level="warning",
                    message=message,
                    **{"data": {"code": "cut"}} | changes,
                )
            )
        return seq

    def save(self, lease: Lease, *, step: int) -> None:
        """Store a checkpoint without files."""
        ref = ArtifactRef(
            f"checkpoints/{lease.job_id}/a{lease.attempt}/step-{step}", "0" * 64, bytes=1
        )
        with self._renewed(lease, step=step, reserve=1) as (session, seq):
            checkpoints.record_and_rotate_checkpoints(session, lease, step=step, ref=ref, seq=seq)

    def renew(self, lease: Lease, *, step: int) -> None:
        """Renew the lease without writing anything."""
        with self._renewed(lease, step=step, reserve=0):
            pass

    def finish(self, lease: Lease, result: AttemptResult) -> None:
        with self.database.write() as session:
            leases.finish_attempt(session, lease, result)

    @contextmanager
    def _renewed(self, lease: Lease, *, step: int, reserve: int) -> Iterator[tuple[Session, int]]:
        with self.database.write() as session:
            renewal = leases.renew_lease(session, lease, step=step, total_steps=20, reserve=reserve)
            assert renewal is not None
            yield session, renewal.first_seq
