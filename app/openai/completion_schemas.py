"""Request and response bodies of completions in the OpenAI API.

A classifier answers with one label, which is one token here. Settings of sampling, such as
`temperature`, are accepted and change nothing, and so are fields that are not listed.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from app.http.fields import CleanText, ResponseModel
from app.serving.client_formats import LenientBody
from app.serving.conversations import Message, Text, validate_text_or_texts
from lora_core.specs.chat import ChatMessage

MAX_CHOICES = 128  # for each prompt
MAX_TOP_LOGPROBS = 20


def _refuse(value: Any) -> None:
    """Refuse a field that would change the answer, unless it has a value that changes nothing."""
    if value not in (None, False, "", "auto", "none", [], {}, ["text"]):
        raise PydanticCustomError(
            "unsupported_parameter", "is not supported: the model answers with a label only"
        )


UnsupportedField = Annotated[None, BeforeValidator(_refuse), Field(description="Not supported.")]


class StreamOptions(LenientBody):
    include_usage: StrictBool = Field(False, description="Send the usage in a last chunk.")


class ResponseFormat(LenientBody):
    """The form of the answer. A model trained on JSON answers always gives JSON."""

    type: Literal["text", "json_object", "json_schema"]


class CompletionOptions(LenientBody):
    """What both kinds of completions take."""

    model: Annotated[str, CleanText(200)] = Field(
        description="`name` (its production version), `name@alias`, `name:3`, or the `ft:…` name "
        "of a fine-tuning job."
    )
    n: Annotated[StrictInt, Field(ge=1, le=MAX_CHOICES)] | None = Field(
        None,
        description="Number of choices for each prompt. All are the same. Of a completion, prompts "
        "times `n` may be as many as the service takes inputs.",
    )
    stop: Text | list[Text] | None = Field(
        None, description="The text of the answer ends before any of these."
    )
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="Changes nothing: an answer is one token."
    )
    temperature: Annotated[StrictFloat, Field(ge=0, le=2)] | None = Field(
        None, description="Changes nothing: the answer is the label that the model predicts."
    )
    stream: StrictBool | None = Field(None, description="Send the answer as server-sent events.")
    stream_options: StreamOptions | None = None
    abstain_below: Annotated[StrictFloat, Field(gt=0, le=1)] | None = Field(
        None,
        description="An extension: if the label is less probable, there is no answer.",
    )

    @field_validator("stream_options")
    @classmethod
    def _require_stream(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and not info.data.get("stream"):
            raise PydanticCustomError("stream_required", "requires `stream: true`")
        return value

    @property
    def choice_count(self) -> int:
        """Number of choices for each prompt."""
        return self.n or 1

    @property
    def stop_sequences(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatCompletionCreate(CompletionOptions):
    """A conversation that the model labels."""

    messages: Annotated[list[Message], Field(min_length=1)]
    logprobs: StrictBool | None = Field(None, description="Return the probability of the label.")
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = Field(
        None, description="Number of labels to return with their probabilities."
    )
    max_completion_tokens: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="Changes nothing: an answer is one token."
    )
    response_format: ResponseFormat | None = None
    tools: UnsupportedField = None
    tool_choice: UnsupportedField = None
    functions: UnsupportedField = None
    function_call: UnsupportedField = None
    modalities: UnsupportedField = None
    audio: UnsupportedField = None
    web_search_options: UnsupportedField = None

    @field_validator("top_logprobs")
    @classmethod
    def _require_logprobs(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and not info.data.get("logprobs"):
            raise PydanticCustomError("logprobs_required", "requires `logprobs: true`")
        return value

    @property
    def conversation(self) -> list[ChatMessage]:
        return [ChatMessage(each.role, each.content) for each in self.messages]


class CompletionCreate(CompletionOptions):
    """Prompts that the model labels."""

    prompt: Annotated[
        Any,
        BeforeValidator(validate_text_or_texts),
        Field(
            description="A prompt, or a list of prompts.",
            json_schema_extra={
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}, "minItems": 1},
                ]
            },
        ),
    ]
    logprobs: Annotated[StrictInt, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = Field(
        None, description="Number of labels to return with their probabilities."
    )
    best_of: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None,
        description="At least `n`. Changes nothing: the answer is the label that the model "
        "predicts.",
    )
    echo: UnsupportedField = None
    suffix: UnsupportedField = None

    @field_validator("best_of")
    @classmethod
    def _require_n(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value < (info.data.get("n") or 1):
            raise PydanticCustomError("best_of_below_n", "must be at least `n`")
        return value

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class Usage(ResponseModel):
    """Tokens of the model's own tokenizer; an answer is one token."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TopLogprob(ResponseModel):
    """A label, and the logarithm of its calibrated probability."""

    token: str
    logprob: float = Field(description="-9999.0 for a probability of 0.")
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """The label of the answer, and the first labels."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(ResponseModel):
    """The tokens of an answer: one, or none without an answer."""

    content: list[TokenLogprob] | None
    refusal: None


class AnswerMessage(ResponseModel):
    """The answer of the model."""

    role: Literal["assistant"]
    content: str | None = Field(description="The label. Null with `abstain_below`, if below it.")
    refusal: str | None = Field(description="Why there is no label.")


class ChatChoice(ResponseModel):
    """An answer."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop"]


class ChatCompletion(ResponseModel):
    """The answer to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str = Field(description="The version that answered, such as `spam:3`.")
    choices: list[ChatChoice]
    usage: Usage


class TextLogprobs(ResponseModel):
    """The tokens of an answer: one, or none without an answer."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int] = Field(description="Characters of the prompt before the answer.")


class TextChoice(ResponseModel):
    """An answer."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "content_filter"]


class Completion(ResponseModel):
    """The answers to prompts."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str = Field(description="The version that answered, such as `spam:3`.")
    choices: list[TextChoice]
    usage: Usage
