"""Response bodies of the drift routes."""

from enum import StrEnum
from uuid import UUID

from pydantic import Field

from app.http.fields import ResponseModel, Timestamp


class DriftState(StrEnum):
    """What is known about the texts of a version."""

    NOT_KEPT = "not_kept"  # no texts are kept, so nothing can be compared
    TOO_FEW_TEXTS = "too_few_texts"  # there was no check yet
    NO_DRIFT = "no_drift"  # the newest check found no difference
    DRIFT = "drift"  # the newest check found a difference


class DriftCheckView(ResponseModel):
    """A comparison of the texts that a version predicted with its training texts."""

    id: UUID
    version: str
    since: Timestamp | None = Field(
        description="The texts were predicted from here on. Null: all that were kept."
    )
    until: Timestamp = Field(description="And before this time.")
    recent_texts: int = Field(description="Predicted texts that were compared; none counts twice.")
    training_texts: int = Field(description="Training texts that were compared.")
    p_value: float = Field(
        description="How often texts without any difference would look as different as these."
    )
    auc: float = Field(
        description="How well a classifier distinguishes held-out predicted texts from training "
        "texts; 0.5: not at all, 1: completely."
    )
    level: float = Field(description="An alarm is raised at p values up to this one.")
    alarm: bool
    automatic: bool = Field(description="False: made on request.")
    created_at: Timestamp


class DifferentText(ResponseModel):
    """A predicted text that is unlike the training texts."""

    prediction_id: str
    text: str
    text_pair: str | None
    predicted_at: Timestamp


class DriftCheckDetail(DriftCheckView):
    """A check, with the texts that differ most."""

    most_different: list[DifferentText] = Field(
        description="The most different texts first, as far as they are still kept."
    )


class DriftCheckFailure(ResponseModel):
    """Why the last automatic check failed."""

    code: str
    message: str
    retry_at: Timestamp


class ShareChange(ResponseModel):
    """A share of the predicted texts; null if there are none."""

    recent: float | None
    before: float | None = Field(description="In the four periods before.")


class LabelShareChange(ShareChange):
    """How often a label is predicted."""

    label: str = Field(description="Of several targets TARGET/LABEL.")
    training: float | None = Field(description="Share of the training rows; null if not known.")


class DriftView(ResponseModel):
    """Whether the texts of a version are still like those that it was trained on."""

    version: str
    state: DriftState
    new_texts: int = Field(
        description="Texts kept since the last check, counted up to `needed_texts`."
    )
    needed_texts: int = Field(description="Different texts that a check needs.")
    newest_check: DriftCheckView | None
    problem: DriftCheckFailure | None
    days: float = Field(description="What counts as recent in the numbers below.")
    predicted: int = Field(description="Texts that were predicted recently.")
    predicted_before: int = Field(description="In the four periods before.")
    abstained: ShareChange
    labels: list[LabelShareChange] = Field(
        description="Predicted labels, the largest change first; empty for numbers. They raise no "
        "alarm."
    )
