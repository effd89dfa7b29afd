"""The task of a spec."""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_core.specs.task import MultiLabelSpec, RegressionSpec, SingleLabelSpec, TaskSpec
from lora_core.tasks.base import Calibration, Task, read_calibration
from lora_core.tasks.multi_label import MultiLabel
from lora_core.tasks.regression import Regression
from lora_core.tasks.single_label import SingleLabel
from lora_core.tasks.targets import Target


def build_task(spec: TaskSpec, labels: Sequence[str], training_targets: Sequence[Target]) -> Task:
    """Return the task of a run on these labels and training texts."""
    match spec:
        case SingleLabelSpec():
            return SingleLabel(labels, ordered=spec.ordered, tune_thresholds=spec.tune_thresholds)
        case MultiLabelSpec():
            return MultiLabel(labels)
        case RegressionSpec():
            return Regression.of_training_targets(training_targets)


def read_task(manifest: Mapping[str, Any], labels: Sequence[str]) -> tuple[Task, Calibration]:
    """Return the task and the calibration of a model with these labels, from its manifest.

    Raises `ArtifactCorrupt`.
    """
    spec, calibration = read_calibration(manifest, labels)
    if isinstance(spec, RegressionSpec):
        return Regression(calibration.offset[0], calibration.scale[0]), calibration
    return build_task(spec, labels, ()), calibration
