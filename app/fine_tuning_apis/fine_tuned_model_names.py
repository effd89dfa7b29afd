"""Names of the models of fine-tuning jobs. `app.registry.refs` reads the job from them."""

from pathlib import PurePosixPath
from uuid import UUID

from app.queue.tables import Job

ORGANIZATION = "loraworks"  # a part of every model name


def base_or_method_name(job: Job) -> str:
    """Return the name of what a job trains: its base or, if it needs none, its method."""
    return job.base or job.method


def build_fine_tuned_model_name(prefix: str, job_id: UUID, *, base: str, suffix: str | None) -> str:
    """Return the name of the model that a job trains, such as `ft:minilm-l6:loraworks:spam:5f…`.

    Of a base such as `FacebookAI/roberta-base` it has the last part, so that it fits into a path.
    """
    short = PurePosixPath(base).name.replace(":", "-")[:64]
    return f"{prefix}{short}:{ORGANIZATION}:{suffix or ''}:{job_id.hex}"
