"""The events that webhooks report, and the states of what is sent."""

from enum import StrEnum


class EventType(StrEnum):
    """What happened. The names with `fine_tuning` are those of the OpenAI API."""

    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    FINE_TUNING_JOB_SUCCEEDED = "fine_tuning.job.succeeded"
    FINE_TUNING_JOB_FAILED = "fine_tuning.job.failed"
    FINE_TUNING_JOB_CANCELLED = "fine_tuning.job.cancelled"
    MODEL_PROMOTED = "model.promoted"
    SWEEP_FINISHED = "sweep.finished"
    DRIFT_DETECTED = "drift.detected"
    RETRAINING_FINISHED = "retraining.finished"


TEST_EVENT = "webhook.test"  # sent on request, to one endpoint, whatever its events


class DeliveryState(StrEnum):
    """The state of a delivery."""

    PENDING = "pending"  # to be sent, or sent again
    DELIVERED = "delivered"  # the receiver answered with a status of 200 to 299
    FAILED = "failed"  # no more retries; a replay makes it pending again


class MlflowSyncState(StrEnum):
    """Whether MLflow has all of a job or a sweep."""

    PENDING = "pending"
    SENT = "sent"
    FAILED = "failed"  # MLflow rejected it too often
