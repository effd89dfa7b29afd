"""Tables of sweeps and trials. The results of a trial are stored with its job."""

from typing import Any
from uuid import UUID

from sqlalchemy import JSON, Double, ForeignKey, Index, String, Text, true
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, JsonObject, enum_check, new_id, now
from app.sweeps.states import SweepState


class Sweep(Base):
    """A hyperparameter search: one job description, run with many settings."""

    __tablename__ = "sweeps"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    created_by: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id"))
    name: Mapped[str | None] = mapped_column(String(200))
    user_metadata: Mapped[JsonObject] = mapped_column("metadata")
    job: Mapped[JsonObject]  # the description that the trials share, as the caller sent it
    space: Mapped[list[Any]] = mapped_column(JSON)  # [field, values or range], in order
    strategy: Mapped[JsonObject]
    resolved_inputs: Mapped[JsonObject]  # bases and data sources, resolved when the sweep started
    objective: Mapped[str] = mapped_column(String(32))
    max_parallel_jobs: Mapped[int | None]  # jobs at a time; None: one per device of the workers
    priority: Mapped[int] = mapped_column(default=0)
    state: Mapped[str] = mapped_column(String(16), default=SweepState.RUNNING)
    # False while its first trials are being stored, or those of an extension, which move to the
    # extended sweep. Such a sweep is hidden, and garbage collection removes it if the process dies.
    ready: Mapped[bool] = mapped_column(default=True, server_default=true())
    created_at: Mapped[float] = mapped_column(Double, default=now())
    finished_at: Mapped[float | None] = mapped_column(Double)

    __table_args__ = (
        enum_check("state", tuple(SweepState), "state"),
        Index("ix_sweeps_state", "state", "id"),
    )


class Trial(Base):
    """One configuration at one rung. Its job may have been created by another sweep."""

    __tablename__ = "trials"

    sweep_id: Mapped[UUID] = mapped_column(
        ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)  # from 1
    rung: Mapped[int] = mapped_column(primary_key=True)  # from 0
    settings: Mapped[JsonObject]
    job_columns: Mapped[JsonObject]  # column values of its job
    trial_sha256: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    reused: Mapped[bool] = mapped_column(default=False)  # the job existed before the trial
    lost_jobs: Mapped[int] = mapped_column(default=0)  # whose worker was lost
    problem: Mapped[str | None] = mapped_column(Text)  # why no job can be created

    __table_args__ = (Index("ix_trials_job_id", "job_id"),)
