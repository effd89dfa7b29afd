"""Request and response bodies of the predict routes, in the formats of different clients.

A pair of texts is an object with `text` and `text_pair`, as clients of the Hugging Face hub send
it, or a list of two texts in a list of inputs. A list of two texts alone is one pair in the format
of text-embeddings-inference, but only for a model of pairs: for others it is two texts.

Clients of text-embeddings-inference get a flat list for one text and a nested list for several;
clients of the Hugging Face hub always get a nested list. The latter send the field `parameters`,
but the hub's JavaScript client only when it has some, so the URL may name the format.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
)
from pydantic_core import PydanticCustomError

from app.errors import AppError
from app.http.fields import CleanText, ResponseModel, reject_unstorable_text
from app.serving.errors import (
    BlankInput,
    InvalidPair,
    RerankNotApplicable,
    ScoreFunctionGivenTwice,
    TooManyInputs,
)
from app.serving.schemas import Prediction
from app.settings import MAX_INPUTS
from lora_core.specs.predict import ScoreFunction, TruncationSide
from lora_core.specs.task import TaskType
from lora_core.specs.text_input import TextInput

RequestFormat = Literal["hf", "tei"]

_INPUTS_TYPE = (
    "must be a text, a pair of texts as an object with `text` and `text_pair`, or a list of these; "
    "in a list, a pair may also be a list of two texts"
)


TEXT_PAIR_SCHEMA = {
    "type": "object",
    "required": ["text"],
    "properties": {"text": {"type": "string"}, "text_pair": {"type": "string"}},
    "additionalProperties": False,
}


def reject_too_many_inputs(value: Any) -> Any:
    """Return the value. Reject a list that is too long for any setting before its texts are read:
    validating a whole body of short texts would block the event loop. Raises `TooManyInputs`.
    """
    _check_input_count(count_inputs(value))
    return value


def count_inputs(inputs: Any) -> int:
    """Return how many texts or pairs a request has."""
    return len(inputs) if isinstance(inputs, list) else 1


def _check_input_count(count: int) -> None:
    if count > MAX_INPUTS:
        # The settings, which may allow less, are not known here.
        raise TooManyInputs(count=count, limit="`max_client_batch_size` of `GET /info`")


def _validate_inputs(value: Any) -> Any:
    """Return the texts exactly as sent: the model must read what the client wrote."""
    reject_too_many_inputs(value)
    for entry in value if isinstance(value, list) else [value]:
        validate_text_input(entry)
    return value


def validate_text_input(entry: Any) -> Any:
    """Return a text, a pair as an object, or a list of texts, unchanged."""
    texts = entry if isinstance(entry, list) else [entry]
    if isinstance(entry, dict):
        if entry.keys() - {"text", "text_pair"}:
            raise PydanticCustomError("inputs_type", _INPUTS_TYPE)
        pair = entry.get("text_pair")
        texts = [entry.get("text"), *([] if pair is None else [pair])]
    if not all(isinstance(text, str) for text in texts):
        raise PydanticCustomError("inputs_type", _INPUTS_TYPE)
    for text in texts[:2]:  # with more it is no pair, and rejected later
        reject_unstorable_text(text)
    return entry


def _lower_side(value: Any) -> Any:
    """Return the side of `Left` and `Right`, which text-embeddings-inference accepts too.

    They are not in the schema: generators cannot make two constants of one name.
    """
    return value.lower() if value in ("Left", "Right") else value


class LenientBody(BaseModel):
    """Ignores unknown fields: clients of other servers send many that mean nothing here."""

    model_config = ConfigDict(allow_inf_nan=False, extra="ignore")


class HubParameters(LenientBody):
    """The field that clients of the Hugging Face hub send."""

    function_to_apply: ScoreFunction | None = None
    top_k: Annotated[StrictInt, Field(ge=1)] | None = None


class PredictBodyWithoutModel(LenientBody):
    """Texts for the model in the URL."""

    inputs: Annotated[
        Any,
        BeforeValidator(_validate_inputs),
        Field(
            description="A text, a pair of texts, or a list of these.",
            json_schema_extra={
                "anyOf": [
                    {"type": "string"},
                    TEXT_PAIR_SCHEMA,
                    {"type": "array", "items": {"type": "string"}},
                    {"type": "array", "items": TEXT_PAIR_SCHEMA},
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
        None, description="Number of labels to return, the first ones. Default: all."
    )
    abstain_below: Annotated[StrictFloat, Field(gt=0, le=1)] | None = Field(
        None,
        description="Of a single-label model: return no labels for texts whose predicted label is "
        "less probable; `X-Abstained` counts them.",
    )
    abstain_unfamiliar: StrictBool = Field(
        False,
        description="Return no labels for texts unlike everything that the model was trained on; "
        "`X-Unfamiliar` counts them, and so does `X-Abstained`.",
    )
    parameters: HubParameters | None = Field(
        None,
        description="Sent by clients of the Hugging Face hub: the response is nested, unless "
        "`format` in the URL says otherwise.",
    )


class PredictBody(PredictBodyWithoutModel):
    """Texts for a model."""

    model: Annotated[str, CleanText(200)] | None = Field(
        None,
        description="`name` (its production version), `name@alias` or `name:3`. "
        "Default: the only model in production.",
    )


class RerankBodyWithoutModel(LenientBody):
    """A query and texts, in the format of text-embeddings-inference, for the model in the URL."""

    query: Annotated[StrictStr, AfterValidator(reject_unstorable_text)]
    texts: Annotated[
        list[Annotated[StrictStr, AfterValidator(reject_unstorable_text)]],
        BeforeValidator(reject_too_many_inputs),
        Field(min_length=1),
    ]
    raw_scores: StrictBool = Field(
        False, description="Return the numbers of the model instead of their sigmoids."
    )
    return_text: StrictBool = Field(False, description="Return the texts as well.")
    truncate: StrictBool | None = Field(
        None, description="Truncate pairs that are too long (the default); false: reject them."
    )
    truncation_direction: Annotated[TruncationSide, BeforeValidator(_lower_side)] = "right"


class RerankBody(RerankBodyWithoutModel):
    """A query and texts for a model."""

    model: Annotated[str, CleanText(200)] | None = Field(
        None,
        description="`name` (its production version), `name@alias` or `name:3`. "
        "Default: the only model in production.",
    )


def _reject_too_many_in_instances(value: Any) -> Any:
    if isinstance(value, list):
        inputs = (each.get("inputs") if isinstance(each, dict) else each for each in value)
        _check_input_count(sum(map(count_inputs, inputs)))
    return value


class VertexBody(LenientBody):
    """A request of Vertex AI."""

    instances: Annotated[
        list[PredictBody],
        BeforeValidator(_reject_too_many_in_instances),
        Field(min_length=1),
    ]


class VertexResponse(ResponseModel):
    """The response that Vertex AI expects."""

    predictions: list[Prediction | list[Prediction]]


class TaskRequirement(NamedTuple):
    """The task that a model must have, and the error about the `task` of one with another."""

    task: TaskType
    error: type[AppError]
    at: str | None = None  # the field of the body that needs it


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """A parsed predict request, the same for all formats."""

    texts: Sequence[TextInput]
    nested: bool  # whether the response is a nested list
    truncate: bool
    truncation_side: TruncationSide
    function: ScoreFunction | None  # None: probabilities
    top_k: int | None
    abstain_below: float | None
    # Whether the inputs are a list of two texts in the format of text-embeddings-inference.
    two_texts: bool = False
    target: str | None = None  # which of several targets to predict; None: all
    abstain_unfamiliar: bool = False
    third_party_format: bool = False  # whether the response has the form of another server
    required_task: TaskRequirement | None = None  # None: the response has a form for every task

    def combine_texts_for_pair_model(self, *, pairs: bool) -> "PredictRequest":
        """Return the request as a model understands it, of pairs of texts or of single texts."""
        if not (pairs and self.two_texts):
            return self
        first, second = (str(text) for text in self.texts)
        return replace(self, texts=[(first, second)], nested=False, two_texts=False)


def parse_predict_request(
    body: PredictBodyWithoutModel,
    request_format: RequestFormat | None,
    *,
    max_inputs: int,
    target: str | None = None,
    required_task: TaskRequirement | None = None,
) -> PredictRequest:
    """Parse a body in the given format, or in the one that its fields indicate.

    Raises `BlankInput`, `TooManyInputs`, `InvalidPair`, `ScoreFunctionGivenTwice`.
    """
    parameters = body.parameters
    from_hub = request_format == "hf" or (
        request_format is None and "parameters" in body.model_fields_set
    )
    texts = _parse_inputs(body.inputs, max_inputs=max_inputs)
    function = parameters.function_to_apply if parameters else None
    if body.raw_scores and function is not None:
        raise ScoreFunctionGivenTwice()
    return PredictRequest(
        texts=texts,
        nested=from_hub or isinstance(body.inputs, list),
        truncate=body.truncate is not False,
        truncation_side=body.truncation_direction,
        function="none" if body.raw_scores else function,
        top_k=(parameters.top_k if parameters else None) or body.top_k,
        abstain_below=body.abstain_below,
        abstain_unfamiliar=body.abstain_unfamiliar,
        two_texts=(
            not from_hub
            and isinstance(body.inputs, list)
            and len(texts) == 2
            and all(isinstance(entry, str) for entry in body.inputs)
        ),
        target=target,
        third_party_format=from_hub or request_format == "tei",
        required_task=required_task,
    )


def parse_rerank_request(
    body: RerankBodyWithoutModel, *, max_inputs: int, target: str | None = None
) -> PredictRequest:
    """Return the pairs of the query and each text. Raises `BlankInput`, `TooManyInputs`."""
    reject_blank_text(body.query, "The query", at="query")
    if len(body.texts) > max_inputs:
        raise TooManyInputs(count=len(body.texts), limit=max_inputs)
    for index, text in enumerate(body.texts):
        reject_blank_text(text, f"Text {index}", at=f"texts.{index}")
    return PredictRequest(
        texts=[(body.query, text) for text in body.texts],
        nested=True,
        truncate=body.truncate is not False,
        truncation_side=body.truncation_direction,
        function=None,
        top_k=None,
        abstain_below=None,
        target=target,
        third_party_format=True,
        required_task=TaskRequirement("regression", RerankNotApplicable),
    )


def _parse_inputs(inputs: Any, *, max_inputs: int) -> list[TextInput]:
    entries = inputs if isinstance(inputs, list) else [inputs]
    if not entries:
        raise BlankInput(what="The list of inputs")
    if len(entries) > max_inputs:
        raise TooManyInputs(count=len(entries), limit=max_inputs)
    return [to_text_or_pair(entry, f"Input {index}") for index, entry in enumerate(entries)]


def to_text_or_pair(entry: Any, name: str, *, at: str | None = None) -> TextInput:
    """Return the text or the pair of a validated entry, which errors call `name`.

    Raises `BlankInput`, `InvalidPair`.
    """
    if isinstance(entry, dict):
        entry = [entry["text"], entry.get("text_pair")]
    texts = [each for each in (entry if isinstance(entry, list) else [entry]) if each is not None]
    if not 1 <= len(texts) <= 2:
        raise InvalidPair(what=name, count=len(texts), at=at)
    for position, text in zip(("first", "second"), texts, strict=False):
        reject_blank_text(text, name if len(texts) == 1 else f"{name}: its {position} text", at=at)
    return texts[0] if len(texts) == 1 else (texts[0], texts[1])


def reject_blank_text(text: str, what: str, *, at: str | None = None) -> str:
    """Return a text that is not blank. Raises `BlankInput`."""
    if not text.strip():
        raise BlankInput(what=what, at=at)
    return text
