"""Errors of the Mistral API."""

from app.errors import NotFound, UnprocessableContent


class LabelsMissing(UnprocessableContent):
    code = "labels_missing"
    title = "The lines of the file have no object of labels."
    message = (
        "{file} is not a file for a classifier: each line needs an object `labels`, such as "
        '{{"text": "Where is my parcel?", "labels": {{"topic": "shipping"}}}}. Other files can be '
        "uploaded with POST /v1/datasets."
    )


class UnknownClassifierTarget(UnprocessableContent):
    code = "unknown_classifier_target"
    title = "No line of the file has this target."
    message = (
        "{file} has no labels of the target {target!r}. Its targets are {available}: name these, "
        "or leave classifier_targets out."
    )


class TooFewClassifierTargets(UnprocessableContent):
    code = "classifier_targets_missing"
    title = "The job names only one of several targets of the file."
    message = (
        "{file} was checked with the targets {available}, and the job names {target!r} only. Name "
        "at least two, leave classifier_targets out, or upload a file with this target alone."
    )


class UnlistedLabel(UnprocessableContent):
    code = "unlisted_label"
    title = "A label of the file is not listed."
    message = (
        "{file} has the label {label!r} of the target {target!r}, which is not in its `labels`. "
        "Add it, or correct the file."
    )


class LossFunctionNotApplicable(UnprocessableContent):
    code = "loss_function_not_applicable"
    title = "The labels of the target are not those of its loss function."
    message = (
        "The target {target!r} of {file} {labels}, so its loss_function is {fitting}. Use this, or "
        "leave it out."
    )


class TargetWeightNotApplicable(UnprocessableContent):
    code = "target_weight_not_applicable"
    title = "The only target has a weight."
    message = (
        "{target!r} is the only target, so there is no other loss to weigh it against. Leave "
        "`weight` out."
    )


class RegressionFileNotSupported(UnprocessableContent):
    code = "not_a_classifier_file"
    title = "The labels of the file are numbers."
    message = (
        "{file} has numbers as labels, and a classifier needs names. Use POST /v1/jobs for a "
        "regression."
    )


class FineTunedModelNotFound(NotFound):
    code = "fine_tuned_model_not_found"
    title = "There is no such fine-tuned model."
    message = (
        "There is no model {model!r} of a job that succeeded. Name the `fine_tuned_model` of a job."
    )
