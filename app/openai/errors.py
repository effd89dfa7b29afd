"""Errors of the OpenAI API."""

from app.errors import NotFound, UnprocessableContent


class AnswerNotJson(UnprocessableContent):
    code = "answer_not_json"
    title = "The model does not answer in JSON."
    message = (
        "{ref} answers with plain labels, not with JSON. Leave `response_format` out, or train the "
        'model on answers such as {{"label": "spam"}}.'
    )


class LogprobsNotApplicable(UnprocessableContent):
    code = "logprobs_not_applicable"
    title = "Only a single-label model has log probabilities."
    message = (
        "{ref} is a {task} model, whose answer has no log probability. Leave `logprobs` out; "
        "`/predict` returns the scores."
    )


class ModerationNotApplicable(UnprocessableContent):
    code = "moderation_not_applicable"
    title = "Moderations need a multi-label model."
    message = (
        "{ref} is a {task} model, and categories are the labels of a multi-label one. Name such a "
        "model as `model`, or use `/predict`."
    )


class FileNotFound(NotFound):
    code = "file_not_found"
    title = "File not found."
    message = "There is no file {file_id}."


class FileNotDeletable(UnprocessableContent):
    code = "file_not_deletable"
    title = "The file of a job's results cannot be deleted."
    message = "{file_id} is made of the metrics of its job. Delete the job instead."


class FineTuningJobNotFound(NotFound):
    code = "fine_tuning_job_not_found"
    title = "Fine-tuning job not found."
    message = "There is no fine-tuning job {job_id} that was created through this API."


class FineTuningModelNotFound(NotFound):
    code = "fine_tuning_model_not_found"
    title = "There is no such model to fine-tune."
    message = (
        "{model!r} cannot be fine-tuned: {reason} Use minilm-l6, a model of this installation, or "
        "the name of a model of OpenAI, in whose place minilm-l6 is trained."
    )


class TooFewExamples(UnprocessableContent):
    code = "too_few_examples"
    title = "The training file has too few examples."
    message = (
        "The training file has {count} examples, and a fine-tuning job needs at least {minimum}."
    )


class FilesNotUsable(UnprocessableContent):
    code = "files_not_usable"
    title = "The files cannot be used for this job."
    message = "{problem} So the files cannot be used for this job."


class InvalidAfter(UnprocessableContent):
    code = "invalid_after"
    title = "Not the id of a listed item."
    message = "`after` must be the id of an item of this list, not {after!r}."


class InvalidMetadataFilter(UnprocessableContent):
    code = "invalid_metadata_filter"
    title = "The filter by metadata is not valid."
    message = (
        "Filter by `metadata[key]=value` with at most 16 keys, each with at most 64 characters and "
        "a value with at most 512, or by `metadata=null` for jobs without metadata, not by both."
    )
