"""Imports every table, so that Alembic and the tests see them all."""

from app.artifacts import tables as artifacts
from app.datasets import tables as datasets
from app.db.base import Base
from app.idempotency import tables as idempotency
from app.jobs import tables as jobs
from app.keys import tables as keys
from app.registry import tables as registry
from app.sweeps import tables as sweeps

metadata = Base.metadata

__all__ = ["artifacts", "datasets", "idempotency", "jobs", "keys", "metadata", "registry", "sweeps"]
