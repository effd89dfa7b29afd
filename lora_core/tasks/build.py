"""The task of a spec."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lora_core.data.targets import Target
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.manifest import MANIFEST
from lora_core.specs.task import MultiLabelSpec, RegressionSpec, SingleLabelSpec, TaskSpec
from lora_core.tasks.base import Calibration, Task
from lora_core.tasks.multi_label import MultiLabel
from lora_core.tasks.regression import Regression
from lora_core.tasks.single_label import SingleLabel


def build_task(spec: TaskSpec, labels: Sequence[str], training_targets: Sequence[Target]) -> Task:
    """Return the task of a run on these labels and training texts."""
    match spec:
        case SingleLabelSpec():
            return SingleLabel(labels, ordered=spec.ordered)
        case MultiLabelSpec():
            return MultiLabel(labels)
        case RegressionSpec():
            return Regression.of_training_targets(training_targets)


_TASK_SPEC: TypeAdapter[TaskSpec] = TypeAdapter(TaskSpec)


def read_task(manifest: Mapping[str, Any], labels: Sequence[str]) -> tuple[Task, Calibration]:
    """Return the task and the calibration of a model with these labels, from its manifest.

    Older manifests have no task, and no temperature. Raises `ArtifactCorrupt`.
    """
    try:
        spec = _TASK_SPEC.validate_python(manifest["spec"].get("task", {}))
        calibration = Calibration.model_validate(manifest.get("calibration", {}))
    except ValidationError as error:
        problem = f"its task or calibration is invalid ({error.errors()[0]['msg']})"
        raise ArtifactCorrupt(path=MANIFEST, problem=problem) from error
    if isinstance(spec, RegressionSpec):
        if not (len(calibration.scale) == len(calibration.offset) == 1 == len(labels)):
            raise ArtifactCorrupt(path=MANIFEST, problem="its regression has no scale or offset")
        return Regression(calibration.offset[0], calibration.scale[0]), calibration
    task = build_task(spec, labels, ())
    sizes = {len(calibration.scale), len(calibration.offset), len(calibration.thresholds)}
    if isinstance(spec, MultiLabelSpec) and sizes != {len(labels)}:
        raise ArtifactCorrupt(path=MANIFEST, problem="its calibration does not fit its labels")
    return task, calibration
