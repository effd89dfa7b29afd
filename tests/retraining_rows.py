"""Insert rules and runs of retraining without the service."""

from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.auth.tables import LOCAL_KEY_ID
from app.database.base import new_id
from app.database.engines import Database
from app.registry.tables import RegisteredModel
from app.retraining.tables import RetrainingRule, RetrainingRun

DATA = {
    "source": "moods:1",
    "train": 210,
    "validation": 30,
    "test": 60,
    "live_volunteered": 20,
    "live_sampled": 80,
    "new": 95,
    "replaced": 1,
    "forgotten_rows": 2,
    "evaluated_test": 60,
    "evaluated_live": 90,
    "left_out": {"disagreement": 3},
}


def part(texts: int, *, current: float, new: float, p: float) -> dict[str, Any]:
    """A comparison as it is stored."""
    scores = {
        name: {"value": value, "low": value - 0.1, "high": value + 0.1}
        for name, value in (("current", current), ("new", new))
    }
    better, worse = round(texts * new / 2), round(texts * current / 4)
    return {
        **scores,
        "texts": texts,
        "difference": new - current,
        "better": better,
        "worse": worse,
        "p_better": p,
        "p_worse": 1 - p,
    }


RESULT = {
    "metric": "accuracy",
    "all": part(150, current=0.7, new=0.8, p=0.003),
    "test": part(60, current=0.71, new=0.71, p=0.5),
    "live": part(90, current=0.69, new=0.86, p=0.001),
    "tries": 2,
}


def model_id(database: Database, name: str = "sentiment") -> UUID:
    with database.read() as session:
        return session.scalars(select(RegisteredModel.id).where(RegisteredModel.name == name)).one()


def add_rule(database: Database, name: str = "sentiment", **changes: Any) -> None:
    """Insert an enabled rule."""
    values: dict[str, Any] = {
        "model_id": model_id(database, name),
        "created_by": LOCAL_KEY_ID,
        "enabled": True,
        "new_labels": 200,
        "level": 0.05,
        **changes,
    }
    with database.write() as session:
        session.add(RetrainingRule(**values))


def add_run(database: Database, name: str = "sentiment", **changes: Any) -> UUID:
    """Insert a run that promoted version 2."""
    values: dict[str, Any] = {
        "id": new_id(),
        "model_id": model_id(database, name),
        "created_by": LOCAL_KEY_ID,
        "trigger": "new_labels",
        "state": "promoted",
        "level": 0.05,
        "new_labels": 210,
        "labels_until": 1e9,
        "current_number": 1,
        "new_number": 2,
        "data": DATA,
        "result": RESULT,
        "finished_at": 1e9,
        **changes,
    }
    with database.write() as session:
        session.add(RetrainingRun(**values))
    id_: UUID = values["id"]
    return id_


def all_runs(database: Database) -> list[RetrainingRun]:
    """All runs, the oldest first."""
    with database.read() as session:
        return list(session.scalars(select(RetrainingRun).order_by(RetrainingRun.id)))
