"""The metadata of all tables. Importing this module registers every table for Alembic."""

from app.auth import tables as keys
from app.database.base import Base
from app.datasets import tables as datasets
from app.drift import tables as drift
from app.feedback import tables as feedback
from app.idempotency import tables as idempotency
from app.label_review import tables as label_review
from app.labeling import tables as labeling
from app.mistral import tables as mistral
from app.openai import tables as openai
from app.outbox import tables as outbox
from app.privacy import tables as privacy
from app.queue import tables as jobs
from app.registry import tables as registry
from app.retraining import tables as retraining
from app.storage import tables as artifacts
from app.sweeps import tables as sweeps
from app.traffic import tables as traffic

metadata = Base.metadata

__all__ = [
    "artifacts",
    "datasets",
    "drift",
    "feedback",
    "idempotency",
    "jobs",
    "keys",
    "label_review",
    "labeling",
    "metadata",
    "mistral",
    "outbox",
    "openai",
    "privacy",
    "registry",
    "retraining",
    "sweeps",
    "traffic",
]
