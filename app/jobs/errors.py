"""What can go wrong with jobs. What is wrong with base, data or method is said by `lora_core`."""

from app.errors import Conflict, Invalid, NotFound, Overloaded


class JobNotFound(NotFound):
    """There is no such job."""

    code = "job_not_found"
    message = "There is no job {job_id}."


class TooManyJobs(Overloaded):
    """One key has as many unfinished jobs as one key may have."""

    code = "too_many_jobs"
    message = (
        "This key has {limit} jobs and prediction runs before their end, which is the most "
        "(LORAWORKS_KEY_JOBS). Wait for some, or cancel them."
    )


class KeyStreamsUsed(Overloaded):
    """One key follows as many streams as one key may."""

    code = "key_streams_used"
    message = (
        "This key follows {limit} streams already. Close some, or read "
        "`GET /v1/jobs/{{id}}/events?after=` now and then instead. Try again in {retry_after} s."
    )


class TooManyStreams(Overloaded):
    """The service sends as many streams as it may."""

    code = "too_many_streams"
    message = (
        "This service sends {limit} streams already. Read `GET /v1/jobs/{{id}}/events?after=` "
        "now and then instead. Try again in {retry_after} s."
    )


class JobNotFinished(Conflict):
    """Only a job that has ended can be deleted or retried."""

    code = "job_not_finished"
    message = (
        "Job {job_id} is {state}. Only a job that has ended can be deleted or retried; "
        "cancel it first, or wait."
    )


class JobSucceeded(Conflict):
    """A job that succeeded cannot be retried."""

    code = "job_succeeded"
    message = "Job {job_id} has succeeded, so there is nothing to retry."


class NoCheckpoint(Conflict):
    """There is no checkpoint that a retry could continue from."""

    code = "no_checkpoint"
    message = (
        "Job {job_id} has no checkpoint to continue from: it saved none, or it was removed since "
        "(LORAWORKS_KEEP_CHECKPOINT_DAYS). Send its spec again with POST /v1/jobs."
    )


class TrainingVersionChanged(Conflict):
    """The checkpoint was made by a version of the training that gives other numbers."""

    code = "training_version_changed"
    message = (
        "The checkpoint of job {job_id} was made by version {made} of the training and this "
        "installation has version {now}, so the result would be that of neither. Send its spec "
        "again with POST /v1/jobs."
    )


class TrialNotRetried(Conflict):
    """The job belongs to a sweep, which retries its own."""

    code = "trial_not_retried"
    message = (
        "Job {job_id} is a trial of sweep {sweep_id}. Retry what failed there with "
        "POST /v1/sweeps/{sweep_id}/retry."
    )


class PredictionRunNotRetried(Conflict):
    """A prediction run cannot be retried."""

    code = "prediction_run_not_retried"
    message = "{run_id} is a prediction run. Send it again with POST /v1/predictions."


class AlreadyRetried(Conflict):
    """Another job continues from the same checkpoint and has not ended."""

    code = "already_retried"
    message = "Job {other} continues job {job_id} already. Wait for it, or cancel it first."


class JobNamedTwice(Invalid):
    """One job beside itself."""

    code = "job_named_twice"
    message = "Job {job_id} is named twice. Name each job once."


class NoAnswers(NotFound):
    """The job keeps no answers to that part."""

    code = "no_answers"
    message = (
        "Job {job_id} keeps no answers to {part} texts: it has not succeeded, it was a trial, or "
        "its result was removed since."
    )


class InvalidBase(Invalid):
    """Not the name of a base."""

    code = "invalid_base"
    message = (
        "{base!r} names no base. Write minilm-l6, a model of this installation ('name', "
        "'name@alias' or 'name:3'), a hub model ('name' or 'owner/name'), or a directory "
        "('/…' or './…')."
    )


class BaseDirectoriesOff(Invalid):
    """Bases in a directory are not taken here."""

    code = "base_directories_off"
    message = (
        "{base!r} is a directory, and this installation takes none. Its operator can name folders "
        "of base models in LORAWORKS_BASE_DIRS."
    )


class BaseOutside(Invalid):
    """A directory that the operator has not opened."""

    code = "base_outside"
    message = "{base!r} is not below a folder named in LORAWORKS_BASE_DIRS."


class RevisionMismatch(Invalid):
    """A revision for a base that has none."""

    code = "revision_mismatch"
    message = "{base!r} has no revision {revision}: only hub models have them. Leave it out."


class ColumnNotChecked(Invalid):
    """Another column than the one that the upload was checked for."""

    code = "column_not_checked"
    message = (
        "{ref} was checked with the {what} column {checked!r}, not {column!r}. Leave it out, or "
        "upload the file again with {what}_column={column!r}."
    )


class NoLabels(Invalid):
    """A data set that was uploaded without labels."""

    code = "no_labels"
    message = (
        "{ref} was uploaded with purpose=predict, so it has no labels to learn. "
        "Upload a file with labels."
    )


class ColumnsDiffer(Invalid):
    """Files of one job that do not fit together."""

    code = "columns_differ"
    message = (
        "The data sets of one job must share their columns, but the {what} column is {columns}. "
        "Give the columns one name and upload again."
    )
