"""Routes of classifications in the Mistral API: the scores of all labels, target by target.

They predict as `/predict` does, with its limits and its headers.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal
from uuid import uuid4

from fastapi import APIRouter
from pydantic import BeforeValidator, Field
from starlette.responses import Response

from app.auth.middleware import require_scope
from app.http.concurrency import cancel_on_disconnect
from app.http.error_responses import MISTRAL_ERROR_RESPONSES
from app.http.fields import CleanText, ResponseModel
from app.registry.refs import require_model_name_syntax
from app.serving.client_formats import (
    LenientBody,
    PredictRequest,
    reject_blank_text,
    reject_too_many_inputs,
)
from app.serving.conversations import (
    PARTS_SCHEMA,
    Text,
    text_of_content,
    validate_text_or_texts,
)
from app.serving.errors import TooManyInputs
from app.serving.routes import PredictRequestContext, RequestContextDep
from app.serving.service import PredictResult
from lora_core.specs.chat import ChatMessage, PromptFormat

router = APIRouter(
    prefix="/mistral/v1",
    tags=["mistral"],
    dependencies=[require_scope("predict")],
    responses=MISTRAL_ERROR_RESPONSES,
)
MistralModelName = Annotated[
    str,
    CleanText(200),
    Field(
        description="`name` (its production version), `name@alias`, `name:3`, or the `ft:…` name "
        "of a job."
    ),
]


class MistralClassificationCreate(LenientBody):
    """Texts to classify."""

    model: MistralModelName
    input: Annotated[
        Any,
        BeforeValidator(validate_text_or_texts),
        Field(
            description="A text, or a list of texts.",
            json_schema_extra={
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}, "minItems": 1},
                ]
            },
        ),
    ]

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class MistralMessage(LenientBody):
    """A message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[
        Text,
        BeforeValidator(text_of_content),
        Field(json_schema_extra={"anyOf": [{"type": "string"}, PARTS_SCHEMA]}),
    ]


class MistralConversation(LenientBody):
    """A conversation to classify."""

    messages: Annotated[list[MistralMessage], Field(min_length=1)]

    @property
    def chat_messages(self) -> list[ChatMessage]:
        return [ChatMessage(each.role, each.content) for each in self.messages]


class MistralChatClassificationCreate(LenientBody):
    """Conversations to classify."""

    model: MistralModelName
    input: Annotated[
        MistralConversation | Annotated[list[MistralConversation], Field(min_length=1)],
        BeforeValidator(reject_too_many_inputs),
    ]

    @property
    def conversations(self) -> list[list[ChatMessage]]:
        found = self.input if isinstance(self.input, list) else [self.input]
        return [each.chat_messages for each in found]


class MistralTargetScores(ResponseModel):
    """The labels of a target."""

    scores: dict[str, float] = Field(description="The calibrated probability of each label.")


class MistralClassificationResponse(ResponseModel):
    """One result for each input, in the order sent."""

    id: str
    model: str = Field(description="The version that answered, such as `mails:3`.")
    results: list[dict[str, MistralTargetScores]] = Field(
        description="By target; of a model with one, by the column of its labels."
    )


@router.post("/classifications", response_model=MistralClassificationResponse)
async def create_mistral_classification(
    body: MistralClassificationCreate, context: RequestContextDep
) -> Response:
    """Classify texts: the score of each label, for each target of the model.

    A model that was trained on conversations reads a text as the user's message.
    """
    texts = body.texts

    def texts_of_prompts(prompt_format: PromptFormat) -> list[str]:
        if prompt_format == PromptFormat():  # the texts are read as they are
            return [reject_blank_text(text, f"Input {i}") for i, text in enumerate(texts)]
        return [
            reject_blank_text(
                prompt_format.text_of_prompt(text),
                f"Input {i}, without what all training texts share,",
            )
            for i, text in enumerate(texts)
        ]

    return await _classify(context, body.model, texts, texts_of_prompts)


@router.post("/chat/classifications", response_model=MistralClassificationResponse)
async def create_mistral_chat_classification(
    body: MistralChatClassificationCreate, context: RequestContextDep
) -> Response:
    """Classify conversations: the score of each label, for each target of the model.

    They are read as those of the training file were; without any, as the messages but those of the
    system, one a line.
    """
    conversations = body.conversations

    def texts_of_prompts(prompt_format: PromptFormat) -> list[str]:
        return [
            reject_blank_text(prompt_format.text_of_messages(messages), f"Conversation {i}")
            for i, messages in enumerate(conversations)
        ]

    prompts = ["\n".join(message.text for message in each) for each in conversations]
    return await _classify(context, body.model, prompts, texts_of_prompts)


async def _classify(
    context: PredictRequestContext,
    model: str,
    prompts: list[str],
    texts_of_prompts: Callable[[PromptFormat], list[str]],
) -> Response:
    if len(prompts) > context.max_inputs:
        raise TooManyInputs(count=len(prompts), limit=context.max_inputs)
    request = PredictRequest(
        texts=prompts,
        nested=len(prompts) > 1,
        truncate=True,
        truncation_side="right",
        function=None,
        top_k=None,
        abstain_below=None,
        target=context.target,
    )
    async with cancel_on_disconnect(context.receive):
        result = await context.service.predict(
            request,
            require_model_name_syntax(model),
            key_id=context.key_id,
            deadline=context.deadline,
            texts_of_prompts=texts_of_prompts,
        )
    return await context.record_and_respond(
        lambda: {
            "id": f"mod-{uuid4().hex}",
            "model": result.version,
            "results": _results(result, context.target),
        },
        result,
    )


def _results(result: PredictResult, target: str | None) -> list[dict[str, Any]]:
    """Return the scores of each text, by the names that the training file has for the targets."""
    names = result.label_columns
    rows = []
    for row in result.rows:
        scores: dict[str, dict[str, float]] = {names[each.target or target]: {} for each in row}
        for output in row:
            scores[names[output.target or target]][output.label] = output.score
        rows.append({name: {"scores": each} for name, each in scores.items()})
    return rows
