"""Request and response bodies of the predict routes, in the formats of different clients.

Clients of text-embeddings-inference get a flat list for one text and a nested list for several;
clients of the Hugging Face hub always get a nested list. The latter send the field `parameters`,
but the hub's JavaScript client only when it has some, so the URL may name the format.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
)
from pydantic_core import PydanticCustomError

from app.http.fields import CleanText, ResponseModel, reject_unstorable_text
from app.serving.errors import (
    BlankInput,
    ConflictingScoreFunctions,
    TooManyInputs,
)
from app.serving.schemas import LabelScoreList
from lora_core.errors.artifact import TextPairUnsupported
from lora_core.specs.predict import ScoreFunction, TruncationSide

RequestFormat = Literal["hf", "tei"]

_INPUTS_TYPE = "must be a text, a list of texts, or a list of lists of one text each"


def _validate_inputs(value: Any) -> Any:
    """Return the texts exactly as sent: the model must read what the client wrote."""
    entries = value if isinstance(value, list) else [value]
    nested = [entry if isinstance(entry, list) else [entry] for entry in entries]
    texts = [text for entry in nested for text in entry]
    if not all(isinstance(text, str) for text in texts):
        raise PydanticCustomError("inputs_type", _INPUTS_TYPE)
    for text in texts:
        reject_unstorable_text(text)
    return value


def _lower_side(value: Any) -> Any:
    """Return the side of `Left` and `Right`, which text-embeddings-inference accepts too.

    They are not in the schema: generators cannot make two constants of one name.
    """
    return value.lower() if value in ("Left", "Right") else value


class _LenientBody(BaseModel):
    """Ignores unknown fields, as these clients expect."""

    model_config = ConfigDict(allow_inf_nan=False, extra="ignore")


class HubParameters(_LenientBody):
    """The field that clients of the Hugging Face hub always send."""

    function_to_apply: ScoreFunction | None = None
    top_k: Annotated[StrictInt, Field(ge=1)] | None = None


class ModelPredictBody(_LenientBody):
    """Texts for the model in the URL."""

    inputs: Annotated[
        Any,
        BeforeValidator(_validate_inputs),
        Field(
            description="A text, or a list of texts.",
            json_schema_extra={
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}},
                    {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
                ]
            },
        ),
    ]
    truncate: StrictBool | None = Field(
        None,
        description="Truncate texts that are too long for the model (the default); "
        "false: reject them.",
    )
    truncation_direction: Annotated[TruncationSide, BeforeValidator(_lower_side)] = Field(
        "right", description="The side at which texts are truncated."
    )
    raw_scores: StrictBool = Field(
        False, description="Return logits instead of probabilities. Changes no number."
    )
    top_k: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="Number of labels to return. Default: all."
    )
    abstain_below: Annotated[StrictFloat, Field(gt=0, le=1)] | None = Field(
        None,
        description="Of a single-label model: return no labels for texts whose highest "
        "probability is lower; `X-Abstained` counts them.",
    )
    parameters: HubParameters | None = Field(
        None,
        description="Sent by clients of the Hugging Face hub: the response is always nested.",
    )


class PredictBody(ModelPredictBody):
    """Texts for a model."""

    model: Annotated[str, CleanText(200)] | None = Field(
        None,
        description="`name` (its production version), `name@alias` or `name:3`. "
        "Default: the only model in production.",
    )


class VertexBody(_LenientBody):
    """A request of Vertex AI."""

    instances: Annotated[list[PredictBody], Field(min_length=1)]


class VertexResponse(ResponseModel):
    """The response that Vertex AI expects."""

    predictions: list[LabelScoreList | list[LabelScoreList]]


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """A parsed predict request, the same for all formats."""

    texts: list[str]
    nested: bool  # whether the response is a nested list
    truncate: bool
    truncation_side: TruncationSide
    function: ScoreFunction | None  # None: probabilities
    top_k: int | None
    abstain_below: float | None


def parse_request(
    body: ModelPredictBody, request_format: RequestFormat | None, *, max_inputs: int
) -> PredictRequest:
    """Parse a body in the given format, or in the one that its fields indicate.

    Raises `BlankInput`, `TooManyInputs`, `TextPairUnsupported`, `ConflictingScoreFunctions`.
    """
    parameters = body.parameters
    from_hub = request_format == "hf" or (
        request_format is None and "parameters" in body.model_fields_set
    )
    function = parameters.function_to_apply if parameters else None
    if body.raw_scores and function is not None:
        raise ConflictingScoreFunctions()
    return PredictRequest(
        texts=_flatten_inputs(body.inputs, max_inputs=max_inputs),
        nested=from_hub or isinstance(body.inputs, list),
        truncate=body.truncate is not False,
        truncation_side=body.truncation_direction,
        function="none" if body.raw_scores else function,
        top_k=(parameters.top_k if parameters else None) or body.top_k,
        abstain_below=body.abstain_below,
    )


def _flatten_inputs(inputs: str | list[str | list[str]], *, max_inputs: int) -> list[str]:
    entries = inputs if isinstance(inputs, list) else [inputs]
    if not entries:
        raise BlankInput(what="The list of inputs")
    if len(entries) > max_inputs:
        raise TooManyInputs(count=len(entries), limit=max_inputs)
    texts: list[str] = []
    for index, entry in enumerate(entries):
        if isinstance(entry, list):
            if len(entry) != 1:
                raise TextPairUnsupported(index=index)
            entry = entry[0]
        if not entry.strip():
            raise BlankInput(what=f"Input {index}")
        texts.append(entry)
    return texts
