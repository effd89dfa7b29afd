"""The interface of a task: everything that depends on what a model predicts. Needs no torch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.manifest import MANIFEST_FILE
from lora_core.specs.encoded_labels import unqualified_outputs_of_target
from lora_core.specs.fields import Float, FrozenModel
from lora_core.specs.method import NUM_FOLDS
from lora_core.specs.predict import ScoreFunction
from lora_core.specs.task import (
    MultiLabelSpec,
    RegressionSpec,
    SeveralTargetsSpec,
    TaskSpec,
    TaskType,
)
from lora_core.tasks.mispredictions import Misprediction
from lora_core.tasks.primary_metric import Predictions, PrimaryMetric
from lora_core.tasks.targets import Target, Targets

Logits = NDArray[np.floating[Any]]  # (texts, outputs), as the head computes them
Numbers = Annotated[tuple[Float, ...], Field(exclude_if=lambda value: not value)]  # one per output


class Calibration(FrozenModel):
    """What turns the logits z of a model into scores.

    Single-label: softmax(z / temperature). With thresholds, the label with the highest probability
    / threshold is predicted; they add up to 1, so that of two labels one is predicted if its
    probability is above its threshold. Multi-label: sigmoid(scale z + offset), for each label.
    Regression: scale z + offset.
    """

    temperature: Float | None = Field(default=None, exclude_if=lambda value: value is None)
    fitted: bool = True  # on validation; false if it has too few texts
    scale: Numbers = ()
    offset: Numbers = ()
    # Multi-label: a label is predicted if its score is at least its threshold.
    thresholds: Numbers = ()
    # Regression: 90% of numbers like those of validation are at most this far from the prediction.
    # None: validation has too few texts.
    half_width: Float | None = Field(default=None, exclude_if=lambda value: value is None)
    # Several targets: that of each.
    targets: dict[str, "Calibration"] = Field(default={}, exclude_if=lambda value: not value)

    def of_target(self, name: str) -> "Calibration":
        """Return the calibration of one of several targets."""
        return self.targets.get(name, UNCALIBRATED)


UNCALIBRATED = Calibration()
_TASK_SPEC: TypeAdapter[TaskSpec] = TypeAdapter(TaskSpec)


def parse_task_spec_and_calibration(
    manifest: Mapping[str, Any], labels: Sequence[str]
) -> tuple[TaskSpec, Calibration]:
    """Return the task and the calibration in the manifest of a model with these labels.

    Older manifests have no task, and no temperature. Raises `ArtifactCorrupt`.
    """
    try:
        spec = _TASK_SPEC.validate_python(manifest["spec"].get("task", {}))
        calibration = Calibration.model_validate(manifest.get("calibration", {}))
    except ValidationError as error:
        problem = f"its task or calibration is invalid ({error.errors()[0]['msg']})"
        raise ArtifactCorrupt(path=MANIFEST_FILE, problem=problem) from error
    if not _fits(spec, calibration, labels):
        raise ArtifactCorrupt(
            path=MANIFEST_FILE, problem="its calibration does not fit its outputs"
        )
    return spec, calibration


def _fits(spec: TaskSpec, calibration: Calibration, labels: Sequence[str]) -> bool:
    if isinstance(spec, SeveralTargetsSpec):
        outputs = {name: unqualified_outputs_of_target(name, labels) for name in spec.targets}
        return sum(map(len, outputs.values())) == len(labels) and all(
            outputs[name] and _fits(target, calibration.of_target(name), outputs[name])
            for name, target in spec.targets.items()
        )
    sizes = {len(calibration.scale), len(calibration.offset)}
    if isinstance(spec, MultiLabelSpec):
        sizes |= {len(calibration.thresholds), len(labels)}
    elif isinstance(spec, RegressionSpec):
        sizes |= {1, len(labels)}
        if any(scale <= 0 for scale in calibration.scale):
            return False
    elif calibration.thresholds:
        sizes = {len(calibration.thresholds), len(labels)}
    return len(sizes) == 1


class Task(ABC):
    """What a model predicts, how good a prediction is, and how certain.

    The targets of several texts are an array: (texts,) int64 indices of labels, (texts, labels)
    float32 of 0 and 1, (texts,) float32 numbers, or (texts, columns) of several targets.
    """

    type: ClassVar[TaskType]  # as in specs
    problem_type: ClassVar[str | None]  # as in the config of transformers
    score_function: ClassVar[ScoreFunction]  # from calibrated logits to scores
    curve_metrics: ClassVar[tuple[str, ...]]  # the metrics of a report that are logged in training
    metric: PrimaryMetric  # that models are compared by
    has_thresholds: bool = False  # whether predictions depend on a calibration

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)  # the names of the outputs
        self.tasks: Mapping[str, Task] = {}  # those of several targets

    @property
    def num_target_columns(self) -> int:
        """The columns of its targets in an array of several targets."""
        return 1

    @abstractmethod
    def scale_and_offset(
        self, calibration: Calibration
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return scale and offset (outputs,) of the logits, which calibrate them."""

    def calibrated_logits(self, logits: Logits, calibration: Calibration) -> NDArray[np.float64]:
        """Return calibrated logits (texts, outputs); of a regression, numbers."""
        scale, offset = self.scale_and_offset(calibration)
        calibrated: NDArray[np.float64] = scale * np.asarray(logits, np.float64) + offset
        return calibrated

    @abstractmethod
    def targets(self, values: Sequence[Target]) -> Targets:
        """Return the targets of texts as an array."""

    @abstractmethod
    def calibrate(self, logits: Logits, targets: Targets) -> Calibration:
        """Fit the calibration on validation. Raises `NonFiniteLogits`."""

    @abstractmethod
    def predict(self, logits: Logits, calibration: Calibration | None = None) -> Predictions:
        """Return what is predicted for each text, in the form of its target."""

    def predict_cross_fitted(self, logits: Logits, targets: Targets) -> Predictions:
        """Return predictions where there are no other texts to fit thresholds on.

        Those of each fifth of the texts are fitted on the other four fifths.
        """
        if not self.has_thresholds:
            return self.predict(logits)
        fifth = np.arange(len(logits)) % NUM_FOLDS
        predicted = np.empty_like(self.predict(logits))
        for held_out in (fifth == i for i in range(NUM_FOLDS)):
            calibration = self.calibrate(logits[~held_out], targets[~held_out])
            predicted[held_out] = self.predict(logits[held_out], calibration)
        return predicted

    def restandardize_logits_from(self, logits: Logits, of: "Task") -> Logits:  # noqa: ARG002 - only numbers differ
        """Return logits of the same task on other training texts (`of`) as logits of this one."""
        return logits

    @abstractmethod
    def strata(self, targets: Targets) -> NDArray[np.int64]:
        """Return the stratum (texts,) of each text, to draw from all of them alike."""

    @abstractmethod
    def prediction_to_target(self, prediction: Any) -> Target:
        """Return one of the predictions of `predict` as a target, in types of Python."""

    @abstractmethod
    def target_to_label(self, target: Target) -> str:
        """Return the label that a row with this target has."""

    @abstractmethod
    def mispredictions(
        self, logits: Logits, targets: Targets, calibration: Calibration
    ) -> list[Misprediction]:
        """Return all mispredicted texts, the most confident errors first."""

    @abstractmethod
    def best_constant_prediction(self, targets: Targets) -> tuple[Predictions, str]:
        """Return the best prediction for texts that are not read, by the `metric`, and its name.

        It is (1,) or (1, labels). `targets` are those of the training texts.
        """

    @abstractmethod
    def report(
        self, logits: Logits, targets: Targets, calibration: Calibration | None = None
    ) -> dict[str, Any]:
        """Return all metrics of these predictions; without a `calibration`, with one of their own.

        Metrics are NaN or infinite if logits are.
        """

    @abstractmethod
    def evaluate_calibration(
        self, logits: Logits, targets: Targets, calibration: Calibration
    ) -> dict[str, Any]:
        """Return `texts`, and metrics of the scores `before` and `after` calibration.

        A regression has the `coverage` of its interval instead, if it has one, and several targets
        have `targets`, with the comparison of each. Raises `NonFiniteLogits`.
        """

    def compute_logged_metrics(self, logits: Logits, targets: Targets) -> dict[str, float]:
        """Return the `curve_metrics`, without class weights."""
        return self.select_logged_metrics(self.report(logits, targets))

    def select_logged_metrics(self, report: Mapping[str, Any]) -> dict[str, float]:
        """Return the metrics of a report that are logged in training."""
        return {name: report[name] for name in self.curve_metrics}
