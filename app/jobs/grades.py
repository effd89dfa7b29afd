"""Which texts the jobs answered rightly."""

import base64
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.jobs.guards import UNSYNCED
from app.jobs.tables import Grade


def keep(session: Session, job_id: UUID, graded: Mapping[str, Any]) -> None:
    """What the manifest of a run tells, by part: see `lora_core.training.graded`."""
    session.execute(delete(Grade).where(Grade.job_id == job_id), execution_options=UNSYNCED)
    for split, told in graded.items():
        session.add(
            Grade(
                job_id=job_id,
                split=split,
                texts_sha256=told["texts_sha256"],
                count=told["count"],
                correct=base64.b64decode(told["correct"]),
            )
        )


def of(session: Session, job_ids: Collection[UUID]) -> Sequence[Grade]:
    """Of all these jobs, every part."""
    found: list[Grade] = []
    ids = list(job_ids)
    for i in range(0, len(ids), 500):  # a statement takes only so many parameters
        found += session.scalars(select(Grade).where(Grade.job_id.in_(ids[i : i + 500])))
    return found
