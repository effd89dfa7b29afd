"""The figures of a job as a table, beside those of its linear rival."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PARTS = ("train", "validation", "test")
# Titles, and where each figure stands in a summary.
PLACES = {
    "Accuracy": ("{part}", "accuracy"),
    "Macro F1": ("{part}", "macro_f1"),
    "Balanced accuracy": ("{part}", "balanced_accuracy"),
    "Loss": ("{part}", "loss"),
    "Calibration error": ("calibration", "{part}", "after", "ece"),
    "Accuracy of the linear rival": ("linear", "{part}", "accuracy"),
}


@dataclass(frozen=True)
class Figures:
    """A column a part; what is not known of any part has no row."""

    parts: list[str]
    rows: dict[str, list[float | None]]

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> "Figures | None":
        """None: the job has none yet."""
        parts = [part for part in PARTS if part in summary]
        rows = {
            title: [_found(summary, [step.format(part=part) for step in place]) for part in parts]
            for title, place in PLACES.items()
        }
        known = {title: row for title, row in rows.items() if any(v is not None for v in row)}
        return cls(parts, known) if known else None


def _found(summary: Mapping[str, Any], place: list[str]) -> float | None:
    found: Any = summary
    for step in place:
        found = (found or {}).get(step)
    return None if found is None else float(found)
