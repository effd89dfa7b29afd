"""The states of a job, the outcomes of its attempts, and the device classes it may need.

    queued ──► running ──► succeeded | failed | cancelled
      ▲           │
      └───────────┘  retried after a failure, or the worker was asked to stop

Cancelling is not a state but a request (`cancel_requested_at`); "preempted" is the outcome of an
attempt.
"""

from enum import StrEnum


class JobKind(StrEnum):
    """What a row of the queue is. Both kinds share one life cycle and compete for the devices."""

    TRAINING = "training"  # what the API calls a job
    PREDICTION = "prediction"  # a prediction run


class JobState(StrEnum):
    """The state of a job. Final states never change."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether the job has ended."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"  # the worker was asked to stop; requeued without counting a failure
    LOST = "lost"  # the lease expired


class DeviceClass(StrEnum):
    """The class of device a job needs; the column `device_class` of its row."""

    CPU = "cpu"
    GPU = "gpu"
    ANY = "any"  # whichever is free first; after its first claim the job stays with that class
