"""Errors of the OpenAI API."""

from app.errors import UnprocessableContent


class AnswerNotJson(UnprocessableContent):
    code = "answer_not_json"
    title = "The model does not answer in JSON."
    message = (
        "{ref} answers with plain labels, not with JSON. Leave `response_format` out, or train the "
        'model on answers such as {{"label": "spam"}}.'
    )
