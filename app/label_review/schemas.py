"""Request and response bodies of suspect labels and corrections."""

from collections import Counter
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.http.fields import CleanText, RequestModel, ResponseModel, Timestamp, normalize_label
from lora_core.data.label_readers import MAX_LABEL_CHARACTERS, MAX_LABELS, MAX_NUMBER
from lora_core.data.label_review_schemas import MAX_CHANGES, MAX_SUSPECTS
from lora_core.specs.fields import Float
from lora_core.specs.task import TaskType

LabelName = Annotated[str, CleanText(MAX_LABEL_CHARACTERS), AfterValidator(normalize_label)]
Number = Annotated[Float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
RowNumber = Annotated[int, Field(strict=True, ge=1, le=2**31)]
TargetName = Annotated[str, CleanText(256)]
Label = str | float | list[str]

_LABEL = "A name; a list of names if the task is multi_label; a number if it is regression."


# -- Suspect labels -------------------------------------------------------------------------------


class SimilarRow(ResponseModel):
    """A row that has the proposed label."""

    row: int
    text: str = Field(description="The first 160 characters of the text.")
    text_pair: str | None = Field(default=None, exclude_if=lambda value: value is None)
    label: Label


class SuspectLabel(ResponseModel):
    """A row whose label contradicts what the linear model predicts for it when it is held out."""

    row: int = Field(description="Row number; 1 is the first data row.")
    text: str = Field(description="The first 500 characters of the text.")
    text_pair: str | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="The first 500 characters of the second text of a pair.",
    )
    characters: int = Field(description="Length of the full text, or of both texts of a pair.")
    split: str | None
    given: Label = Field(description=f"The label in the file. {_LABEL}")
    proposed: Label
    names: list[str] = Field(description="multi_label: the names that the two differ by.")
    confidence: float | None = Field(
        description="Probability of the proposed label; of several names, the highest. "
        "Null: a number."
    )
    score: float = Field(
        description="Higher is more suspect: probability of the most probable other label minus "
        "that of the given one. Of a number: the distance to the prediction, in units of the "
        "spread of all distances."
    )
    nearest: list[SimilarRow] = Field(
        description="The most similar rows with the proposed label, or with numbers near it."
    )


class SuspectLabels(ResponseModel):
    """The suspect labels of a dataset, or of one of its targets, the most suspect first."""

    ref: str
    task: TaskType
    target: str | None
    rows: int = Field(description="Rows of the dataset.")
    checked: int = Field(
        description="Rows that were checked. A large dataset is sampled: then it is less than "
        "`rows`."
    )
    found: int = Field(
        description=f"Suspect rows, those that were kept included; at most {MAX_SUSPECTS} are "
        "listed."
    )
    kept: int = Field(description="Of the listable ones, those that are not listed: kept before.")
    agreement: float | None = Field(
        description="Share of the labels that the model predicts as given. If it is low, the model "
        "understands too little of them to doubt them. Null: numbers."
    )
    spread: float | None = Field(
        description="regression: the spread of the distances, as a standard deviation."
    )
    data: list[SuspectLabel]


# -- Corrections ----------------------------------------------------------------------------------


class LabelCorrection(RequestModel):
    """A label to change: one of `label`, `labels` and `value`, depending on the task."""

    row: RowNumber
    target: TargetName | None = Field(default=None, description="Which of several targets.")
    label: LabelName | None = Field(default=None, description="single_label: the right name.")
    labels: Annotated[list[LabelName], Field(max_length=MAX_LABELS)] | None = Field(
        default=None, description="multi_label: all right names. Empty: none applies."
    )
    value: Number | None = Field(default=None, description="regression: the right number.")
    given: LabelName | Number | list[LabelName] | None = Field(
        default=None,
        description="The label that you saw: the request is rejected if the row has another one.",
    )

    @model_validator(mode="after")
    def _one_label(self) -> "LabelCorrection":
        if len(self.sent_label_fields) != 1:
            raise PydanticCustomError("one_label", "needs one of label, labels and value")
        return self

    @property
    def sent_label_fields(self) -> list[str]:
        """Which of `label`, `labels` and `value` there are."""
        return [name for name in ("label", "labels", "value") if getattr(self, name) is not None]


class ConfirmedRow(RequestModel):
    """A row whose label is right. Without `target`, those of all targets are."""

    row: RowNumber
    target: TargetName | None = None


class CorrectionCreate(RequestModel):
    """Labels to change, and rows whose labels were looked at and are right."""

    changes: Annotated[list[LabelCorrection], Field(max_length=MAX_CHANGES)] = Field(default=[])
    keep: Annotated[list[RowNumber | ConfirmedRow], Field(max_length=MAX_CHANGES)] = Field(
        default=[],
        description="Rows that will not be listed as suspect again while they keep their labels, "
        "in later versions of the dataset neither.",
    )
    new_label: bool = Field(
        default=False, description="Changes may have labels that no row of the dataset has."
    )

    @field_validator("keep")
    @classmethod
    def _kept_once(cls, keep: list[int | ConfirmedRow]) -> list[int | ConfirmedRow]:
        _raise_if_repeated([(each.row, each.target) for each in to_confirmed_rows(keep)])
        return keep

    @field_validator("changes")
    @classmethod
    def _changed_once(cls, changes: list[LabelCorrection]) -> list[LabelCorrection]:
        _raise_if_repeated([(each.row, each.target) for each in changes])
        return changes

    @model_validator(mode="after")
    def _not_empty(self) -> "CorrectionCreate":
        if not self.changes and not self.keep:
            raise PydanticCustomError("empty", "needs a row in changes or in keep")
        changed = {(each.row, each.target) for each in self.changes}
        for each in to_confirmed_rows(self.keep):
            both = {(each.row, each.target)}
            if each.target is None:
                both |= {key for key in changed if key[0] == each.row}
            if both & changed:
                raise PydanticCustomError(
                    "changed_and_kept", "row {row} is in both changes and keep", {"row": each.row}
                )
        return self


def to_confirmed_rows(keep: list[int | ConfirmedRow]) -> list[ConfirmedRow]:
    """Return kept rows in their long form."""
    return [ConfirmedRow(row=each) if isinstance(each, int) else each for each in keep]


def _raise_if_repeated(keys: list[tuple[int, str | None]]) -> None:
    (key, count), *_ = Counter(keys).most_common(1) or [((0, None), 0)]
    if count > 1:
        raise PydanticCustomError("repeated_row", "row {row} is repeated", {"row": key[0]})


class LabelChangeView(ResponseModel):
    """A label before and after."""

    row: int = Field(description="Row number in the version before.")
    target: str | None = Field(default=None, exclude_if=lambda value: value is None)
    before: Label
    after: Label


class CorrectionDiff(ResponseModel):
    """How a version of a dataset differs from the one that it was made of.

    `corrected_from` is null if labels were only kept: then there is no new version.
    """

    id: UUID
    ref: str = Field(description="The corrected version.")
    corrected_from: str | None = Field(description="The version before.")
    corrected_by: str = Field(description="Name of the API key.")
    created_at: Timestamp
    filename: str
    changes: list[LabelChangeView] = Field(description="By row.")
    forgotten_rows: list[int] = Field(
        description="Rows of the version before that are left out, and not changed, because their "
        "texts must be forgotten."
    )
    kept: int = Field(description="Labels that were kept by the same request.")

    @property
    def dataset_location(self) -> str:
        """Path of the dataset."""
        return f"/v1/datasets/{self.id}"


def label_field_name(task: TaskType) -> str:
    """Return the field that a label of this task is sent in."""
    fields: dict[str, Any] = {"multi_label": "labels", "regression": "value"}
    return str(fields.get(task, "label"))
