"""The few numbers of a job's summary that lists show."""

from typing import Any, NamedTuple

from app.database.base import JsonObject

SPLIT_PREFERENCE = ("test", "validation")  # the accuracy shown is that of the first available


class JobSummary(NamedTuple):
    """None: unknown, or not available yet."""

    accuracy: float | None = None
    trainable_parameters: int | None = None
    total_parameters: int | None = None
    model_version: str | None = None


def from_summary(summary: JsonObject | None) -> JobSummary:
    """Extract the numbers from a complete summary."""
    fields: dict[str, Any] = summary or {}
    accuracies = ((fields.get(split) or {}).get("accuracy") for split in SPLIT_PREFERENCE)
    return JobSummary(
        next((accuracy for accuracy in accuracies if accuracy is not None), None),
        fields.get("trainable_parameters"),
        fields.get("total_parameters"),
        fields.get("model_version"),
    )
