"""Errors of prediction runs."""

from app.errors import Conflict, NotFound


class PredictionRunNotFound(NotFound):
    code = "prediction_not_found"
    title = "Prediction run not found."
    message = "There is no prediction run {run_id}."


class PredictionRunNotFinished(Conflict):
    code = "prediction_not_finished"
    title = "The prediction run has not finished."
    message = (
        "Prediction run {run_id} is {state}. Cancel it first: only a finished run can be deleted."
    )


class PredictionRunNotSucceeded(Conflict):
    code = "no_results"
    title = "The prediction run has no results."
    message = (
        "Prediction run {run_id} is {state} and has no results. Only a run that succeeded has "
        "results."
    )


class OnlyNumbersPredicted(Conflict):
    code = "no_labels_predicted"
    title = "The prediction run predicts numbers, not labels."
    message = (
        "The model of prediction run {run_id} predicts numbers only, and Label Studio gets "
        "choices. Download its results as CSV or JSONL."
    )


class ResultsRemoved(NotFound):
    code = "results_removed"
    title = "The results were removed."
    message = (
        "The results of prediction run {run_id} were removed after LORAWORKS_KEEP_PREDICTION_DAYS. "
        "Create the run again."
    )
