"""The few numbers of a result that a list shows."""

from typing import Any, NamedTuple

from app.database.base import JsonObject

PARTS = ("test", "validation")  # the first that there is


class Figures(NamedTuple):
    """None: not known, or not yet."""

    accuracy: float | None = None
    trainable_parameters: int | None = None
    total_parameters: int | None = None
    model_version: str | None = None


def of(summary: JsonObject | None) -> Figures:
    """Those of a summary that was read as a whole."""
    found: dict[str, Any] = summary or {}
    accuracies = ((found.get(part) or {}).get("accuracy") for part in PARTS)
    return Figures(
        next((each for each in accuracies if each is not None), None),
        found.get("trainable_parameters"),
        found.get("total_parameters"),
        found.get("model_version"),
    )
