"""Moderations in the OpenAI API: the labels of a multi-label model as categories."""

from typing import Annotated, Any, Literal
from uuid import uuid4

from fastapi import APIRouter
from pydantic import BeforeValidator, Field
from starlette.responses import Response

from app.auth.middleware import require_scope
from app.http.concurrency import cancel_on_disconnect
from app.http.error_responses import OPENAI_ERROR_RESPONSES
from app.http.fields import CleanText, ResponseModel
from app.openai.errors import ModerationNotApplicable
from app.registry.refs import require_model_name_syntax
from app.serving.client_formats import (
    LenientBody,
    PredictBodyWithoutModel,
    TaskRequirement,
    parse_predict_request,
)
from app.serving.conversations import PARTS_SCHEMA, text_of_content, validate_text_or_texts
from app.serving.routes import RequestContextDep

router = APIRouter(
    prefix="/openai/v1",
    tags=["openai"],
    dependencies=[require_scope("predict")],
    responses=OPENAI_ERROR_RESPONSES,
)


def _validate_input(value: Any) -> Any:
    """Return a text or a list of texts. Parts of the type `text` are one text."""
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        value = text_of_content(value)
    return validate_text_or_texts(value)


class ModerationCreate(LenientBody):
    """Texts that a multi-label model labels."""

    input: Annotated[
        Any,
        BeforeValidator(_validate_input),
        Field(
            description="A text, a list of texts, or the text parts of one.",
            json_schema_extra={
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}, "minItems": 1},
                    PARTS_SCHEMA,
                ]
            },
        ),
    ]
    model: Annotated[str, CleanText(200)] | None = Field(
        None,
        description="`name` (its production version), `name@alias`, `name:3`, or the `ft:…` name "
        "of a fine-tuning job. Default: the only model in production.",
    )


class ModerationResult(ResponseModel):
    """The labels of a text."""

    flagged: bool = Field(description="Whether any label is predicted.")
    categories: dict[str, bool] = Field(
        description="For each label, whether its probability reaches its threshold."
    )
    category_scores: dict[str, float] = Field(description="The calibrated probabilities.")
    category_applied_input_types: dict[str, list[Literal["text"]]]


class Moderation(ResponseModel):
    """One result for each text, in the order sent."""

    id: str
    model: str = Field(description="The version that answered, such as `topics:3`.")
    results: list[ModerationResult]


@router.post("/moderations", response_model=Moderation)
async def create_moderation(body: ModerationCreate, context: RequestContextDep) -> Response:
    """Label texts with a multi-label model: its labels are the categories.

    Limits and headers are those of `/predict`.
    """
    request = parse_predict_request(
        PredictBodyWithoutModel(inputs=body.input),
        "hf",
        max_inputs=context.max_inputs,
        target=context.target,
        required_task=TaskRequirement("multi_label", ModerationNotApplicable, at="model"),
    )
    ref = None if body.model is None else require_model_name_syntax(body.model)
    async with cancel_on_disconnect(context.receive):
        result = await context.service.predict(
            request, ref, key_id=context.key_id, deadline=context.deadline
        )
    return await context.record_and_respond(
        lambda: {
            "id": f"modr-{uuid4().hex}",
            "model": result.version,
            "results": [
                {
                    "flagged": any(output.predicted for output in row),
                    "categories": {output.label: output.predicted for output in row},
                    "category_scores": {output.label: output.score for output in row},
                    "category_applied_input_types": {output.label: ["text"] for output in row},
                }
                for row in result.rows
            ],
        },
        result,
    )
