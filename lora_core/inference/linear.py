"""Predictors of linear models. Needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from lora_core import manifest
from lora_core.data.rows import MAX_CELL_CHARACTERS
from lora_core.inference.decoding import DecodedOutput, decode_label_scores, decode_outputs
from lora_core.linear import files
from lora_core.linear.model import (
    AttributionTarget,
    LinearModel,
    RegressionAttributionTarget,
    SigmoidAttributionTarget,
    SoftmaxAttributionTarget,
    TextSpan,
)
from lora_core.specs.chat import PromptFormat
from lora_core.specs.predict import ScoreFunction, TruncationSide
from lora_core.specs.text_input import TextInput, check_inputs, texts_of_input
from lora_core.tasks.base import UNCALIBRATED, Calibration, Task
from lora_core.tasks.build import restore_task_and_calibration
from lora_core.tasks.multi_label import MultiLabel
from lora_core.tasks.several_targets import SeveralTargets
from lora_core.tasks.single_label import SingleLabel


class LinearInput(NamedTuple):
    """A text or a pair as it was sent: a linear model reads all of it."""

    text: TextInput

    @property
    def length(self) -> int:
        """Approximate number of words, as a measure of cost."""
        return sum(side.count(" ") + 1 for side in texts_of_input(self.text))

    @property
    def truncated(self) -> bool:
        return False


class LinearEngine(NamedTuple):
    """The engine of all linear models: scikit-learn, in float64."""

    name: str = "linear-fp64"
    nbytes: int = 0
    max_batch_tokens: int = MAX_CELL_CHARACTERS


LINEAR_ENGINE = LinearEngine()


@dataclass(frozen=True, eq=False)
class LinearPredictor:
    """A linear version that is ready to predict, used like a `Predictor`."""

    model: LinearModel
    task: Task
    calibration: Calibration = UNCALIBRATED
    max_length: int = MAX_CELL_CHARACTERS  # no limit of its own: that of a cell in a file
    engine_speeds: Mapping[str, float] = field(default_factory=dict)  # empty: there is one engine
    prompt_format: PromptFormat | None = None  # of the examples in chat form it was trained on
    # that each of several targets was read from; of one task, under None
    label_columns: Mapping[str | None, str] = field(default_factory=lambda: {None: "label"})

    @classmethod
    def load(cls, directory: Path) -> "LinearPredictor":
        """Load an artifact directory, checking the digest of every file that is read.

        Raises `ArtifactCorrupt`, `InvalidImportedModel`.
        """
        manifest_data = manifest.verify(directory, only=(*files.MODEL_FILES, "golden.json"))
        labels = manifest_data["labels"]
        task, calibration = restore_task_and_calibration(manifest_data, labels)
        outputs = len(task.labels)
        rows = files.count_weight_rows(outputs, single_label=isinstance(task, SingleLabel))
        model = LinearModel(files.read_parameters(directory, rows), outputs=outputs)
        return cls(
            model,
            task,
            calibration,
            prompt_format=manifest.prompt_format(manifest_data),
            label_columns=manifest.label_columns(manifest_data),
        )

    @property
    def labels(self) -> Sequence[str]:
        """The names of the outputs."""
        return self.task.labels

    @property
    def engine(self) -> LinearEngine:
        return LINEAR_ENGINE

    @property
    def pairs(self) -> bool:
        """Whether the model reads pairs of texts."""
        return self.model.pairs

    @property
    def adapter(self) -> LinearModel:
        """What the version adds to the engine: the whole model."""
        return self.model

    def encode(
        self,
        texts: Sequence[TextInput],
        *,
        truncate: bool = True,  # noqa: ARG002 - no text is too long
        side: TruncationSide = "right",  # noqa: ARG002
    ) -> list[LinearInput]:
        """Wrap texts as inputs of `forward`.

        Raises `TextPairRequired`, `TextPairUnsupported`, `EmptyInput`.
        """
        check_inputs(texts, pairs=self.pairs)
        return [LinearInput(text) for text in texts]

    def forward(self, items: Sequence[LinearInput]) -> NDArray[np.float64]:
        """Return logits (items, labels), in the order given."""
        return self.model.logits([item.text for item in items])

    def states(self, items: Sequence[LinearInput]) -> csr_matrix:
        """Return the TF-IDF (items, width) of at least one text."""
        return self.model.features([item.text for item in items])

    def decode_label_scores(
        self, logits: Any, function: ScoreFunction | None = None
    ) -> list[list[tuple[str, float]]]:
        """Return all outputs with their scores, the best first; see `decode_label_scores`."""
        return decode_label_scores(logits, self.task, self.calibration, function)

    def decode_outputs(
        self, logits: Any, function: ScoreFunction | None = None
    ) -> list[list[DecodedOutput]]:
        """As `decode_label_scores`, with what the task predicts; see `decoding.decode_outputs`."""
        return decode_outputs(logits, self.task, self.calibration, function)

    def predict(self, texts: Sequence[TextInput]) -> list[list[tuple[str, float]]]:
        """Encode, forward and decode."""
        return self.decode_label_scores(self.forward(self.encode(texts)))

    def contributions(
        self, text: TextInput, label: str, target: str | None = None
    ) -> tuple[list[tuple[TextSpan, float]], float]:
        """Return `LinearModel.contributions` to a calibrated probability, or to a number.

        `target`: the one of several targets that has the label.
        """
        if target is not None:
            return self._of_target(target).contributions(text, label)
        index = list(self.labels).index(label)
        match self.task:
            case SingleLabel():
                score: AttributionTarget = SoftmaxAttributionTarget(
                    index, self.calibration.temperature or 1.0
                )
            case MultiLabel():
                scale, offset = self.task.scale_and_offset(self.calibration)
                score = SigmoidAttributionTarget(index, float(scale[index]), float(offset[index]))
            case _:
                scale, offset = self.task.scale_and_offset(self.calibration)
                score = RegressionAttributionTarget(float(scale[0]), float(offset[0]))
        return self.model.contributions(text, score)

    def _of_target(self, target: str) -> "LinearPredictor":
        """Return the predictor of one of several targets alone."""
        if not isinstance(self.task, SeveralTargets):
            raise TypeError(f"{self.task.type} has one target")
        parameters, outputs = self.model.parameters, self.task.outputs[target]
        parameters = replace(
            parameters, coef=parameters.coef[outputs], intercept=parameters.intercept[outputs]
        )
        task = self.task.tasks[target]
        model = LinearModel(parameters, outputs=len(task.labels))
        calibration = self.calibration.of_target(target)
        return replace(self, model=model, task=task, calibration=calibration)
