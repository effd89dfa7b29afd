"""Request and response bodies of `POST /v1/forget`."""

from typing import Annotated, Self
from uuid import UUID

from pydantic import Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from app.feedback.schemas import PredictionKey, Text
from app.http.fields import RequestModel, ResponseModel
from app.queue.enums import JobKind


class TextErasureRequest(RequestModel):
    """A text, a pair of texts, or a kept prediction whose text is meant."""

    text: Text | None = Field(
        default=None, description="Also forgotten where it is one of the texts of a pair."
    )
    text_pair: Text | None = Field(
        default=None, description="The second text of a pair: then only this pair is forgotten."
    )
    prediction_id: PredictionKey | None = None
    search_datasets: StrictBool = Field(
        default=True, description="Whether to search the stored datasets, which takes a while."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.text is None) == (self.prediction_id is None):
            raise PydanticCustomError("subject", "needs either text or prediction_id")
        if self.text is None and self.text_pair is not None:
            raise PydanticCustomError("subject", "has text_pair without text")
        return self


class RemovedCounts(ResponseModel):
    """How many rows were removed."""

    predictions: int = Field(description="Kept predictions.")
    feedback: int
    labels: int = Field(description="Of labeling projects.")
    responses: int = Field(description="Stored responses of an `Idempotency-Key`.")


class DatasetWithText(ResponseModel):
    """A stored dataset that has the text. Nothing was removed from it."""

    ref: str
    id: UUID
    count: int = Field(description="Rows with the text.")
    rows: list[int] = Field(description="Numbers of the first of these rows.")


class ModelTrainedOnText(ResponseModel):
    """A version that was trained on such a dataset, or on such a model."""

    ref: str
    aliases: list[str]
    job_id: UUID | None
    trained_on: Annotated[str, Field(description="The dataset, or the version it started from.")]


class ReaderOfDeletedDatasetView(ResponseModel):
    """A job or prediction run whose files have texts of a deleted dataset, searched or not."""

    job_id: UUID
    kind: JobKind
    dataset: str


class TextErasureResult(ResponseModel):
    """What was removed, and where the text still is."""

    removed: RemovedCounts
    searched: bool = Field(
        description="Whether datasets were searched. False: not wanted, or only the hash of the "
        "text was known."
    )
    datasets: list[DatasetWithText]
    unsearched: list[str] = Field(
        description="Datasets that could not be searched, or not in the time there is."
    )
    readers_of_deleted: list[ReaderOfDeletedDatasetView] = Field(
        description="Jobs and prediction runs that read datasets which were deleted since, and "
        "whose files still have texts of them: all of them in the results of a run."
    )
    jobs: list[UUID] = Field(
        description="Jobs and prediction runs that read one of these datasets."
    )
    models: list[ModelTrainedOnText]
