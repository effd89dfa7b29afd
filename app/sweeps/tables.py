"""Sweeps and their cells. What a cell gives stands with its job."""

from typing import Any
from uuid import UUID

from sqlalchemy import JSON, Double, ForeignKey, Index, String, Text, true
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, JsonObject, new_id, one_of
from app.database.clock import now
from app.sweeps.states import SweepState


class Sweep(Base):
    """One job in many settings."""

    __tablename__ = "sweeps"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    created_by: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id"))
    name: Mapped[str | None] = mapped_column(String(200))
    labels: Mapped[JsonObject] = mapped_column("metadata")  # the caller's own key-value pairs
    job: Mapped[JsonObject]  # the description that cells share, as its author wrote it
    space: Mapped[list[Any]] = mapped_column(JSON)  # fields with what they vary over, in order
    strategy: Mapped[JsonObject]
    pinned: Mapped[JsonObject]  # what names of bases and data meant when it was made
    objective: Mapped[str] = mapped_column(String(32))
    parallel: Mapped[int | None]  # jobs at a time; None: one for each device of the workers
    priority: Mapped[int] = mapped_column(default=0)
    state: Mapped[str] = mapped_column(String(16), default=SweepState.RUNNING)
    # False while its first trials are being stored: nobody sees it then, and if the process dies
    # garbage collection removes it.
    ready: Mapped[bool] = mapped_column(default=True, server_default=true())
    created_at: Mapped[float] = mapped_column(Double, default=now())
    finished_at: Mapped[float | None] = mapped_column(Double)

    __table_args__ = (
        one_of("state", tuple(SweepState), "state"),
        Index("ix_sweeps_state", "state", "id"),
    )


class SweepCell(Base):
    """One configuration at one rung. Its job may be one that another sweep has made."""

    __tablename__ = "sweep_cells"

    sweep_id: Mapped[UUID] = mapped_column(
        ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)  # from 1
    rung: Mapped[int] = mapped_column(primary_key=True)  # from 0
    settings: Mapped[JsonObject]
    draft: Mapped[JsonObject]  # the columns of its job
    cell_sha256: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    reused: Mapped[bool] = mapped_column(default=False)  # the job was there before
    lost: Mapped[int] = mapped_column(default=0)  # jobs that were given up with their workers
    problem: Mapped[str | None] = mapped_column(Text)  # why it can have no job

    __table_args__ = (Index("ix_sweep_cells_job_id", "job_id"),)
