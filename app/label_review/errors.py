"""Errors of suspect labels and corrections. Errors inside a file come from `lora_core`."""

from app.errors import Conflict, NotFound, UnprocessableContent


class DatasetWithoutLabels(UnprocessableContent):
    code = "dataset_without_labels"
    title = "The dataset has no labels."
    message = (
        "{ref} was uploaded without labels, so there are none to check or correct. Upload the file "
        "with its label column."
    )


class DatasetTargetRequired(UnprocessableContent):
    code = "dataset_target_required"
    title = "The dataset has several targets, and none was named."
    message = "{ref} has several targets: {targets}. Name one of them as `target`."


class TargetNotFound(UnprocessableContent):
    code = "dataset_target_not_found"
    title = "The dataset has no such target."
    message = "{ref} has no target {target!r}: {available}."


class WrongKindOfLabel(UnprocessableContent):
    code = "wrong_kind_of_label"
    title = "The label is of another kind than those of the dataset."
    message = "Row {row}: {ref} is of the task {task}, so send `{field}`, not `{sent}`."


class LabelNotInDataset(UnprocessableContent):
    code = "label_not_in_dataset"
    title = "No row of the dataset has this label."
    message = (
        "Row {row}: no row of {ref} has the label {label!r}. Its labels are {available}. To add a "
        "label, send `new_label: true`."
    )


class TooManyConfirmedLabels(UnprocessableContent):
    code = "too_many_kept_labels"
    title = "Too many labels of the dataset were kept."
    message = (
        "{count:,} labels of {name} are kept already, and the limit is {limit:,}. Train on a "
        "smaller dataset, or upload it under another name."
    )


class DatasetVersionRequired(UnprocessableContent):
    code = "dataset_version_required"
    title = "The version that the corrections refer to is not named."
    message = (
        "{name!r} is the newest version of {name}, which may change. Name the version that you "
        "looked at, such as {ref}, or send `given` with every change and keep nothing."
    )


class StaleVersion(Conflict):
    code = "dataset_version_stale"
    title = "There is a newer version of the dataset."
    message = (
        "{ref} is not the newest version: {newest} is, and would lose its changes. Look at the "
        "suspect labels of {newest}."
    )


class GivenLabelMismatch(Conflict):
    code = "label_differs"
    title = "The label of the row differs from `given`."
    message = "Row {row} of {ref} has the label {label}, not {given}. Look at the row again."


class DatasetNotCorrected(NotFound):
    code = "dataset_not_corrected"
    title = "The dataset was uploaded, not corrected."
    message = "{ref} was not made by correcting labels, so it has no diff."
