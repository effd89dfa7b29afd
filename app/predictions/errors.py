"""What can go wrong with prediction runs."""

from app.errors import Conflict, NotFound


class PredictionNotFound(NotFound):
    """There is no such prediction run."""

    code = "prediction_not_found"
    message = "There is no prediction run {run_id}."


class PredictionNotFinished(Conflict):
    """Only what has ended can be deleted."""

    code = "prediction_not_finished"
    message = (
        "Prediction run {run_id} is {state}. Cancel it first; a run that has ended can be deleted."
    )


class NoResults(Conflict):
    """The run has no results."""

    code = "no_results"
    message = "Prediction run {run_id} is {state} and has no results; only one that succeeded has."


class ResultsRemoved(NotFound):
    """The results are not kept any more."""

    code = "results_removed"
    message = (
        "The results of prediction run {run_id} were removed: they had been kept for as long as "
        "LORAWORKS_KEEP_PREDICTION_DAYS says. Run it again."
    )
