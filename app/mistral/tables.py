"""Table of the jobs that were created through the Mistral API."""

from uuid import UUID

from sqlalchemy import ForeignKey, String, false
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, JsonObject


class MistralJobRequest(Base):
    """What a client asked for, and how it named the model of the job.

    Everything else about the job is in its row of `jobs`.
    """

    __tablename__ = "mistral_jobs"

    job_id: Mapped[UUID] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    request: Mapped[JsonObject]  # with `classifier_targets`, also if the client left them out
    model_name: Mapped[str | None] = mapped_column(String(256))
    model_description: Mapped[str | None] = mapped_column(String(4000))
    archived: Mapped[bool] = mapped_column(default=False, server_default=false())
