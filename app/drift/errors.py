"""Errors of drift checks."""

from app.errors import Conflict, NotFound


class DriftCheckNotFound(NotFound):
    code = "drift_check_not_found"
    title = "Drift check not found."
    message = "{version} has no drift check {check_id}."


class DriftTextsNotKept(Conflict):
    code = "drift_texts_not_kept"
    title = "Too few texts of traffic are kept."
    message = (
        "A drift check needs {needed} different texts that {version} predicted since its last "
        "check; {texts} are kept. Set LORAWORKS_KEEP_TRAFFIC to `texts` and wait for predictions."
    )


class TooFewDriftTexts(Conflict):
    code = "too_few_drift_texts"
    title = "Too few new texts."
    message = (
        "A drift check needs {needed} different texts that {version} predicted since its last "
        "check; {texts} are kept. Wait for more predictions."
    )


class TooFewTrainingTexts(Conflict):
    code = "too_few_training_texts"
    title = "Too few training texts."
    message = (
        "A drift check needs {needed} different training texts; {version} was trained on {texts}, "
        "so it cannot be checked."
    )


class TrainingDataUnknown(Conflict):
    code = "training_data_unknown"
    title = "The training data is not known."
    message = (
        "{version} cannot be compared with its training texts: {reason}. To check for drift, train "
        "the model here."
    )


class TrainingDataDeleted(Conflict):
    code = "training_data_deleted"
    title = "The training data was deleted."
    message = (
        "{version} was trained on {dataset}, which was deleted. To check for drift, train a "
        "version on a dataset that is stored."
    )


class TrainingDataNotStored(Conflict):
    code = "training_data_not_stored"
    title = "The training data is not stored here."
    message = (
        "{version} was trained on {source}, which workers read from the hub. To check for drift, "
        "upload these texts as a dataset and train a version on it."
    )
