"""Response bodies of the predict routes."""

from typing import Literal

from pydantic import Field

from app.http.fields import ResponseModel, Timestamp
from lora_core.specs.task import TaskType


class LabelScore(ResponseModel):
    """A label and its score; of a regression, `value` and the number."""

    label: str
    score: float
    predicted: bool | None = Field(
        None,
        description="Multi-label: whether the probability of the label reaches its threshold.",
        exclude_if=lambda value: value is None,
    )
    low: float | None = Field(
        None,
        description="Regression: start of an interval that holds 90% of the true numbers of texts "
        "like those of validation. Left out if validation has too few texts.",
        exclude_if=lambda value: value is None,
    )
    high: float | None = Field(
        None, description="Regression: its end.", exclude_if=lambda value: value is None
    )


LabelScoreList = list[LabelScore]
# Of several targets without `target`: an object of what each has.
Prediction = LabelScoreList | dict[str, LabelScoreList]


class RankedText(ResponseModel):
    """A text of `/rerank`."""

    index: int = Field(description="Its position in the request.")
    score: float = Field(description="From 0 to 1; with `raw_scores` the number of the model.")
    text: str | None = Field(
        None, description="With `return_text`.", exclude_if=lambda value: value is None
    )


class WordContribution(ResponseModel):
    """A word of the text, and what it adds to the probability of the label, or to the number."""

    text: str
    field: Literal["text", "text_pair"] = Field(
        "text", description="The text that the word is in: `text_pair` is the second of a pair."
    )
    start: int = Field(description="Offset of the first character in the text.")
    end: int = Field(description="Offset after the last character.")
    score: float = Field(description="Negative: the word lowers the probability or the number.")


# Why the text of a training example is not shown: the key lacks the scope `datasets:read`; the
# dataset was deleted; the text was forgotten; the data were never stored here; they could not be
# read, or not yet.
HiddenReason = Literal["scope", "deleted", "forgotten", "elsewhere", "unavailable"]


class NearestExample(ResponseModel):
    """A training text that is similar to the explained one, by what the model reads of both.

    It has a label in the field of the task; the others are left out.
    """

    label: str | None = Field(
        None, description="single_label", exclude_if=lambda value: value is None
    )
    labels: list[str] | None = Field(
        None, description="multi_label", exclude_if=lambda value: value is None
    )
    value: float | None = Field(
        None, description="regression", exclude_if=lambda value: value is None
    )
    row: int = Field(description="Row number in the training data; 1 is the first data row.")
    similarity: float = Field(description="Cosine: 1 for the same text.")
    text: str | None = Field(
        None,
        description="Its first 2,000 characters.",
        exclude_if=lambda value: value is None,
    )
    text_pair: str | None = Field(
        None, description="Of a pair: the second text.", exclude_if=lambda value: value is None
    )
    hidden: HiddenReason | None = Field(
        None,
        description="Why the text is missing: the key lacks `datasets:read` (`scope`), the dataset "
        "was deleted, the text was forgotten, the data were never stored here (`elsewhere`), or "
        "they cannot be read at the moment (`unavailable`).",
        exclude_if=lambda value: value is None,
    )


class Familiarity(ResponseModel):
    """Whether a text is like the training texts."""

    unfamiliar: bool | None = Field(
        description="True: the fifth nearest training example is less similar than those of nearly "
        "all held-out texts. Null: these were too few, or too unlike the examples, to say."
    )
    similarity: float = Field(description="To the fifth nearest training example.")
    threshold: float | None = Field(
        None, description="A text whose fifth nearest example is less similar is unfamiliar."
    )
    held_out_texts: int = Field(
        description="Texts that it comes from: at most 400 of the validation split, or of the test "
        "split if the model was trained on the validation texts."
    )
    expected_share: float | None = Field(
        None, description="Of texts like the training texts that are unfamiliar nevertheless."
    )


class ExplanationView(ResponseModel):
    """The scores of the words add up to `score` minus `empty_score`."""

    label: str
    score: float = Field(description="Probability of the label; of a regression, the number.")
    empty_score: float = Field(description="The same without any of the words.")
    words: list[WordContribution]
    grouped: bool = Field(description="Neighboring words count as one, because there are many.")
    texts: int = Field(description="Number of texts that the model computed for this.")
    familiarity: Familiarity | None = Field(
        None,
        description="Null: the version has no training examples to compare with, because it was "
        "imported, or trained before they were stored.",
    )
    nearest: list[NearestExample] = Field(
        default=[], description="Up to five training examples, the most similar first."
    )


class ShadowComparisonView(ResponseModel):
    """A candidate compared with the version in production, in this process since it started."""

    version: str
    shadow: str
    task: TaskType = Field(description="Of the version in production.")
    since: Timestamp
    texts: int
    agreement: float | None = Field(
        description="Share of texts with the same label or the same set of labels, or with a "
        "number within the interval of production."
    )
    mean_difference: float | None = Field(
        description="Of the probability of production's label; multi-label: of all labels; "
        "regression: of the numbers."
    )
    skipped: int  # texts: the service was busy, too many came at once, or it was not loaded
    failed: int


class ModelHealth(ResponseModel):
    """The model is loaded."""

    status: Literal["ok"] = "ok"


class ClassifierLabels(ResponseModel):
    """The labels of a classifier, in both directions."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class TeiModelType(ResponseModel):
    """The kind of the model. Here all are classifiers."""

    classifier: ClassifierLabels


class ModelInfo(ResponseModel):
    """The fields of text-embeddings-inference, and those of the engine and the task."""

    model_id: str
    model_sha: str
    model_dtype: str
    served_model_name: str
    model_type: TeiModelType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None
    text_pairs: bool  # whether the model reads pairs of texts
    engine: str
    engine_tokens_per_second: dict[str, float]  # of the engines that were benchmarked here
    task: TaskType
    thresholds: dict[str, float] = Field(
        description="Multi-label: the probability from which a label is predicted. With tuned "
        "thresholds of a single-label model, the label is predicted whose probability is highest "
        "in relation to its threshold. Else empty."
    )
    targets: dict[str, TaskType] = Field(
        default={},
        exclude_if=lambda value: not value,
        description="The task of each of several targets, whose outputs are named TARGET/LABEL.",
    )
