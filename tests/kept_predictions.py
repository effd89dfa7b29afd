"""Insert and read kept predictions and feedback without the service."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.auth.tables import LOCAL_KEY_ID
from app.database.base import new_id
from app.database.engines import Database
from app.feedback.tables import Feedback
from app.traffic.tables import KeptPrediction, PredictionCount


def add_prediction(database: Database, **changes: Any) -> UUID:
    """Insert a kept prediction of `sentiment:1`, which answered `good` to a text of its own."""
    (prediction_id,) = add_predictions(database, [changes])
    return prediction_id


def add_predictions(database: Database, rows: Sequence[Mapping[str, Any]]) -> list[UUID]:
    """Insert several in one transaction."""
    made = [_prediction(**row) for row in rows]
    with database.write() as session:
        session.add_all(made)
    return [each.prediction_id for each in made]


def _prediction(**changes: Any) -> KeptPrediction:
    prediction_id = changes.get("prediction_id") or new_id()
    values: dict[str, Any] = {
        "prediction_id": prediction_id,
        "position": 0,
        "texts": 1,
        "model": "sentiment",
        "number": 1,
        "task": "single_label",
        "text_hash": prediction_id.hex,
        "text": f"text {prediction_id.hex}",
        "answer": "good",
        "scores": {"good": 0.9, "bad": 0.1},
        "confidence": {"": 0.9},
        "created_at": prediction_seconds(prediction_id),
        **changes,
    }
    return KeptPrediction(**values)


def add_feedback(database: Database, **changes: Any) -> UUID:
    """Insert feedback on a prediction of `sentiment:1` that was drawn for a review."""
    prediction_id = changes.get("prediction_id") or new_id()
    values: dict[str, Any] = {
        "id": new_id(),
        "model": "sentiment",
        "number": 1,
        "target": "",
        "author": "local",
        "subject": f"{prediction_id.hex}-0",
        "key_id": LOCAL_KEY_ID,
        "prediction_id": prediction_id,
        "position": 0,
        "sampled": True,
        "task": "single_label",
        "text_hash": prediction_id.hex,
        "text": f"text {prediction_id.hex}",
        "label": "good",
        "answer": "good",
        "confidence": 0.9,
        "predicted_at": prediction_seconds(prediction_id),
        **changes,
    }
    with database.write() as session:
        session.add(Feedback(**values))
    id_: UUID = values["id"]
    return id_


def prediction_seconds(prediction_id: UUID) -> float:
    """The Unix time of a UUIDv7."""
    return (prediction_id.int >> 80) / 1000


def kept_predictions(database: Database) -> list[KeptPrediction]:
    """All kept predictions, by id and position."""
    order = (KeptPrediction.prediction_id, KeptPrediction.position)
    with database.read() as session:
        return list(session.scalars(select(KeptPrediction).order_by(*order)))


def all_feedback(database: Database) -> list[Feedback]:
    """All feedback, the oldest first."""
    with database.read() as session:
        return list(session.scalars(select(Feedback).order_by(Feedback.id)))


def counts(database: Database) -> dict[tuple[str, int, str, str], int]:
    """Numbers of predictions by model, version, outcome and label, over all hours."""
    found: dict[tuple[str, int, str, str], int] = {}
    with database.read() as session:
        for row in session.scalars(select(PredictionCount)):
            key = (row.model, row.number, row.outcome, row.label)
            found[key] = found.get(key, 0) + row.count
    return found
