"""The task of a spec."""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_core.specs.encoded_labels import unqualified_outputs_of_target
from lora_core.specs.task import (
    MultiLabelSpec,
    RegressionSpec,
    SeveralTargetsSpec,
    SingleLabelSpec,
    TaskSpec,
)
from lora_core.tasks.base import Calibration, Task, parse_task_spec_and_calibration
from lora_core.tasks.multi_label import MultiLabel
from lora_core.tasks.regression import Regression
from lora_core.tasks.several_targets import SeveralTargets
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
        case SeveralTargetsSpec():
            tasks = {
                name: build_task(
                    target,
                    unqualified_outputs_of_target(name, labels),
                    [each[name] for each in training_targets],
                )
                for name, target in spec.targets.items()
            }
            return SeveralTargets(tasks, _weights(spec))


def restore_task_and_calibration(
    manifest: Mapping[str, Any], labels: Sequence[str]
) -> tuple[Task, Calibration]:
    """Return the task and the calibration of a model with these labels, from its manifest.

    Raises `ArtifactCorrupt`.
    """
    spec, calibration = parse_task_spec_and_calibration(manifest, labels)
    return _restore(spec, labels, calibration), calibration


def _restore(spec: TaskSpec, labels: Sequence[str], calibration: Calibration) -> Task:
    match spec:
        case RegressionSpec():
            return Regression(calibration.offset[0], calibration.scale[0])
        case SeveralTargetsSpec():
            tasks = {
                name: _restore(
                    target, unqualified_outputs_of_target(name, labels), calibration.of_target(name)
                )
                for name, target in spec.targets.items()
            }
            return SeveralTargets(tasks, _weights(spec))
        case _:
            return build_task(spec, labels, ())


def _weights(spec: SeveralTargetsSpec) -> dict[str, float]:
    return {name: target.weight for name, target in spec.targets.items()}
