"""Errors of prediction runs."""

from app.errors import Conflict, NotFound


class PredictionNotFound(NotFound):
    """Prediction run not found."""

    code = "prediction_not_found"
    message = "There is no prediction run {run_id}."


class PredictionNotFinished(Conflict):
    """The prediction run has not finished."""

    code = "prediction_not_finished"
    message = (
        "Prediction run {run_id} is {state}. Cancel it first: only a finished run can be deleted."
    )


class NoResults(Conflict):
    """The prediction run has no results."""

    code = "no_results"
    message = (
        "Prediction run {run_id} is {state} and has no results. Only a run that succeeded has "
        "results."
    )


class ResultsRemoved(NotFound):
    """The results were removed."""

    code = "results_removed"
    message = (
        "The results of prediction run {run_id} were removed after LORAWORKS_KEEP_PREDICTION_DAYS. "
        "Create the run again."
    )
