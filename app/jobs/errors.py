"""Errors of the jobs API.

Errors about the contents of a base, of data or of a method are defined in `lora_core.errors`.
"""

from app.errors import Conflict, NotFound, TooManyRequests, UnprocessableContent


class JobNotFound(NotFound):
    code = "job_not_found"
    title = "Job not found."
    message = "There is no job {job_id}."


class TooManyJobs(TooManyRequests):
    code = "too_many_jobs"
    title = "The API key has reached its limit of unfinished jobs."
    message = (
        "This key already has {limit} unfinished jobs and prediction runs, which is the limit "
        "(LORAWORKS_MAX_JOBS_PER_KEY). Wait for some to finish, or cancel them."
    )


class TooManyStreamsForKey(TooManyRequests):
    code = "too_many_streams_for_key"
    title = "The API key has reached its limit of open streams."
    message = (
        "This key already has {limit} open streams. Close some, or poll "
        "`GET /v1/jobs/{{id}}/events?after=` instead. Try again in {retry_after} s."
    )


class TooManyStreams(TooManyRequests):
    code = "too_many_streams"
    title = "The service has reached its limit of open streams."
    message = (
        "This service already has {limit} open streams. Poll "
        "`GET /v1/jobs/{{id}}/events?after=` instead. Try again in {retry_after} s."
    )


class JobNotFinished(Conflict):
    code = "job_not_finished"
    title = "The job has not finished."
    message = (
        "Job {job_id} is {state}. Only a finished job can be deleted or retried. "
        "Cancel it first, or wait."
    )


class JobFinished(Conflict):
    code = "job_finished"
    title = "The job has finished."
    message = "Job {job_id} is {state}. Only an unfinished job can be paused or resumed."


class JobCancelling(Conflict):
    code = "job_cancelling"
    title = "The job is being cancelled."
    message = (
        "A cancel of job {job_id} was requested, so it cannot be paused or resumed. Once it has "
        "stopped, continue it as a new job with POST /v1/jobs/{job_id}/retry."
    )


class TrialNotPausable(Conflict):
    code = "trial_not_paused"
    title = "A trial is paused through its sweep."
    message = (
        "Job {job_id} is a trial of sweep {sweep_id}, which waits for it. Pause or resume the "
        "sweep with POST /v1/sweeps/{sweep_id}/pause or /resume."
    )


class PredictionRunNotPausable(Conflict):
    code = "prediction_run_not_paused"
    title = "A prediction run cannot be paused."
    message = (
        "{run_id} is a prediction run, and only a training can be paused. Cancel it with "
        "POST /v1/predictions/{run_id}/cancel."
    )


class JobSucceeded(Conflict):
    code = "job_succeeded"
    title = "The job succeeded, so it cannot be retried."
    message = "Job {job_id} succeeded, so there is nothing to retry."


class NoCheckpoint(Conflict):
    code = "no_checkpoint"
    title = "The job has no checkpoint to continue from."
    message = (
        "Job {job_id} has no checkpoint to continue from: it saved none, or its checkpoints were "
        "removed (LORAWORKS_KEEP_CHECKPOINT_DAYS). Send its spec again with POST /v1/jobs."
    )


class CheckpointVersionMismatch(Conflict):
    code = "training_version_changed"
    title = "The checkpoint was written by an incompatible training version."
    message = (
        "The checkpoint of job {job_id} was written by training version {made}, and this "
        "installation has version {now}, so the result would match neither version. Send its spec "
        "again with POST /v1/jobs."
    )


class TrialNotRetryable(Conflict):
    code = "trial_not_retried"
    title = "A trial is retried through its sweep."
    message = (
        "Job {job_id} is a trial of sweep {sweep_id}. Retry the failed trials with "
        "POST /v1/sweeps/{sweep_id}/retry."
    )


class TrialNotDeletable(Conflict):
    code = "trial_not_deleted"
    title = "A trial is deleted with its sweep."
    message = (
        "Job {job_id} belongs to sweep {sweep_id}, which created it or has its results. Delete "
        "the sweep with DELETE /v1/sweeps/{sweep_id}."
    )


class PredictionRunNotRetryable(Conflict):
    code = "prediction_run_not_retried"
    title = "A prediction run cannot be retried."
    message = "{run_id} is a prediction run. Create it again with POST /v1/predictions."


class AlreadyRetried(Conflict):
    code = "already_retried"
    title = "An unfinished job already continues this one."
    message = "Job {other} already continues job {job_id}. Wait for it, or cancel it first."


class JobContinued(Conflict):
    code = "job_continued"
    title = "An unfinished job starts from the checkpoints of this one."
    message = (
        "Job {other} starts from the checkpoints of job {job_id}, so they cannot be deleted yet. "
        "Wait for it, or cancel it first."
    )


class DuplicateComparedJob(UnprocessableContent):
    code = "duplicate_job"
    title = "The same job was given twice."
    message = "Job {job_id} was given twice. Give each job once."


class NoPredictions(NotFound):
    code = "no_predictions"
    title = "The job has no predictions for this split."
    message = (
        "Job {job_id} has no predictions for the {part} split: it has not succeeded, it was a "
        "trial, or its artifact was removed."
    )


class InvalidBase(UnprocessableContent):
    code = "invalid_base"
    title = "Invalid base name."
    message = (
        "{base!r} is not a valid base. Use minilm-l6, a model of this installation ('name', "
        "'name@alias' or 'name:3'), a hub model ('name' or 'owner/name'), or a directory "
        "('/…' or './…')."
    )


class BaseDirectoriesDisabled(UnprocessableContent):
    code = "base_directories_disabled"
    title = "Bases from directories are disabled."
    message = (
        "{base!r} is a directory, and this installation allows none. Its operator can list folders "
        "of base models in LORAWORKS_BASE_DIRS."
    )


class BaseDirectoryNotAllowed(UnprocessableContent):
    code = "base_directory_not_allowed"
    title = "The directory is outside of the allowed folders."
    message = "{base!r} is not inside a folder listed in LORAWORKS_BASE_DIRS."


class RevisionNotSupported(UnprocessableContent):
    code = "revision_mismatch"
    title = "The base does not support revisions."
    message = "{base!r} has no revision {revision}: only hub models have revisions. Leave it out."


class ColumnNotAsUploaded(UnprocessableContent):
    code = "column_not_checked"
    title = "The dataset was checked with another column."
    message = (
        "{ref} was checked with the {what} column {checked!r}, not {column!r}. Leave it out, or "
        "upload the file again with {what}_column={column!r}."
    )


class DatasetTaskMismatch(UnprocessableContent):
    code = "task_mismatch"
    title = "The dataset has labels of another task."
    message = (
        "{ref} was uploaded for the task {checked}, and the job has the task {task}. Set task.type "
        "to {checked} (`--task {checked}`), or upload the file again for the task {task}."
    )


class SettingUnfitForTask(UnprocessableContent):
    code = "setting_unfit_for_task"
    title = "A setting does not fit the task of the dataset."
    message = (
        "Without task.type, the job has the task of its dataset, {task}, and its settings do not "
        "fit: {problem}. Change the settings, or set task.type."
    )


class GpuIndexNotAllowed(UnprocessableContent):
    code = "gpu_number_rejected"
    title = "A job cannot choose a GPU by its number."
    message = (
        "runtime.device {device!r} is one GPU of one host, but the worker that claims a job "
        "chooses its GPU. Use 'cuda' for any GPU."
    )


class DatasetHasNoLabels(UnprocessableContent):
    code = "no_labels"
    title = "The dataset has no labels."
    message = (
        "{ref} was uploaded with purpose=predict, so it has no labels to train on. "
        "Upload a file with labels."
    )


class DatasetColumnsDiffer(UnprocessableContent):
    code = "columns_differ"
    title = "The datasets of the job have different columns."
    message = (
        "The datasets of one job must use the same columns, but the {what} column is {columns}. "
        "Rename the columns and upload again. For a hub dataset, name its columns in `data`."
    )
