"""Request and response bodies of the labeling routes."""

from enum import StrEnum
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field, StrictBool, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.http.fields import CleanText, RequestModel, ResponseModel, Slug, Timestamp, normalize_label
from lora_core.specs.fields import BaseName

MAX_LABELS = 1_000  # of a project: a logistic regression and a page with more are of no use
MAX_TEXTS = 200_000  # of a pool: its texts and vectors are held in the memory of each API process
MAX_NEXT = 20  # texts that one request leases
MAX_ANNOTATOR_CHARACTERS = 64


LabelName = Annotated[str, CleanText(200), AfterValidator(normalize_label)]
Annotator = Annotated[
    Annotated[str, CleanText(MAX_ANNOTATOR_CHARACTERS)] | None,
    Field(description="Who labels, if several people share an API key."),
]
LabelingTaskType = Literal["single_label", "multi_label", "regression"]
ShownValue = str | list[str] | float  # a label, several labels, or a number
SentValue = LabelName | Annotated[list[LabelName], Field(max_length=MAX_LABELS)] | float


class ChosenTextReason(StrEnum):
    """Why a text was chosen."""

    RANDOM = "random"  # drawn at random: only these texts estimate accuracy
    SPREAD = "spread"  # far from all labeled texts, before there is a suggestion
    UNCERTAIN = "uncertain"  # the suggestion is not sure
    DIVERSE = "diverse"  # unlike the labeled texts
    REQUESTED = "requested"  # the server has not offered it: it was labeled by its row number


class VectorComputationState(StrEnum):
    """Whether the vectors of the texts have been computed."""

    QUEUED = "queued"
    RUNNING = "running"
    READY = "ready"
    FAILED = "failed"


# -- Requests -------------------------------------------------------------------------------------


class LabelTypeSpec(RequestModel):
    """What a text gets: one label, any number of labels, or a number."""

    type: LabelingTaskType = "single_label"
    ordered: StrictBool = Field(
        default=False,
        description="single_label: the labels are ranks, sorted by number, else by name.",
    )

    @model_validator(mode="after")
    def _only_names_are_ranks(self) -> Self:
        if self.ordered and self.type != "single_label":
            raise PydanticCustomError("wrong_task", "ordered needs the task single_label")
        return self


def _distinct(labels: list[str]) -> list[str]:
    if len(set(labels)) < len(labels):
        raise PydanticCustomError("labels", "must be distinct")
    return labels


class LabelingCreate(RequestModel):
    """A labeling project. Only `name` and `dataset` have no default."""

    name: Slug
    dataset: Annotated[str, CleanText(128)] = Field(
        description="A dataset that was uploaded with `purpose=predict`: `name` (its newest "
        "version), `name:2`, or its id."
    )
    task: LabelTypeSpec = LabelTypeSpec()
    labels: list[LabelName] = Field(
        default=[], max_length=MAX_LABELS, description="More can be added later. Numbers have none."
    )
    base: BaseName | None = Field(
        default=None,
        description="The encoder that computes the vectors of the texts. Omitted: the default.",
    )
    random_share: float = Field(
        default=0.2,
        ge=0.0,
        le=1.0,
        description="Share of texts that are drawn at random. Only they estimate accuracy.",
    )
    overlap: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="Share of texts that two annotators label, to measure their agreement.",
    )
    seed: int = Field(default=0, ge=0, lt=2**31)

    _distinct_labels = field_validator("labels")(_distinct)

    @model_validator(mode="after")
    def _numbers_have_no_labels(self) -> Self:
        if self.labels and self.task.type == "regression":
            raise PydanticCustomError("labels", "a regression has no labels")
        return self


class LabelingUpdate(RequestModel):
    """Labels to add. Labels are never removed: texts may have them."""

    add_labels: list[LabelName] = Field(default=[], max_length=MAX_LABELS)
    retry_vectors: StrictBool = Field(
        default=False, description="Compute the vectors again, if that failed or they were deleted."
    )

    _distinct_labels = field_validator("add_labels")(_distinct)

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.add_labels and not self.retry_vectors:
            raise PydanticCustomError("no_change", "needs add_labels or retry_vectors")
        return self


class TextLeaseRequest(RequestModel):
    """How many texts to lease, and for whom."""

    count: int = Field(default=1, ge=1, le=MAX_NEXT)
    annotator: Annotator = None


class AnnotationUpdate(RequestModel):
    """What one annotator says of one text: exactly one of the first four fields."""

    label: LabelName | None = Field(default=None, description="single_label")
    labels: list[LabelName] | None = Field(
        default=None, max_length=MAX_LABELS, description="multi_label: any number, or none."
    )
    value: float | None = Field(default=None, ge=-1e12, le=1e12, description="regression")
    skipped: StrictBool = Field(default=False, description="True: it cannot be labeled.")
    annotator: Annotator = None
    reason: ChosenTextReason | None = Field(
        default=None,
        description="The reason that the text came with. It is kept only for texts that the "
        "server has no record of offering, and never as `random`.",
    )
    suggested: SentValue | None = Field(
        default=None, description="The suggestion that the annotator saw."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [
            *(name for name in ("label", "labels", "value") if getattr(self, name) is not None),
            *(["skipped"] if self.skipped else []),
        ]
        if len(given) != 1:
            raise PydanticCustomError(
                "annotation", "needs exactly one of label, labels, value and skipped: true"
            )
        return self


class LabelingDatasetCreate(RequestModel):
    """The dataset that the labels are written to."""

    name: Slug | None = Field(
        default=None, description="Omitted: the name of the project. A new version if it exists."
    )


# -- Responses ------------------------------------------------------------------------------------


class LabelFields(ResponseModel):
    """A label, in the field of the task; the others are left out."""

    label: str | None = Field(
        default=None, exclude_if=lambda value: value is None, description="single_label"
    )
    labels: list[str] | None = Field(
        default=None, exclude_if=lambda value: value is None, description="multi_label"
    )
    value: float | None = Field(
        default=None, exclude_if=lambda value: value is None, description="regression"
    )


class SuggestionView(LabelFields):
    """What the labels so far suggest for a text."""

    score: float | None = Field(
        default=None,
        description="Probability of the label; of several labels, of the least certain decision. "
        "Null: a number.",
    )


class NearestLabeledText(LabelFields):
    """A labeled text that is similar."""

    row: int
    text: str


class LeasedText(ResponseModel):
    """A text to label, which nobody else gets until the lease expires."""

    row: int = Field(description="Row number in the dataset; 1 is the first data row.")
    text: str
    text_pair: str | None = None
    reason: ChosenTextReason
    suggestion: SuggestionView | None = Field(
        description="Null: too few labels, or a text that was drawn at random or that somebody "
        "else has labeled: the label measures accuracy or agreement."
    )
    nearest: list[NearestLabeledText] = Field(
        description="Similar labeled texts, the nearest first. Empty where a label measures "
        "something. Without the scope `labels:read`, only those that the API key labeled."
    )
    lease_expires_at: Timestamp


class LeasedTexts(ResponseModel):
    """Texts to label. Empty: nothing is left, or others hold the rest."""

    texts: list[LeasedText]
    remaining: int = Field(description="Texts that nobody has labeled or skipped, with these.")


class AnnotationView(LabelFields):
    """What one annotator said of one text."""

    id: UUID
    row: int
    text: str | None = Field(
        default=None, description="The first 2,000 characters. Null: the dataset was deleted."
    )
    skipped: bool
    annotator: str
    reason: ChosenTextReason
    suggested: ShownValue | None
    at: Timestamp = Field(description="When it was labeled last.")


class LabelCount(ResponseModel):
    """A label, and how many texts have it."""

    name: str
    texts: int


class AnnotatorCount(ResponseModel):
    """An annotator, and how many texts they labeled and skipped."""

    name: str
    labeled: int
    skipped: int


class VectorComputationView(ResponseModel):
    """The vectors of the texts, which a job computes."""

    state: VectorComputationState
    job: UUID | None
    progress: float | None = Field(description="Share of the texts that are done.")
    error: str | None = None


class SuggestionAccuracyView(ResponseModel):
    """A metric with its 95% interval."""

    metric: str
    value: float
    low: float
    high: float
    texts: int = Field(description="Labeled texts that were drawn at random.")


class AnnotatorAgreementView(ResponseModel):
    """Cohen's kappa of texts that two annotators labeled. 1: they always agree; 0: as by chance."""

    kappa: float | None
    texts: int


class LabelingListItem(ResponseModel):
    """A labeling project in a list."""

    id: UUID
    name: str
    dataset: str = Field(description="The dataset with the texts, such as `reviews-to-predict:1`.")
    task: LabelTypeSpec
    texts: int = Field(description="Texts in the pool.")
    labeled: int = Field(description="Texts that somebody has labeled.")
    skipped: int = Field(description="Texts that were skipped and that nobody has labeled.")
    created_at: Timestamp


class LabelingView(LabelingListItem):
    """A labeling project."""

    dataset_deleted: bool = Field(description="Its texts are gone; the labels are kept.")
    paired: bool = Field(description="Each row is a pair of texts.")
    base: str
    random_share: float
    overlap: float
    seed: int
    labels: list[LabelCount] = Field(
        description="In the order given; ranks sorted by number, else by name."
    )
    annotators: list[AnnotatorCount] = Field(
        description="Without the scope `labels:read`, only those of the API key."
    )
    random_labeled: int = Field(description="Labeled texts that were drawn at random.")
    vectors: VectorComputationView
    suggestions_from: int | None = Field(
        description="Number of labeled texts that the suggestions are fitted on. Null: too few."
    )
    accuracy: SuggestionAccuracyView | None = Field(
        description="How good the suggestions are, on random texts. Null: too few of them, or none "
        "has a label."
    )
    agreement: AnnotatorAgreementView | None
