"""The life of a job.

    queued ──► running ──► succeeded | failed | cancelled
      ▲           │
      └───────────┘  retry, or the worker was asked to stop

"Cancelling" is no state but a request (`cancel_requested_at`); "preempted" is the outcome of an
attempt.
"""

from enum import StrEnum


class Kind(StrEnum):
    """What a row of the queue is. Both kinds live the same life and take turns for the devices."""

    TRAINING = "training"  # a job, to its callers
    PREDICTION = "prediction"  # a prediction run


class JobState(StrEnum):
    """Where a job is. Final states never change."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"  # the worker was asked to stop; the job is queued again, uncounted
    LOST = "lost"  # the lease ran out


class Lane(StrEnum):
    """The kind of device that a job needs."""

    CPU = "cpu"
    GPU = "gpu"
    ANY = "any"  # whichever is free first; from its first claim on a job stays with that kind
