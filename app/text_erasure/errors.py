"""Errors of erasing a text."""

from app.errors import NotFound


class PredictionUnknown(NotFound):
    code = "prediction_unknown"
    title = "The prediction is not known."
    message = (
        "Prediction {prediction_id} is not kept here, so its text is not known. Send the text "
        "itself as `text`."
    )
