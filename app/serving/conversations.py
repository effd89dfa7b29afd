"""Texts and conversations as chat APIs send them."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictStr
from pydantic_core import PydanticCustomError

from app.http.fields import reject_unstorable_text
from app.serving.client_formats import LenientBody, reject_too_many_inputs
from lora_core.specs.chat import join_text_parts

Text = Annotated[StrictStr, AfterValidator(reject_unstorable_text)]


def text_of_content(content: Any) -> Any:
    """Return the text of a message, whose content may be a list of text parts."""
    if not isinstance(content, list):
        return content
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise PydanticCustomError(
                "unsupported_content", "must be a text, or a list of parts of the type `text`"
            )
    return join_text_parts([part["text"] for part in content])


PARTS_SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["type", "text"],
        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    },
}


class Message(LenientBody):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        Text,
        BeforeValidator(text_of_content),
        Field(json_schema_extra={"anyOf": [{"type": "string"}, PARTS_SCHEMA]}),
    ]


def validate_text_or_texts(prompt: Any) -> Any:
    """Return a text or a list of texts as it is."""
    reject_too_many_inputs(prompt)
    entries = prompt if isinstance(prompt, list) else [prompt]
    if not entries or not all(isinstance(entry, str) for entry in entries):
        raise PydanticCustomError(
            "prompt_type", "must be a text, or a list of texts; token ids are not supported"
        )
    for entry in entries:
        reject_unstorable_text(entry)
    return prompt
