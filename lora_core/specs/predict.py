"""One run of a model over a file, described in full."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from lora_core.specs.data import Column, Source
from lora_core.specs.frozen import Frozen, Int
from lora_core.specs.patterns import DEVICE, NO_NUL

# What a run makes: one JSON object a line, the cells of the row and these beside them.
RESULTS = "results.jsonl"
LABEL, SCORE, SCORES = "predicted_label", "predicted_score", "predicted_scores"

Side = Literal["left", "right"]  # at which a text that is too long is cut
Function = Literal["softmax", "sigmoid", "none"]  # from logits to scores

ModelName = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=NO_NUL)]


class TextsSpec(Frozen):
    """A file (`.csv`, `.tsv`, `.xlsx`, `.jsonl`, `.parquet`) and the column to read."""

    source: Source
    text_column: Column = "text"


class PlaceSpec(Frozen):
    """Where it is computed. This version computes on the CPU, whatever device it was given."""

    device: str = Field(default="cpu", pattern=DEVICE)
    threads: Int | None = Field(default=None, ge=1, le=1024)  # None: set when the run first starts


class PredictSpec(Frozen):
    """Every row of a file, answered by one model.

    `model` is the directory of an artifact. A service takes one of its model versions, and the name
    of an uploaded data set as `data.source`.
    """

    spec_version: Literal[1] = 1  # raised when the meaning of a field changes
    model: ModelName
    data: TextsSpec
    runtime: PlaceSpec = PlaceSpec()


class Score(Frozen):
    """A label and its probability."""

    label: str
    score: float


class Answer(Frozen):
    """All labels of one text, highest first."""

    text: str
    labels: list[Score]
