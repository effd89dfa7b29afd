"""Tables of the queue: jobs, attempts, checkpoints, events, metric points, workers, and which texts
a run got right.

A prediction run is a row of `jobs` with another `kind`: see `app.predictions`. So is a job that
computes vectors: see `app.labeling`.
"""

from uuid import UUID

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    String,
    Text,
    TextClause,
    UniqueConstraint,
    text,
    true,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, BigInt, JsonObject, enum_check, new_id, now
from app.queue.enums import AttemptOutcome, DeviceClass, JobKind, JobState
from lora_core.training_version import TRAINING_VERSION

SERVER_DEFAULT_ZERO = text("0")  # for rows older than the column


def _partial_index(name: str, *columns: str | TextClause, where: str) -> Index:
    """Return an index of the rows that `where` selects, on both databases."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


class Job(Base):
    """One training run, one prediction run, or the vectors of the texts of one dataset.

    `attempt` counts claims and fences every write of a worker.
    """

    __tablename__ = "jobs"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    created_by: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id"))
    kind: Mapped[str] = mapped_column(
        String(16), default=JobKind.TRAINING, server_default=text("'training'")
    )
    name: Mapped[str | None] = mapped_column(String(200))
    # None instead of an empty list, so that the partial index holds only tagged jobs.
    tags: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    notes: Mapped[str | None] = mapped_column(Text)
    user_metadata: Mapped[JsonObject] = mapped_column("metadata")
    method: Mapped[str] = mapped_column(String(32))
    device_class: Mapped[str] = mapped_column(String(8))
    priority: Mapped[int] = mapped_column(default=0)
    spec: Mapped[JsonObject]
    spec_version: Mapped[int]
    dataset_ids: Mapped[JsonObject]  # uploaded datasets this job reads, {"all" or a split: id}
    base: Mapped[str] = mapped_column(String(512))  # empty: the method has no base model
    register_as: Mapped[str | None] = mapped_column(String(64))
    plan: Mapped[JsonObject] = mapped_column(default=dict)  # estimated parameters and cost
    # Hash of everything its metrics depend on: a sweep reuses them from any job with the same hash.
    # None: the job is older than sweeps.
    trial_sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    sweep_id: Mapped[UUID | None] = mapped_column(index=True)  # the sweep that created it
    continues: Mapped[UUID | None]  # the job whose last checkpoint it starts from
    promote_to: Mapped[str | None] = mapped_column(String(64))  # alias to move to the version

    state: Mapped[str] = mapped_column(String(16), default=JobState.QUEUED)
    run_after: Mapped[float] = mapped_column(Double, default=now())
    attempt: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str | None] = mapped_column(String(128))
    lease_expires_at: Mapped[float | None] = mapped_column(Double)
    cancel_requested_at: Mapped[float | None] = mapped_column(Double)
    pause_requested_at: Mapped[float | None] = mapped_column(Double)  # queued with it: paused
    failures_counted: Mapped[int] = mapped_column(default=0)
    time_limit_seconds: Mapped[float | None] = mapped_column(Double)
    running_seconds: Mapped[float] = mapped_column(  # of ended attempts
        Double, default=0.0, server_default=SERVER_DEFAULT_ZERO
    )
    waiting_since: Mapped[float | None] = mapped_column(Double)  # since something failed
    waiting_code: Mapped[str | None] = mapped_column(String(64))
    waiting_message: Mapped[str | None] = mapped_column(Text)
    resume_exact: Mapped[bool] = (
        mapped_column(  # False: other numbers than without the interruption
            default=True, server_default=true()
        )
    )
    dispatched_at: Mapped[float | None] = mapped_column(Double)  # when the last message was sent
    dispatch_count: Mapped[int] = mapped_column(default=0, server_default=SERVER_DEFAULT_ZERO)
    step: Mapped[int] = mapped_column(default=0)  # for other kinds than trainings: rows done
    total_steps: Mapped[int | None]
    stream_seq: Mapped[int] = mapped_column(default=0)  # last sequence number of an event or point

    summary: Mapped[JsonObject | None]
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)
    error_detail: Mapped[JsonObject | None]
    artifact_id: Mapped[UUID | None] = mapped_column(ForeignKey("artifacts.id"))
    created_at: Mapped[float] = mapped_column(Double, default=now())
    started_at: Mapped[float | None] = mapped_column(Double)
    finished_at: Mapped[float | None] = mapped_column(Double)
    thinned_at: Mapped[float | None] = mapped_column(Double)  # see `app.retention.curve_thinning`

    __table_args__ = (
        enum_check("kind", tuple(JobKind), "kind"),
        enum_check("state", tuple(JobState), "state"),
        enum_check("device_class", tuple(DeviceClass), "device_class"),
        CheckConstraint("(worker IS NOT NULL) = (state = 'running')", name="worker"),
        CheckConstraint(
            "(finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled'))",
            name="finished_at",
        ),
        # In claim order; the last three columns filter without reading the row.
        _partial_index(
            "ix_jobs_queue",
            text("priority DESC"),
            "created_at",
            "id",
            "device_class",
            "run_after",
            "pause_requested_at",
            where="state = 'queued'",
        ),
        # Lists by id; the other columns filter without reading the rows.
        Index("ix_jobs_list", "kind", "id", "state", "method", "sweep_id"),
        _partial_index("ix_jobs_tagged", "kind", "id", where="tags IS NOT NULL"),
        Index("ix_jobs_counts", "kind", "state", "sweep_id", "method"),
        Index("ix_jobs_created_by", "created_by", "state"),
        _partial_index(
            "ix_jobs_succeeded",
            "kind",
            "device_class",
            "finished_at",
            where="state = 'succeeded'",
        ),
        _partial_index(  # looked up whenever an artifact is deleted
            "ix_jobs_artifact_id",
            "artifact_id",
            where="artifact_id IS NOT NULL",
        ),
        _partial_index(
            "ix_jobs_continues",
            "continues",
            where="continues IS NOT NULL",
        ),
        _partial_index(
            "ix_jobs_waiting",
            "waiting_code",
            where="waiting_code IS NOT NULL",
        ),
        _partial_index(
            "ix_jobs_unthinned",
            "id",
            where="finished_at IS NOT NULL AND thinned_at IS NULL",
        ),
        _partial_index(
            "ix_jobs_lease",
            "lease_expires_at",
            where="state = 'running'",
        ),
    )

    @property
    def paused(self) -> bool:
        """Whether no worker claims the job until it is resumed."""
        return self.state == JobState.QUEUED and self.pause_requested_at is not None


class Attempt(Base):
    """One claim of a job by a worker."""

    __tablename__ = "attempts"

    job_id: Mapped[UUID] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    attempt: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str] = mapped_column(String(128))
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    environment: Mapped[JsonObject]
    device: Mapped[str | None] = mapped_column(String(16))
    first_step: Mapped[int] = mapped_column(  # step of the checkpoint it started from
        default=0, server_default=SERVER_DEFAULT_ZERO
    )
    started_at: Mapped[float] = mapped_column(Double, default=now())
    ended_at: Mapped[float | None] = mapped_column(Double)
    outcome: Mapped[str | None] = mapped_column(String(16))
    exit_code: Mapped[int | None]
    signal: Mapped[int | None]
    last_step: Mapped[int] = mapped_column(default=0)

    __table_args__ = (
        enum_check("outcome", tuple(AttemptOutcome), "outcome"),
        Index("ix_attempts_outcome", "outcome"),
    )


class Checkpoint(Base):
    """A checkpoint that a run can resume from: a stored directory with a manifest."""

    __tablename__ = "checkpoints"

    job_id: Mapped[UUID] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    attempt: Mapped[int] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    seq: Mapped[int]  # of its event; after a resume, later events and points are reported again
    key: Mapped[str] = mapped_column(String(255))  # key in the object store
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[BigInt]
    bad: Mapped[bool] = mapped_column(default=False)
    training_version: Mapped[int] = mapped_column(  # of the program that wrote it
        default=TRAINING_VERSION, server_default=text("1")
    )
    at: Mapped[float] = mapped_column(Double, default=now())


class SplitCorrectnessRow(Base):
    """How well a job predicted each text of a split; used to compare jobs text by text."""

    __tablename__ = "correctness"

    job_id: Mapped[UUID] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    split: Mapped[str] = mapped_column(String(16), primary_key=True)
    texts_sha256: Mapped[str] = mapped_column(String(64))  # equal for equal texts in equal order
    count: Mapped[int]
    # One bit per text, the first in the highest bit (numpy.packbits): all of its labels are right
    correct: Mapped[bytes | None]
    # Of a multi-label task, compressed by zlib: one bit per text and label
    true_labels: Mapped[bytes | None]
    predicted_labels: Mapped[bytes | None]
    errors: Mapped[bytes | None]  # of a regression: prediction - number, float32, little-endian
    # Of several targets: each as in the manifest (`lora_core.training.correctness`)
    targets: Mapped[JsonObject | None]


class JobEvent(Base):
    """Something that happened to a job; append-only. Shares its `seq` with the metric points."""

    __tablename__ = "job_events"

    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    kind: Mapped[str] = mapped_column(String(64))
    level: Mapped[str] = mapped_column(String(16))
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[JsonObject]
    at: Mapped[float] = mapped_column(Double, default=now())

    __table_args__ = (ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),)


class MetricPoint(Base):
    """One value of a metric at one step: a point of a curve."""

    __tablename__ = "metric_points"

    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    split: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(64))
    step: Mapped[int]
    epoch: Mapped[float | None] = mapped_column(Double)
    value: Mapped[float | None] = mapped_column(Double)
    nonfinite: Mapped[bool] = mapped_column(default=False)
    at: Mapped[float] = mapped_column(Double, default=now())

    __table_args__ = (
        UniqueConstraint("job_id", "split", "name", "step"),
        ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
    )


class Worker(Base):
    """A worker process and its last heartbeat."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    boot_id: Mapped[str] = mapped_column(String(64))
    pid: Mapped[int]
    pid_start: Mapped[BigInt]  # clock ticks since boot; (boot_id, pid, pid_start) is unique
    seen_at: Mapped[float] = mapped_column(Double, default=now())
    draining: Mapped[bool]
    devices: Mapped[list[str]] = mapped_column(default=list, server_default=text("'[]'"))
