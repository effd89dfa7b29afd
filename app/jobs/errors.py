"""Errors of the jobs API.

Errors about the contents of a base, of data or of a method are defined in `lora_core.errors`.
"""

from app.errors import Conflict, NotFound, TooManyRequests, UnprocessableContent


class JobNotFound(NotFound):
    """Job not found."""

    code = "job_not_found"
    message = "There is no job {job_id}."


class TooManyJobs(TooManyRequests):
    """The API key has reached its limit of unfinished jobs."""

    code = "too_many_jobs"
    message = (
        "This key already has {limit} unfinished jobs and prediction runs, which is the limit "
        "(LORAWORKS_KEY_JOBS). Wait for some to finish, or cancel them."
    )


class KeyStreamsUsed(TooManyRequests):
    """The API key has reached its limit of open streams."""

    code = "key_streams_used"
    message = (
        "This key already has {limit} open streams. Close some, or poll "
        "`GET /v1/jobs/{{id}}/events?after=` instead. Try again in {retry_after} s."
    )


class TooManyStreams(TooManyRequests):
    """The service has reached its limit of open streams."""

    code = "too_many_streams"
    message = (
        "This service already has {limit} open streams. Poll "
        "`GET /v1/jobs/{{id}}/events?after=` instead. Try again in {retry_after} s."
    )


class JobNotFinished(Conflict):
    """The job has not finished."""

    code = "job_not_finished"
    message = (
        "Job {job_id} is {state}. Only a finished job can be deleted or retried. "
        "Cancel it first, or wait."
    )


class JobSucceeded(Conflict):
    """The job succeeded, so it cannot be retried."""

    code = "job_succeeded"
    message = "Job {job_id} succeeded, so there is nothing to retry."


class NoCheckpoint(Conflict):
    """The job has no checkpoint to continue from."""

    code = "no_checkpoint"
    message = (
        "Job {job_id} has no checkpoint to continue from: it saved none, or its checkpoints were "
        "removed (LORAWORKS_KEEP_CHECKPOINT_DAYS). Send its spec again with POST /v1/jobs."
    )


class TrainingVersionChanged(Conflict):
    """The checkpoint was written by an incompatible training version."""

    code = "training_version_changed"
    message = (
        "The checkpoint of job {job_id} was written by training version {made}, and this "
        "installation has version {now}, so the result would match neither version. Send its spec "
        "again with POST /v1/jobs."
    )


class TrialNotRetried(Conflict):
    """A trial is retried through its sweep."""

    code = "trial_not_retried"
    message = (
        "Job {job_id} is a trial of sweep {sweep_id}. Retry the failed trials with "
        "POST /v1/sweeps/{sweep_id}/retry."
    )


class PredictionRunNotRetried(Conflict):
    """A prediction run cannot be retried."""

    code = "prediction_run_not_retried"
    message = "{run_id} is a prediction run. Create it again with POST /v1/predictions."


class AlreadyRetried(Conflict):
    """An unfinished job already continues this one."""

    code = "already_retried"
    message = "Job {other} already continues job {job_id}. Wait for it, or cancel it first."


class JobNamedTwice(UnprocessableContent):
    """The same job was given twice."""

    code = "job_named_twice"
    message = "Job {job_id} was given twice. Give each job once."


class NoPredictionsKept(NotFound):
    """The job has no predictions for this split."""

    code = "no_answers"
    message = (
        "Job {job_id} has no predictions for the {part} split: it has not succeeded, it was a "
        "trial, or its artifact was removed."
    )


class InvalidBase(UnprocessableContent):
    """Invalid base name."""

    code = "invalid_base"
    message = (
        "{base!r} is not a valid base. Use minilm-l6, a model of this installation ('name', "
        "'name@alias' or 'name:3'), a hub model ('name' or 'owner/name'), or a directory "
        "('/…' or './…')."
    )


class BaseDirectoriesOff(UnprocessableContent):
    """Bases from directories are disabled."""

    code = "base_directories_off"
    message = (
        "{base!r} is a directory, and this installation allows none. Its operator can list folders "
        "of base models in LORAWORKS_BASE_DIRS."
    )


class BaseOutsideDirectories(UnprocessableContent):
    """The directory is outside of the allowed folders."""

    code = "base_outside"
    message = "{base!r} is not inside a folder listed in LORAWORKS_BASE_DIRS."


class RevisionMismatch(UnprocessableContent):
    """The base does not support revisions."""

    code = "revision_mismatch"
    message = "{base!r} has no revision {revision}: only hub models have revisions. Leave it out."


class ColumnNotChecked(UnprocessableContent):
    """The dataset was checked with another column."""

    code = "column_not_checked"
    message = (
        "{ref} was checked with the {what} column {checked!r}, not {column!r}. Leave it out, or "
        "upload the file again with {what}_column={column!r}."
    )


class DatasetHasNoLabels(UnprocessableContent):
    """The dataset has no labels."""

    code = "no_labels"
    message = (
        "{ref} was uploaded with purpose=predict, so it has no labels to train on. "
        "Upload a file with labels."
    )


class ColumnsDiffer(UnprocessableContent):
    """The datasets of the job have different columns."""

    code = "columns_differ"
    message = (
        "The datasets of one job must use the same columns, but the {what} column is {columns}. "
        "Rename the columns and upload again."
    )
