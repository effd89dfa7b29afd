"""Insert drift checks without comparing texts."""

from typing import Any

from app.database.engines import Database
from app.drift.tables import DriftCheck


def add_drift_check(database: Database, *, alarm: bool, **changes: Any) -> None:
    """Insert a check of `sentiment:1`, of 120 texts."""
    start = changes.get("window_start", 0.0)
    values: dict[str, Any] = {
        "model": "sentiment",
        "number": 1,
        "window_start": start,
        "window_end": start + 1e9,
        "training_texts": 400,
        "recent_texts": 120,
        "p_value": 0.002 if alarm else 0.4,
        "auc": 0.83 if alarm else 0.51,
        "level": 0.01,
        "automatic": True,
        "most_different": [],
        **changes,
    }
    with database.write() as session:
        session.add(DriftCheck(alarm=alarm, **values))
