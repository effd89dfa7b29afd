"""Errors of labeling projects."""

from app.errors import Conflict, NotFound, UnprocessableContent


class LabelingProjectNotFound(NotFound):
    code = "labeling_project_not_found"
    title = "Labeling project not found."
    message = "There is no labeling project {name}."


class LabelingNameTaken(Conflict):
    code = "labeling_name_taken"
    title = "A labeling project has this name."
    message = "There is a labeling project {name} already. Choose another name, or delete it."


class DatasetHasLabels(UnprocessableContent):
    code = "dataset_has_labels"
    title = "The dataset has labels."
    message = (
        "Dataset {ref} was uploaded with labels. Upload the file again with `purpose=predict`, "
        "which reads its texts only."
    )


class PoolTooLarge(UnprocessableContent):
    code = "labeling_pool_too_large"
    title = "Too many texts to label."
    message = (
        "Dataset {ref} has {texts:,} texts, and a labeling project at most {limit:,}. Upload a "
        "random sample of them."
    )


class TooManyLabels(UnprocessableContent):
    code = "too_many_labels"
    title = "Too many labels."
    message = "The labeling project {name} would have {count:,} labels, and the limit is {limit:,}."


class RanksNotInOrder(UnprocessableContent):
    code = "ranks_not_in_order"
    title = "The ranks are not in sorted order."
    message = (
        "Ranks that are not all numbers are sorted by name: {ranks}. If that is their order, send "
        "them in it; else rename them, such as 1-low, 2-medium, 3-high."
    )


class RegressionHasNoLabels(UnprocessableContent):
    code = "numbers_have_no_labels"
    title = "A regression has no labels."
    message = "The labeling project {name} asks for numbers, so it has no labels to add to."


class UnknownProjectLabel(UnprocessableContent):
    code = "unknown_label"
    title = "The project does not have this label."
    message = "{label!r} is not a label of {name}. It has {labels}. Add new labels with PATCH."


class WrongAnnotationField(UnprocessableContent):
    code = "wrong_annotation_field"
    title = "The annotation does not fit the task."
    message = "The task of {name} is {task}: send {wanted} instead of `{sent}`."


class TextNotInPool(NotFound):
    code = "labeling_text_not_found"
    title = "The project does not have this text."
    message = "The labeling project {name} has no text in row {row}."


class AnnotationNotFound(NotFound):
    code = "annotation_not_found"
    title = "Annotation not found."
    message = "{annotator} has not labeled row {row} of {name}."


class LabelingDatasetDeleted(Conflict):
    code = "labeling_dataset_deleted"
    title = "The dataset of the project was deleted."
    message = (
        "The texts of {name} are gone: its dataset {ref} was deleted. Its labels can still be read."
    )


class TooManyAnnotators(Conflict):
    code = "too_many_annotators"
    title = "Too many annotators."
    message = "The labeling project {name} has {limit} annotators, which is the limit."


class NothingLabeled(Conflict):
    code = "nothing_labeled"
    title = "Nothing is labeled yet."
    message = "No text of {name} is labeled yet. Label some texts first."


class TooFewDistinctLabels(Conflict):
    code = "too_few_labels"
    title = "Too few labels for a dataset."
    message = (
        "All labeled texts of {name} have the same label, {label}. A model needs texts of at least "
        "two labels, or different numbers."
    )
