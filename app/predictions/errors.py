"""Errors of prediction runs."""

from app.errors import Conflict, NotFound


class PredictionNotFound(NotFound):
    code = "prediction_not_found"
    title = "Prediction run not found."
    message = "There is no prediction run {run_id}."


class PredictionNotFinished(Conflict):
    code = "prediction_not_finished"
    title = "The prediction run has not finished."
    message = (
        "Prediction run {run_id} is {state}. Cancel it first: only a finished run can be deleted."
    )


class NoResults(Conflict):
    code = "no_results"
    title = "The prediction run has no results."
    message = (
        "Prediction run {run_id} is {state} and has no results. Only a run that succeeded has "
        "results."
    )


class ResultsRemoved(NotFound):
    code = "results_removed"
    title = "The results were removed."
    message = (
        "The results of prediction run {run_id} were removed after LORAWORKS_KEEP_PREDICTION_DAYS. "
        "Create the run again."
    )
