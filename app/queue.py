"""How an API process wakes the workers.

A hint is a courtesy: the jobs table is the queue, and a worker polls it anyway.
"""

from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from app.settings import Settings


class JobQueue(Protocol):
    """Tells the workers of a lane that a job waits. Called after the commit; never raises."""

    def hint(self, job_id: UUID, *, lane: str) -> None: ...


class PollOnlyQueue:
    """No broker: workers find the job at their next poll."""

    def hint(self, job_id: UUID, *, lane: str) -> None:
        """Nothing to do."""


@dataclass
class RecordingQueue:
    """Keeps the hints, for tests."""

    hints: list[tuple[UUID, str]] = field(default_factory=list)

    def hint(self, job_id: UUID, *, lane: str) -> None:
        self.hints.append((job_id, lane))


def open_queue(settings: Settings) -> JobQueue:  # noqa: ARG001 - as the other openers
    """The queue of this installation."""
    return PollOnlyQueue()
