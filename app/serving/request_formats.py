"""Bodies of the predict routes, as clients of two kinds send them (see `dialects`)."""

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

from app.http.fields import Body, Text, View, check_storable
from app.serving.errors import Empty, FunctionClash, PairRefused, TooManyInputs
from lora_core.specs.predict import Function, Side

_KINDS = "must be a text, a list of texts, or a list of lists of one text each"


def _inputs(value: Any) -> Any:
    """The texts exactly as sent: a model must see what the caller wrote."""
    entries = value if isinstance(value, list) else [value]
    nested = [entry if isinstance(entry, list) else [entry] for entry in entries]
    texts = [text for entry in nested for text in entry]
    if not all(isinstance(text, str) for text in texts):
        raise PydanticCustomError("inputs_type", _KINDS)
    for text in texts:
        check_storable(text)
    return value


class _Lenient(BaseModel):
    """Fields that nobody knows are ignored, as those clients expect."""

    model_config = ConfigDict(allow_inf_nan=False, extra="ignore")


class Parameters(_Lenient):
    """What the Hugging Face client sends along, always."""

    function_to_apply: Function | None = None
    top_k: Annotated[StrictInt, Field(ge=1)] | None = None


class RefPredict(_Lenient):
    """Texts for the model that the address names."""

    inputs: Annotated[
        Any,
        BeforeValidator(_inputs),
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
        description="Cut texts that are too long for the model (the default); false: refuse them.",
    )
    truncation_direction: Literal["left", "Left", "right", "Right"] = Field(
        "right", description="The side at which a text is cut."
    )
    raw_scores: StrictBool = Field(False, description="Logits in place of probabilities.")
    top_k: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="Only so many labels; without it all."
    )
    abstain_below: Annotated[StrictFloat | StrictInt, Field(gt=0, le=1)] | None = Field(
        None,
        description="No labels for a text whose best probability is below; `X-Abstained` counts.",
    )
    parameters: Parameters | None = Field(
        None, description="Marks a client of the Hugging Face hub: answers are always nested."
    )


class Predict(RefPredict):
    """Texts for a model."""

    model: Annotated[str, Text(200)] | None = Field(
        None,
        description="`name` (its production), `name@alias` or `name:3`. "
        "Without it, the only model in production.",
    )


class VertexPredict(_Lenient):
    """What Vertex AI sends."""

    instances: Annotated[list[Predict], Field(min_length=1)]


def _as_sent(value: Any) -> Any:
    if isinstance(value, str):
        check_storable(value)
    return value


class Explain(Body):
    """A text whose answer is to be explained."""

    inputs: Annotated[str, BeforeValidator(_as_sent)] = Field(description="One text.")
    label: Annotated[str, BeforeValidator(_as_sent)] | None = Field(
        None, description="Explain the probability of this label. Without it, of the highest."
    )


class LabelScore(View):
    """A label and its score."""

    label: str
    score: float


Labels = list[LabelScore]


class VertexAnswers(View):
    """What Vertex AI expects."""

    predictions: list[Labels | list[Labels]]


class WordScore(View):
    """A word of the text, and what it adds to the probability of the label."""

    text: str
    start: int = Field(description="Where it begins, in characters of the text.")
    end: int
    score: float = Field(description="Below zero: it speaks against the label.")


class ExplanationView(View):
    """The scores of the words add up to `score` less `empty_score`."""

    label: str
    score: float = Field(description="The probability of the label.")
    empty_score: float = Field(description="The same without any of the words.")
    words: list[WordScore]
    grouped: bool = Field(description="There are many words, so neighbours count as one.")
    texts: int = Field(description="How many texts the model was asked for this.")


# MERGED app.serving.request_formats
# What clients of two kinds mean with a body, and the form of the answer that they expect.
#
# Clients of text-embeddings-inference get a flat list for one text and a nested list for several;
# clients of the Hugging Face hub always get a nested list. The latter send the field `parameters`;
# the hub's JavaScript client does so only when it has some, so the URL may name the format.

Dialect = Literal["hf", "tei"]


@dataclass(frozen=True, slots=True)
class Question:
    """The same in both dialects."""

    texts: list[str]
    nested: bool
    truncate: bool
    side: Side
    function: Function | None  # None: probabilities
    top_k: int | None
    abstain_below: float | None


def understand(body: RefPredict, dialect: Dialect | None, *, most: int) -> Question:
    """Raises `Empty`, `TooManyInputs`, `PairRefused`, `FunctionClash`."""
    parameters = body.parameters
    hub = dialect == "hf" or (dialect is None and "parameters" in body.model_fields_set)
    function = parameters.function_to_apply if parameters else None
    if body.raw_scores and function is not None:
        raise FunctionClash()
    return Question(
        texts=_texts(body.inputs, most=most),
        nested=hub or isinstance(body.inputs, list),
        truncate=body.truncate is not False,
        side="left" if body.truncation_direction.lower() == "left" else "right",
        function="none" if body.raw_scores else function,
        top_k=(parameters.top_k if parameters else None) or body.top_k,
        abstain_below=body.abstain_below,
    )


def _texts(inputs: str | list[str | list[str]], *, most: int) -> list[str]:
    entries = inputs if isinstance(inputs, list) else [inputs]
    if not entries:
        raise Empty(what="The list of inputs")
    if len(entries) > most:
        raise TooManyInputs(count=len(entries), limit=most)
    texts: list[str] = []
    for index, entry in enumerate(entries):
        if isinstance(entry, list):
            if len(entry) != 1:
                raise PairRefused(index=index, count=len(entry))
            entry = entry[0]
        if not entry.strip():
            raise Empty(what=f"Input {index}")
        texts.append(entry)
    return texts
