"""Request and response bodies of the feedback routes."""

import math
import re
from enum import StrEnum
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictStr, model_validator
from pydantic_core import PydanticCustomError

from app.http.fields import (
    CleanText,
    RequestModel,
    ResponseModel,
    Slug,
    Timestamp,
    normalize_label,
    reject_unstorable_text,
)
from lora_core.data.label_readers import MAX_LABEL_CHARACTERS, MAX_LABELS, MAX_NUMBER
from lora_core.results import MetricName
from lora_core.specs.task import TaskTypeOfTarget

MAX_ITEMS = 1000  # of one request
MAX_TEXT_CHARACTERS = 100_000
MAX_REVIEW = 200  # texts of one sample
_PREDICTION_ID = re.compile(r"[0-9a-f]{32}(-(0|[1-9][0-9]{0,4}))?")


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must not be blank")
    return text


def _check_number(value: float) -> float:
    if not (math.isfinite(value) and abs(value) <= MAX_NUMBER):
        raise PydanticCustomError("number_too_large", "must be a number of at most 1e30")
    return value


def _reject_bool(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise PydanticCustomError("number_type", "must be a number")
    return value


def _check_prediction_id(text: str) -> str:
    if not _PREDICTION_ID.fullmatch(text):
        raise PydanticCustomError(
            "prediction_id",
            "must be the X-Prediction-Id of a response, for one of several texts with -0, -1 and "
            "so on at its end",
        )
    return text


Text = Annotated[
    StrictStr,
    Field(min_length=1, max_length=MAX_TEXT_CHARACTERS),
    AfterValidator(reject_unstorable_text),
    AfterValidator(_not_blank),
]
LabelName = Annotated[str, CleanText(MAX_LABEL_CHARACTERS), AfterValidator(normalize_label)]
Number = Annotated[float, BeforeValidator(_reject_bool), AfterValidator(_check_number)]
PredictionKey = Annotated[str, AfterValidator(_check_prediction_id)]
ModelName = Annotated[str, CleanText(200)]
LabelValue = str | list[str] | float  # of a single-label task, a multi-label task, a regression


class _FeedbackFields(RequestModel):
    """The fields of one item."""

    prediction_id: PredictionKey | None = Field(
        default=None,
        description="`X-Prediction-Id` of the response; for the third of several texts with `-2` "
        "at its end.",
    )
    text: Text | None = Field(
        default=None, description="Needed unless the prediction is kept. Needs `model`."
    )
    text_pair: Text | None = Field(default=None, description="The second text of a pair.")
    model: ModelName | None = Field(
        default=None, description="`name`, `name@alias` or `name:3`. Needed with a text."
    )
    target: Annotated[str, CleanText(32)] | None = Field(
        default=None, description="Which of several targets the label is of."
    )
    label: LabelName | None = Field(default=None, description="Of a single-label task.")
    labels: Annotated[list[LabelName], Field(max_length=MAX_LABELS)] | None = Field(
        default=None, description="Of a multi-label task; it may be empty."
    )
    value: Number | None = Field(default=None, description="Of a regression.")
    by: Annotated[str, CleanText(64)] | None = Field(
        default=None,
        description="Who says so, besides the name of the API key. The newest of an author counts.",
    )
    new_label: StrictBool = Field(
        default=False, description="Accept a label that the model does not know."
    )

    def check_fields(self) -> None:
        """Raise `PydanticCustomError` unless the fields fit together."""
        if self.prediction_id is None and self.text is None:
            raise PydanticCustomError("subject", "needs prediction_id or text")
        if self.text is None and self.text_pair is not None:
            raise PydanticCustomError("subject", "has text_pair without text")
        if self.prediction_id is None and self.model is None:
            raise PydanticCustomError("subject", "needs model with a text")
        if sum(each is not None for each in (self.label, self.labels, self.value)) != 1:
            raise PydanticCustomError("label", "needs exactly one of label, labels and value")


class FeedbackItem(_FeedbackFields):
    """The right label of a text. It names a prediction that is kept, or brings its text."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.check_fields()
        return self


class FeedbackCreate(_FeedbackFields):
    """The right label of a text, or of many texts as `items`."""

    items: Annotated[list[FeedbackItem], Field(min_length=1, max_length=MAX_ITEMS)] | None = Field(
        default=None,
        description="Feedback on many texts, instead of the other fields. Each item is accepted or "
        "rejected on its own.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.items is None:
            self.check_fields()
        elif self.model_fields_set != {"items"}:
            raise PydanticCustomError("exclusive", "has items and other fields: use one of them")
        return self

    def all_items(self) -> list[FeedbackItem]:
        """Return `items`, or the only one."""
        if self.items is not None:
            return self.items
        return [FeedbackItem.model_validate(self.model_dump(exclude={"items"}))]


class FeedbackItemOutcome(StrEnum):
    """What became of an item."""

    CREATED = "created"
    UPDATED = "updated"  # the author had given another label before
    UNCHANGED = "unchanged"
    FAILED = "failed"


class FeedbackItemError(ResponseModel):
    """Why an item was rejected."""

    code: str
    message: str


class FeedbackItemResult(ResponseModel):
    """What became of an item."""

    index: int = Field(description="Position of the item in the request, from 0.")
    status: FeedbackItemOutcome
    id: UUID | None = None
    version: str | None = Field(None, description="The version that the feedback is about.")
    error: FeedbackItemError | None = None


class FeedbackItemResults(ResponseModel):
    """What became of each item, in the order sent, and how many there are of each kind."""

    data: list[FeedbackItemResult]
    created: int
    updated: int
    unchanged: int
    failed: int


class FeedbackView(ResponseModel):
    """Feedback of one author on one text."""

    id: UUID
    version: str = Field(description="The version that predicted, such as `sentiment:3`.")
    prediction_id: str | None
    target: str | None
    task: TaskTypeOfTarget
    text: str | None = Field(description="Null: it was neither kept nor sent.")
    text_pair: str | None
    label: LabelValue = Field(description="The right label, labels, or number.")
    answer: LabelValue | None = Field(description="What was predicted. Null: it was not kept.")
    changed: bool | None = Field(description="Whether the label differs from what was predicted.")
    sampled: bool = Field(
        description="Whether it is part of a random sample (a review), and so of the live accuracy."
    )
    by: str
    created_at: Timestamp
    updated_at: Timestamp


class ReviewSampleCreate(RequestModel):
    """How many texts to review."""

    count: Annotated[int, Field(ge=1, le=MAX_REVIEW, strict=True)] = 60


class ReviewText(ResponseModel):
    """A text that was drawn for a review and has no feedback yet."""

    prediction_id: str
    text: str | None = Field(description="Null: only scores are kept, look the text up yourself.")
    text_pair: str | None
    answer: dict[str, LabelValue] = Field(
        description="What was predicted, by target; a model with one has the target `label`."
    )
    scores: dict[str, float] = Field(description="The highest probabilities, or the number.")
    missing: list[str] = Field(description="Targets without feedback.")


class ReviewSample(ResponseModel):
    """A random sample of the kept predictions of a version, as far as it has no feedback."""

    version: str
    drawn: int = Field(description="Texts that this request drew.")
    already_labeled: int = Field(description="Of these, texts that have feedback already.")
    data: list[ReviewText]


class LiveEstimate(ResponseModel):
    """An estimate with its 95% interval."""

    metric: MetricName
    value: float
    low: float
    high: float
    texts: int = Field(description="Labeled texts that it is from.")
    other_texts: int = Field(
        0, description="Texts without feedback whose probabilities it uses as well."
    )


class VolunteeredFeedbackCounts(ResponseModel):
    """Feedback that people volunteered. It is no estimate of accuracy: people report errors."""

    texts: int
    changed: int


class LiveAccuracy(ResponseModel):
    """How good a version, or one of its targets, is on live traffic."""

    version: str
    target: str | None
    task: TaskTypeOfTarget
    predicted: int = Field(description="Texts that the version predicted.")
    abstained: int = Field(description="Texts among them that got no label.")
    kept: int = Field(description="Predictions among them that are kept.")
    sampled: int = Field(description="Predictions that were drawn for a review.")
    labeled: int = Field(description="Predictions among these that have feedback.")
    since: Timestamp | None = Field(description="Time of the first of these predictions.")
    estimate: LiveEstimate | None = Field(
        description="From the drawn texts alone: accuracy (Wilson), of a multi-label task that of "
        "whole sets of labels, of a regression the RMSE (bootstrap)."
    )
    with_scores: LiveEstimate | None = Field(
        description="The same accuracy, prediction-powered: with the model's own probabilities of "
        "its answers on all kept texts."
    )
    further: list[LiveEstimate] = Field(description="Other metrics of the drawn texts.")
    corrections: VolunteeredFeedbackCounts


class FeedbackDatasetCreate(RequestModel):
    """Which feedback becomes a dataset."""

    name: Slug | None = Field(default=None, description="Default: the model's, and `-feedback`.")
    changed_only: StrictBool = Field(
        default=False, description="Only texts whose label differs from what was predicted."
    )
