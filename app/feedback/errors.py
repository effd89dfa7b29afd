"""Errors of feedback."""

from app.errors import Conflict, NotFound, UnprocessableContent


class FeedbackNotFound(NotFound):
    code = "feedback_not_found"
    title = "Feedback not found."
    message = "There is no feedback {feedback_id}."


class PredictionNotKept(NotFound):
    code = "prediction_not_kept"
    title = "The prediction is not kept."
    message = (
        "Prediction {prediction_id} is not kept here, so its feedback must bring the text: send "
        "`text` and `model` along. The setting LORAWORKS_KEEP_TRAFFIC decides what is kept."
    )


class PredictionPositionRequired(UnprocessableContent):
    code = "prediction_ambiguous"
    title = "The prediction has several texts."
    message = (
        "Prediction {prediction_id} is of a request with {texts} texts. Add the position of the "
        "text, counted from 0: {prediction_id}-0."
    )


class PredictionOfOtherModel(UnprocessableContent):
    code = "prediction_of_other_model"
    title = "The prediction is that of another model."
    message = "Prediction {prediction_id} was made by {version}, not by {model}. Omit `model`."


class FeedbackTextMismatch(UnprocessableContent):
    code = "feedback_text_mismatch"
    title = "The text is not that of the prediction."
    message = (
        "Prediction {prediction_id} was made for another text. Send the text that was predicted, "
        "or omit `text`."
    )


class TextForgotten(UnprocessableContent):
    code = "text_forgotten"
    title = "The text must be forgotten."
    message = "This service was asked to forget this text, so it stores nothing about it."


class FeedbackTextPairRequired(UnprocessableContent):
    code = "feedback_pair_required"
    title = "The model reads pairs of texts."
    message = "{version} reads pairs of texts. Send the second text as `text_pair`."


class FeedbackTextPairUnexpected(UnprocessableContent):
    code = "feedback_pair_unexpected"
    title = "The model reads single texts."
    message = "{version} reads single texts. Omit `text_pair`."


class FeedbackTargetRequired(UnprocessableContent):
    code = "feedback_target_required"
    title = "The model has several targets."
    message = "{version} predicts several targets. Name one of them as `target`: {targets}."


class FeedbackTargetUnknown(UnprocessableContent):
    code = "feedback_target_unknown"
    title = "Unknown target."
    message = "{version} has no target {target!r}. It has {targets}."


class WrongFeedbackField(UnprocessableContent):
    code = "feedback_label_form"
    title = "The label has the wrong form."
    message = "The task of {version} is {task}, so its feedback has the field `{field}`."


class FeedbackLabelUnknown(UnprocessableContent):
    code = "feedback_label_unknown"
    title = "The model does not know the label."
    message = (
        "{version} has no label {label!r}. It has {labels}. To add a label, send `new_label: true`."
    )


class TrafficNotKept(Conflict):
    code = "traffic_not_kept"
    title = "No predictions of the version are kept."
    message = (
        "No predictions of {version} are kept, so there is nothing to review. Set "
        "LORAWORKS_KEEP_TRAFFIC to `texts` and wait for predictions."
    )


class NoFeedbackTexts(Conflict):
    code = "no_feedback_texts"
    title = "There is no feedback with texts."
    message = (
        "Model {model} has no feedback whose text is known{condition}. Send feedback with texts, "
        "or set LORAWORKS_KEEP_TRAFFIC to `texts`."
    )


class FeedbackIncomplete(Conflict):
    code = "feedback_incomplete"
    title = "No text has feedback on every target."
    message = (
        "None of the {texts:,} texts with feedback on {model} has it on each of {targets}. Send "
        "feedback on the targets that are missing."
    )
