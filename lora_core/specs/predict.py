"""The description of a batch prediction run."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from lora_core.specs.data import ColumnName, SourceName
from lora_core.specs.fields import DEVICE_PATTERN, NO_NUL_PATTERN, FrozenModel, Int

# The output: one JSON object per line with the cells of the row, the keys of the task and, unless
# it is a regression, the scores of all labels under `SCORES`.
RESULTS_FILE = "results.jsonl"
LABEL, SCORE, SCORES = "predicted_label", "predicted_score", "predicted_scores"
LABELS = "predicted_labels"  # those that reach their thresholds
VALUE, LOW, HIGH = "predicted_value", "predicted_low", "predicted_high"
TARGETS = "predicted_targets"  # several targets: an object of the above for each of them
RESULT_KEYS: Mapping[str, tuple[str, ...]] = {
    "single_label": (LABEL, SCORE),
    "multi_label": (LABELS,),
    "regression": (VALUE, LOW, HIGH),
    "several_targets": (TARGETS,),
}
RESERVED_COLUMNS = frozenset({SCORES}.union(*RESULT_KEYS.values()))

TruncationSide = Literal["left", "right"]  # the side on which a text that is too long is truncated
ScoreFunction = Literal["softmax", "sigmoid", "none"]  # from logits to scores

ModelName = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=NO_NUL_PATTERN)]


class PredictDataSpec(FrozenModel):
    """A file (`.csv`, `.tsv`, `.xlsx`, `.jsonl`, `.json`, `.parquet`) and the columns to read."""

    source: SourceName
    text_column: ColumnName = "text"
    # The second text of each row, for a model of text pairs.
    text_pair_column: ColumnName | None = Field(
        default=None, exclude_if=lambda value: value is None
    )


class PredictRuntimeSpec(FrozenModel):
    """Where the run computes. Predictions are always computed on the CPU."""

    device: str = Field(default="cpu", pattern=DEVICE_PATTERN)
    # None: chosen when the run first starts
    threads: Int | None = Field(default=None, ge=1, le=1024)


class PredictSpec(FrozenModel):
    """Predict every row of a file with one model.

    `model` is the directory of an artifact. A service accepts one of its model versions instead,
    and the name of an uploaded dataset as `data.source`.
    """

    spec_version: Literal[1] = 1  # incremented when the meaning of a field changes
    model: ModelName
    data: PredictDataSpec
    runtime: PredictRuntimeSpec = PredictRuntimeSpec()


class ScoredOutput(FrozenModel):
    """A label and its probability, and whether it is predicted; or a number and its interval.

    The fields are those of `decoding.DecodedOutput`.
    """

    label: str
    score: float
    predicted: bool | None = Field(default=None, exclude_if=lambda value: value is None)
    low: float | None = Field(default=None, exclude_if=lambda value: value is None)
    high: float | None = Field(default=None, exclude_if=lambda value: value is None)
    target: str | None = Field(default=None, exclude_if=lambda value: value is None)


class TextPrediction(FrozenModel):
    """All outputs of the model for one text or pair, target by target, in the order of
    `decode_label_scores`."""

    text: str
    text_pair: str | None = Field(default=None, exclude_if=lambda value: value is None)
    labels: list[ScoredOutput]
