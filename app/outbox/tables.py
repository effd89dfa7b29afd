"""Tables of webhook endpoints, of the deliveries to them, and of what MLflow was sent."""

from uuid import UUID

from sqlalchemy import JSON, Double, ForeignKey, Index, String, Text, UniqueConstraint, text, true
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, JsonObject, enum_check, new_id, now
from app.outbox.enums import DeliveryState, MlflowSyncState


class WebhookEndpoint(Base):
    """A URL that receives events."""

    __tablename__ = "webhook_endpoints"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    created_by: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id"))
    url: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(String(200))
    events: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))  # None: all of them
    secret: Mapped[str] = mapped_column(String(128))  # in plain text, because it signs
    previous_secret: Mapped[str | None] = mapped_column(String(128))  # signs too, while it rotates
    previous_secret_expires_at: Mapped[float | None] = mapped_column(Double)
    enabled: Mapped[bool] = mapped_column(default=True, server_default=true())
    disabled_reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Double, default=now())


class WebhookDelivery(Base):
    """An event for one endpoint: what is sent, and how the attempts to send it ended.

    `attempts` counts claims and fences the results, like that of a job.
    """

    __tablename__ = "webhook_deliveries"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    endpoint_id: Mapped[UUID] = mapped_column(
        ForeignKey("webhook_endpoints.id", ondelete="CASCADE")
    )
    event_id: Mapped[str] = mapped_column(String(64))  # the header `webhook-id` of every attempt
    type: Mapped[str] = mapped_column(String(64))
    body: Mapped[str] = mapped_column(Text)  # as text, so that every attempt sends the same bytes
    state: Mapped[str] = mapped_column(String(16), default=DeliveryState.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)  # since the event or its last replay
    next_attempt_at: Mapped[float | None] = mapped_column(Double, default=now())
    retry_until: Mapped[float] = mapped_column(Double)
    lease_expires_at: Mapped[float | None] = mapped_column(Double)  # while a worker sends it
    last_status: Mapped[int | None]  # of the last response
    last_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Double, default=now())
    finished_at: Mapped[float | None] = mapped_column(Double)

    __table_args__ = (
        enum_check("state", tuple(DeliveryState), "state"),
        UniqueConstraint("event_id", "endpoint_id"),
        Index("ix_webhook_deliveries_list", "endpoint_id", "id"),
        Index(
            "ix_webhook_deliveries_due",
            "next_attempt_at",
            "endpoint_id",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
    )


MLFLOW_SERVER_ID = 1  # of the only row


class MlflowServer(Base):
    """The MLflow server that workers send to: one row, as soon as a worker had the setting.

    `attempts` counts claims and fences what a worker writes while it sends.
    """

    __tablename__ = "mlflow_server"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    tracking_uri: Mapped[str] = mapped_column(Text)
    experiment: Mapped[str] = mapped_column(String(500))
    experiment_id: Mapped[str | None] = mapped_column(String(64))
    attempts: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)  # in a row
    next_attempt_at: Mapped[float] = mapped_column(Double, default=now())
    lease_expires_at: Mapped[float | None] = mapped_column(Double)  # while a worker sends
    seen_at: Mapped[float] = mapped_column(Double, default=now())  # by a worker with the setting
    last_success_at: Mapped[float | None] = mapped_column(Double)
    last_error_code: Mapped[str | None] = mapped_column(String(64))
    last_error: Mapped[str | None] = mapped_column(Text)
    last_error_at: Mapped[float | None] = mapped_column(Double)


class MlflowRun(Base):
    """What MLflow has of a job or a sweep. It is added with the job, and outlives it until MLflow
    has its end."""

    __tablename__ = "mlflow_runs"

    id: Mapped[UUID] = mapped_column(primary_key=True)  # of the job or the sweep
    run_id: Mapped[str | None] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16), default=MlflowSyncState.PENDING)
    status: Mapped[str | None] = mapped_column(String(16))  # as MLflow has it
    has_params: Mapped[bool] = mapped_column(default=False)
    seq: Mapped[int] = mapped_column(default=0)  # `stream_seq` of the job up to which it is sent
    steps: Mapped[JsonObject] = mapped_column(default=dict)  # last step that was sent, by curve
    failures: Mapped[int] = mapped_column(default=0)  # rejections in a row
    next_attempt_at: Mapped[float] = mapped_column(Double, default=now())
    last_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Double, default=now())

    __table_args__ = (
        enum_check("state", tuple(MlflowSyncState), "state"),
        Index(
            "ix_mlflow_runs_pending",
            "id",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
    )


class MlflowModel(Base):
    """What MLflow has of a registered model."""

    __tablename__ = "mlflow_models"

    model_id: Mapped[UUID] = mapped_column(primary_key=True)
    versions: Mapped[JsonObject] = mapped_column(default=dict)  # MLflow's version by our number
    aliases: Mapped[JsonObject] = mapped_column(default=dict)  # MLflow's version by alias
    failures: Mapped[int] = mapped_column(default=0)  # rejections in a row
    next_attempt_at: Mapped[float] = mapped_column(Double, default=now())
    last_error: Mapped[str | None] = mapped_column(Text)


class MlflowModelChange(Base):
    """A change to the versions or aliases of a model that MLflow does not have yet.

    Changes are only added, never updated, so that those who make them do not wait for each other.
    """

    __tablename__ = "mlflow_model_changes"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    model_id: Mapped[UUID] = mapped_column(index=True)
