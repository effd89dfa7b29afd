"""Tables of retraining rules and runs. Neither has texts: these are in datasets and results."""

from uuid import UUID

from sqlalchemy import JSON, Double, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, JsonObject, enum_check, new_id, now
from app.retraining.states import ACTIVE_STATES, RetrainingState, Trigger

_ACTIVE = text("state IN ({})".format(", ".join(f"'{each.value}'" for each in ACTIVE_STATES)))


class RetrainingRule(Base):
    """When a model is trained again, and how sure the lead of a promoted version must be."""

    __tablename__ = "retraining_rules"

    model_id: Mapped[UUID] = mapped_column(
        ForeignKey("registered_models.id", ondelete="CASCADE"), primary_key=True
    )
    created_by: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id"))  # owns those of due runs
    enabled: Mapped[bool]
    new_labels: Mapped[int | None]  # texts with new feedback that start a run
    every_days: Mapped[float | None] = mapped_column(Double)
    level: Mapped[float] = mapped_column(Double)  # of the test, such as 0.05
    search: Mapped[JsonObject | None]  # of settings; None: those of production's job
    created_at: Mapped[float] = mapped_column(Double, default=now())
    updated_at: Mapped[float] = mapped_column(Double, default=now())


class RetrainingRun(Base):
    """One retraining of a model: what it trained on, and what became of the new version.

    `claims` counts the workers that began a long step. It fences their writes: only the last one
    may end the step. `excused` counts those that could not end it for a cause that passes.
    """

    __tablename__ = "retraining_runs"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("registered_models.id"))
    created_by: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id"))
    trigger: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16), default=RetrainingState.COLLECTING)
    level: Mapped[float] = mapped_column(Double)
    search: Mapped[JsonObject | None]
    new_labels: Mapped[int]  # texts with feedback since the previous run
    labels_until: Mapped[float] = mapped_column(Double)  # Unix time up to which they were counted
    current_number: Mapped[int]  # the version in production when the run began
    new_number: Mapped[int | None]  # the version that it made
    dataset_id: Mapped[UUID | None] = mapped_column(index=True)  # what it trains on
    kept_rows: Mapped[int | None]  # the first rows of it, which are not from feedback
    evaluation_dataset_id: Mapped[UUID | None]  # until it is deleted
    sweep_id: Mapped[UUID | None]
    job_id: Mapped[UUID | None]  # that makes the new version
    current_run_id: Mapped[UUID | None]  # prediction runs
    new_run_id: Mapped[UUID | None]
    data: Mapped[JsonObject | None]  # counts of texts
    result: Mapped[JsonObject | None]  # of the comparison
    reasons: Mapped[list[str]] = mapped_column(JSON, default=list)
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)
    claims: Mapped[int] = mapped_column(default=0)
    excused: Mapped[int] = mapped_column(default=0)
    claimed_until: Mapped[float | None] = mapped_column(Double)  # None: nobody works on the step
    created_at: Mapped[float] = mapped_column(Double, default=now())
    finished_at: Mapped[float | None] = mapped_column(Double)

    __table_args__ = (
        enum_check("state", tuple(RetrainingState), "state"),
        enum_check("trigger", tuple(Trigger), "trigger"),
        Index("ix_retraining_runs_list", "model_id", "id"),
        Index(  # one run of a model at a time
            "uq_retraining_runs_active",
            "model_id",
            unique=True,
            sqlite_where=_ACTIVE,
            postgresql_where=_ACTIVE,
        ),
        Index(
            "ix_retraining_runs_evaluation",
            "evaluation_dataset_id",
            sqlite_where=text("evaluation_dataset_id IS NOT NULL"),
            postgresql_where=text("evaluation_dataset_id IS NOT NULL"),
        ),
    )
