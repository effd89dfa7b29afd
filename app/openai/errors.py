"""Errors of the OpenAI API."""

from app.errors import UnprocessableContent


class JsonResponseFormatUnsupported(UnprocessableContent):
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


class TooManyChoices(UnprocessableContent):
    code = "too_many_choices"
    title = "Too many choices in one request."
    message = (
        "The prompts times `n` are {count} choices; a request takes at most {limit}. Send several "
        "requests, or a smaller `n`: the choices of a prompt are the same."
    )


class ResultFileNotDeletable(UnprocessableContent):
    code = "file_not_deletable"
    title = "The file of a job's results cannot be deleted."
    message = "{file_id} is made of the metrics of its job. Delete the job instead."


class TooFewExamples(UnprocessableContent):
    code = "too_few_examples"
    title = "The training file has too few examples."
    message = (
        "The training file has {count} examples, and a fine-tuning job needs at least {minimum}."
    )


class InvalidAfterId(UnprocessableContent):
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
