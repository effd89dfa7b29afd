"""Bodies of the predict routes."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StrictBool
from pydantic_core import PydanticCustomError

from app.fields import Body, Text, View, clean


def _texts(value: Any) -> Any:
    """One text or a list of texts, exactly as sent: a model must see what the caller wrote."""
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise PydanticCustomError("inputs_type", "Must be a text or a list of texts")
    for text in texts:
        clean(text)  # for its refusals
    return value


Inputs = Annotated[
    str | list[str],
    BeforeValidator(_texts),
    Field(description="A text, or a list of texts."),
]


class RefPredict(Body):
    """Texts for the model that the address names."""

    inputs: Inputs
    truncate: StrictBool = Field(
        True, description="Cut texts that are too long for the model; false: refuse them."
    )


class Predict(RefPredict):
    """Texts for a model."""

    model: Annotated[str, Text(200)] | None = Field(
        None,
        description="`name` (its production), `name@alias` or `name:3`. "
        "Without it, the only model in production.",
    )


class LabelScore(View):
    """A label and its probability."""

    label: str
    score: float


Labels = list[LabelScore]
