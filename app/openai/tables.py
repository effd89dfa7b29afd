"""Table of the jobs that were created through the OpenAI API."""

from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, JsonObject


class OpenAIJobRequest(Base):
    """What a client asked for. Everything else about the job is in its row of `jobs`."""

    __tablename__ = "openai_jobs"

    job_id: Mapped[UUID] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    request: Mapped[JsonObject]
