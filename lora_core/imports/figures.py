"""The figures of an import, typed and bounded: lists and pages show them."""

import unicodedata
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from lora_core.data.limits import MAX_LABEL, MAX_LABELS

_LARGEST = 1e12  # of any figure


def printable(text: str) -> str:
    """Raises `ValueError` for control characters and lone surrogates."""
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise ValueError("must have no control characters")
    return text


Label = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_LABEL), AfterValidator(printable)
]
Labels = Annotated[list[Label], Field(min_length=2, max_length=MAX_LABELS)]
Share = Annotated[float, Field(ge=0, le=1)]
Figure = Annotated[float, Field(ge=0, le=_LARGEST)]
Count = Annotated[int, Field(ge=0, le=10**15)]


class Kept(BaseModel):
    """What is kept of an import. Unknown fields are left out."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class LabelFigures(Kept):
    precision: Share | None = None
    recall: Share | None = None
    f1: Share | None = None
    support: Count | None = None


class PartFigures(Kept):
    """Of the validation texts, for example."""

    loss: Figure | None = None
    accuracy: Share | None = None
    balanced_accuracy: Share | None = None
    macro_f1: Share | None = None
    per_class: Annotated[dict[Label, LabelFigures], Field(max_length=MAX_LABELS)] | None = None
    confusion_matrix: Annotated[
        list[Annotated[list[Count], Field(max_length=MAX_LABELS)]], Field(max_length=MAX_LABELS)
    ] | None = None  # fmt: skip


class LinearFigures(Kept):
    """Of the linear model."""

    validation: PartFigures | None = None
    test: PartFigures | None = None
    train_texts: Count | None = None
    seconds: Figure | None = None
    cached: bool | None = None


class Confidence(Kept):
    loss: Figure | None = None
    ece: Share | None = None
    brier: Figure | None = None


class PartCalibration(Kept):
    texts: Count | None = None
    before: Confidence | None = None
    after: Confidence | None = None


class Calibration(Kept):
    """A run fits from 0.05 to 20."""

    temperature: float | None = Field(None, ge=0.01, le=100)
    validation: PartCalibration | None = None
    test: PartCalibration | None = None


class Figures(Kept):
    """The `metrics` of a manifest: those that a run writes."""

    labels: Labels | None = None
    trainable_parameters: Count | None = None
    total_parameters: Count | None = None
    examples: Annotated[
        dict[Annotated[str, StringConstraints(max_length=16)], Count], Field(max_length=8)
    ] | None = None  # fmt: skip
    truncated_share: Share | None = None
    terms: Count | None = None
    steps: Count | None = None
    best_step: Count | None = None
    epochs_run: Figure | None = None
    stopped_early: bool | None = None
    train_seconds: Figure | None = None
    features_found: bool | None = None
    reviews_per_second: Figure | None = None
    tokens_per_second: Figure | None = None
    peak_memory_mb: Figure | None = None
    linear: LinearFigures | None = None
    calibration: Calibration | None = None
    train: PartFigures | None = None
    validation: PartFigures | None = None
    test: PartFigures | None = None
    merge_difference: Figure | None = None
    total_seconds: Figure | None = None


def shown(metrics: Any) -> dict[str, Any]:
    """The figures of a version that came in before they were checked; none if they are wrong."""
    try:
        return Figures.model_validate(metrics).model_dump(exclude_unset=True)
    except ValidationError:
        return {}
