"""Errors of the fine-tuning APIs."""

from functools import cache

from app.errors import NotFound, UnprocessableContent
from lora_core.errors import LoraCoreError
from lora_core.errors.data import DataError


class FileNotFound(NotFound):
    code = "file_not_found"
    title = "File not found."
    message = "There is no file {file_id}."


class FineTuningJobNotFound(NotFound):
    code = "fine_tuning_job_not_found"
    title = "Fine-tuning job not found."
    message = "There is no fine-tuning job {job_id} that was created through this API."


class FineTuningModelNotFound(NotFound):
    code = "fine_tuning_model_not_found"
    title = "There is no such model to fine-tune."
    message = (
        "{model!r} cannot be fine-tuned: {reason} Use minilm-l6, a model of this installation, or "
        "the name of a model of {owner}, in whose place minilm-l6 is trained."
    )


class FilesNotUsable(UnprocessableContent):
    code = "files_not_usable"
    title = "The files cannot be used for this job."
    message = "{problem} So the files cannot be used for this job."


@cache
def training_file_error_codes() -> frozenset[str]:
    """Return the codes of jobs that failed because of their files."""
    return frozenset(error.code for error in _subclasses(DataError))


def _subclasses(error: type[LoraCoreError]) -> list[type[LoraCoreError]]:
    return [each for child in error.__subclasses__() for each in (child, *_subclasses(child))]
