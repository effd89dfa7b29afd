"""The states of a job, the outcomes of its attempts, and the device classes it may need.

    queued ──► running ──► succeeded | failed | cancelled
      ▲           │
      └───────────┘  retried after a failure, the worker was asked to stop, or paused

Cancelling and pausing are not states but requests (`cancel_requested_at`, `pause_requested_at`): a
queued job with a request to pause is paused, and no worker claims it until it is resumed.
"Preempted" is the outcome of an attempt.
"""

from enum import StrEnum


class JobKind(StrEnum):
    """What a row of the queue is. All kinds share one life cycle and compete for the devices."""

    TRAINING = "training"  # what the API calls a job
    PREDICTION = "prediction"  # a prediction run
    EMBEDDING = "embedding"  # the vectors of the texts of a labeling project


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
    # The worker was asked to stop, or the job to pause, or disk, store, hub or database failed;
    # requeued without counting a failure.
    PREEMPTED = "preempted"
    LOST = "lost"  # the lease expired, or the worker is known to be dead


class DeviceClass(StrEnum):
    """The class of device a job needs; the column `device_class` of its row."""

    CPU = "cpu"
    GPU = "gpu"
    ANY = "any"  # whichever is free first; after its first claim the job stays with that class
