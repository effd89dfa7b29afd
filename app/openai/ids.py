"""Ids of the OpenAI API, each made from the id of a row."""

from uuid import UUID

from app.fine_tuning_apis import fine_tuned_model_names
from app.registry.refs import job_id_in_model_name as job_id_in_model_name

_FILE, _RESULT_FILE, _JOB, _MODEL = "file-", "file-result-", "ftjob-", "ft:"
_EVENT, _CHECKPOINT = "ftevent-", "ftckpt-"


def file_id(dataset_id: UUID) -> str:
    return _FILE + dataset_id.hex


def parse_file_id(text: str) -> UUID | None:
    """Return the dataset of a file; None if this is no such id."""
    return _parse(text, _FILE)


def result_file_id(job_id: UUID) -> str:
    return _RESULT_FILE + job_id.hex


def parse_result_file_id(text: str) -> UUID | None:
    """Return the job of a result file; None if this is no such id."""
    return _parse(text, _RESULT_FILE)


def job_id(job: UUID) -> str:
    return _JOB + job.hex


def parse_job_id(text: str) -> UUID | None:
    """Return the job; None if this is no such id."""
    return _parse(text, _JOB)


def event_id(job: UUID, seq: int) -> str:
    return f"{_EVENT}{job.hex}-{seq}"


def parse_event_seq(text: str, job: UUID) -> int | None:
    """Return the sequence number of an event of this job; None if this is no such id."""
    prefix = f"{_EVENT}{job.hex}-"
    number = text.removeprefix(prefix)
    valid = text.startswith(prefix) and number.isascii() and number.isdigit() and len(number) < 10
    return int(number) if valid else None


def checkpoint_id(job: UUID) -> str:
    return _CHECKPOINT + job.hex


def model_name(job: UUID, *, base: str, suffix: str | None) -> str:
    """Return the name of the model that a job trains, such as `ft:minilm-l6:loraworks:spam:5f…`."""
    return fine_tuned_model_names.build_fine_tuned_model_name(_MODEL, job, base=base, suffix=suffix)


def _parse(text: str, prefix: str) -> UUID | None:
    hexadecimal = text.removeprefix(prefix)
    if not text.startswith(prefix) or len(hexadecimal) != 32:
        return None
    try:
        return UUID(hex=hexadecimal)
    except ValueError:
        return None
