"""What is counted in the tables, under which name. docs/reference/metrics.md is made from here.

These are gauges also where they only seem to grow: deleting a job takes its attempts along.
"""

from collections.abc import Callable
from dataclasses import dataclass

from app.metrics.repository import Look, Rows

UP = "loraworks_database_up"
UP_HELP = "1 if the tables could be counted; if not, what is counted in them is left out."


@dataclass(frozen=True, slots=True)
class Measure:
    """One family of figures."""

    name: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[Look], Rows]


MEASURES = (
    Measure("loraworks_jobs", "Jobs.", ("state", "method"), Look.jobs),
    Measure("loraworks_predictions", "Prediction runs.", ("state",), Look.predictions),
    Measure(
        "loraworks_queued_jobs",
        "Jobs and prediction runs that wait, by the kind of device that they need.",
        ("lane",),
        Look.queued,
    ),
    Measure(
        "loraworks_oldest_queued_seconds",
        "How long the longest of them has waited since it could have been taken.",
        ("lane",),
        Look.oldest_queued,
    ),
    Measure(
        "loraworks_hints_resent",
        "Hints that were sent again for what waits now.",
        (),
        Look.hints_resent,
    ),
    Measure(
        "loraworks_attempts",
        "Attempts of both that have ended. The last one of a failed job or run has the code of "
        "the failure.",
        ("outcome", "code"),
        Look.attempts,
    ),
    Measure(
        "loraworks_lease_losses",
        "Attempts that ended because their worker fell silent or died.",
        (),
        Look.lease_losses,
    ),
    Measure("loraworks_running_attempts", "Attempts that run.", ("device",), Look.running),
    Measure(
        "loraworks_slots",
        "Jobs and prediction runs that the workers alive can run at a time.",
        ("device",),
        Look.slots,
    ),
    Measure(
        "loraworks_workers",
        "Workers that were seen within a lease.",
        ("state",),
        Look.workers,
    ),
    Measure(
        "loraworks_stored_bytes",
        "Size of what the tables know to be stored.",
        ("kind",),
        Look.stored_bytes,
    ),
)
