"""How a worker may end its attempt, and what is told about it.

What becomes of the row is decided in `moves`.
"""

from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from app.database.base import JsonObject
from app.jobs.states import JobState

CRASH_LOOP = "crash_loop"  # it fails at the same step again and again
STORAGE = "storage_unavailable"  # what a job waits for: disk, data folder, store or database
SPENT = (
    "{} This was failure {} in a row without progress, and the last that is allowed "
    "(LORAWORKS_MAX_FAILURES)."
)


@dataclass(frozen=True)
class Succeeded:
    """The artifact is stored, its row in the same transaction. A cancel comes too late."""

    artifact_id: UUID
    summary: JsonObject


@dataclass(frozen=True)
class Failed:
    """Another try would fail the same way."""

    code: str
    message: str
    detail: JsonObject = field(default_factory=dict)


@dataclass(frozen=True)
class Cancelled:
    """Stopped because the job was asked to be cancelled."""


@dataclass(frozen=True)
class Preempted:
    """Stopped because the worker leaves. The job waits again, and nothing is counted."""


@dataclass(frozen=True)
class Retry:
    """A failure that may pass. It is counted; each waits twice as long as the one before."""

    code: str
    message: str
    backoff_seconds: float


@dataclass(frozen=True)
class Waiting:
    """Disk, storage or hub failed. The job waits for them with its reason shown, uncounted."""

    code: str
    message: str
    seconds: float


Ending = Succeeded | Failed | Cancelled | Preempted | Retry | Waiting


@dataclass(frozen=True)
class ExitStatus:
    """How the training process left: a code, or the number of the signal that ended it."""

    code: int | None = None
    signal: int | None = None


class Told(NamedTuple):
    """The words of an event."""

    kind: str
    level: str
    message: str
    data: JsonObject


def closing(ending: Ending, state: JobState, error_code: str | None) -> Told:
    """The event of an ending that left the job in `state`, and with that code if it failed."""
    code, cause, level = "preempted", "The worker stops.", "info"
    if isinstance(ending, Failed | Retry | Waiting):
        code, cause, level = ending.code, ending.message, "warning"
    match state:
        case JobState.SUCCEEDED:
            return Told("succeeded", "info", "Succeeded.", {})
        case JobState.CANCELLED:
            return Told("cancelled", "info", "Cancelled.", {})
        case JobState.FAILED:
            return Told("failed", "error", cause, {"code": error_code})
        case _:
            return Told("requeued", level, f"{cause} The job waits again.", {"code": code})
