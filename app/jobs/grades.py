"""Which texts the jobs answered rightly."""

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.jobs.graded import Graded
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


def of(session: Session, job_ids: Sequence[UUID]) -> Mapping[UUID, Mapping[str, Graded]]:
    """Of each of these jobs, by part; nothing of one that kept none."""
    found: defaultdict[UUID, dict[str, Graded]] = defaultdict(dict)
    for i in range(0, len(job_ids), 500):  # a statement takes only so many parameters
        rows = session.scalars(select(Grade).where(Grade.job_id.in_(job_ids[i : i + 500])))
        for row in rows:
            found[row.job_id][row.split] = Graded(row.texts_sha256, row.correct, row.count)
    return found
