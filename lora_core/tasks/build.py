"""The task of a spec."""

from collections.abc import Sequence

from lora_core.data.targets import Target
from lora_core.specs.task import MultiLabelSpec, RegressionSpec, SingleLabelSpec, TaskSpec
from lora_core.tasks.base import Task
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
