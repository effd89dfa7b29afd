"""Errors of retraining."""

from app.errors import Conflict, NotFound


class RetrainingRuleNotFound(NotFound):
    code = "retraining_rule_not_found"
    title = "The model has no retraining rule."
    message = (
        "Model {name} has no retraining rule. Set one with `PUT /v1/models/{name}/retraining`; to "
        "retrain on request only, with `enabled: false`."
    )


class RetrainingRunNotFound(NotFound):
    code = "retraining_run_not_found"
    title = "Retraining run not found."
    message = "Model {name} has no retraining run {run_id}."


class RetrainingInProgress(Conflict):
    code = "retraining_in_progress"
    title = "The model is being retrained."
    message = (
        "Retraining run {run_id} of model {name} is {state}. Wait for its end, or cancel it first."
    )


class RetrainingAlreadyEnded(Conflict):
    code = "retraining_finished"
    title = "The retraining run has ended."
    message = "Retraining run {run_id} is {state}, so it cannot be cancelled."


class NoFeedbackToTrainOn(Conflict):
    code = "retraining_no_labels"
    title = "There is no feedback to train on."
    message = (
        "Model {name} has no feedback whose text is known, so there is nothing new to train on. "
        "Send feedback with texts, or set LORAWORKS_KEEP_TRAFFIC to `texts`."
    )


class VersionNotTrainedHere(Conflict):
    code = "retraining_imported_version"
    title = "The version in production was imported."
    message = (
        "{version} was imported, so neither its training data nor its settings are known here. "
        "Train a version here and promote it; from then on the rule continues."
    )


class TrainingJobDeleted(Conflict):
    code = "retraining_job_deleted"
    title = "The job that is needed was deleted."
    message = (
        "The job of {version} was deleted, so its training data and settings are not known any "
        "more. Train a new version and promote it."
    )


class EvaluationRunDeleted(Conflict):
    code = "retraining_evaluation_deleted"
    title = "An evaluation was deleted."
    message = (
        "Prediction run {run_id} was deleted before the versions were compared, so it is not known "
        "which one is better. Start the retraining again."
    )


class RetrainingDataDeleted(Conflict):
    code = "retraining_dataset_deleted"
    title = "The training data were deleted."
    message = (
        "{version} was trained on {source}, which was deleted. Upload the data again, train a "
        "version on it and promote it."
    )


class RetrainingDataNotStored(Conflict):
    code = "retraining_hub_data"
    title = "The training data are not stored here."
    message = (
        "{version} was trained on {source} of the Hugging Face Hub, which is not stored here and "
        "may change. Upload the data as a dataset, train a version on it and promote it."
    )


class PepperDiffers(Conflict):
    code = "retraining_pepper_differs"
    title = "The worker has another pepper."
    message = (
        "Forgotten texts cannot be left out of the training data: the hashes of this worker differ "
        "from those of the service. Give both the same LORAWORKS_PEPPER."
    )


class RetrainingInterrupted(Conflict):
    code = "retraining_interrupted"
    title = "The retraining run was interrupted too often."
    message = (
        "The step {state!r} of the retraining run was started {claims} times and never finished. "
        "Look for its errors in the log of the workers."
    )


class NoWinner(Conflict):
    code = "retraining_no_winner"
    title = "No trial of the search succeeded."
    message = "No trial of sweep {sweep_id} succeeded, so there is no new version."
