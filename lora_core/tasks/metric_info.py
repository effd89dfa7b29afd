"""The metrics of a report: how people read them, which way is better, and which a task has.

Needs no NumPy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lora_core.specs.encoded_labels import TARGET_SEPARATOR
from lora_core.specs.task import SingleLabelSpec


@dataclass(frozen=True)
class MetricInfo:
    """A metric of a report."""

    label: str
    short: str  # for the header of a column
    is_share: bool = False  # from 0 to 1, shown in percent
    lower_is_better: bool = False

    def sign(self) -> int:
        """Return 1, or -1 if lower is better: the sign times the value is a score."""
        return -1 if self.lower_is_better else 1


class _Metrics(dict[str, MetricInfo]):
    """Metrics by name. `topic/accuracy` is the accuracy of the target `topic`."""

    def __missing__(self, name: str) -> MetricInfo:
        target, _, metric = name.rpartition(TARGET_SEPARATOR)
        if not target:
            raise KeyError(name)
        found = self[metric]
        label, short = f"{found.label} of {target}", f"{target} {found.short}"
        return replace(found, label=label, short=short)


METRICS: Mapping[str, MetricInfo] = _Metrics({
    "accuracy": MetricInfo("accuracy", "acc", is_share=True),
    "macro_f1": MetricInfo("macro F1", "F1", is_share=True),
    "micro_f1": MetricInfo("micro F1", "micro F1", is_share=True),
    "map": MetricInfo("mean average precision", "mAP", is_share=True),
    "balanced_accuracy": MetricInfo("balanced accuracy", "balanced acc", is_share=True),
    "hamming_loss": MetricInfo("Hamming loss", "Hamming", is_share=True, lower_is_better=True),
    "skill": MetricInfo("mean skill", "skill", is_share=True),
    "rmse": MetricInfo("RMSE", "RMSE", lower_is_better=True),
    "kappa": MetricInfo("quadratic kappa", "kappa"),
    "mae": MetricInfo("mean absolute error", "MAE", lower_is_better=True),
    "r2": MetricInfo("R²", "R²"),
    "spearman": MetricInfo("Spearman correlation", "Spearman"),
    "loss": MetricInfo("loss", "loss", lower_is_better=True),
})  # fmt: skip
_TASK_METRICS: Mapping[str, tuple[str, ...]] = {
    "single_label": ("accuracy", "macro_f1", "balanced_accuracy", "loss"),
    "multi_label": ("macro_f1", "micro_f1", "map", "accuracy", "hamming_loss", "loss"),
    "regression": ("rmse", "mae", "r2", "spearman", "loss"),
    "several_targets": ("skill", "loss"),
}


def task_type_of_spec(spec: Mapping[str, Any]) -> str:
    """Return the type of the task of a run's spec in JSON, `single_label` if it says none."""
    found = spec.get("task", {}).get("type")
    return found if found in _TASK_METRICS else SingleLabelSpec().type


def metric_names_of_spec(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the metrics of a run with this spec in JSON. It is compared by the first one."""
    names = _TASK_METRICS[task_type_of_spec(spec)]
    return (*names[:-1], "kappa", "mae", "loss") if spec.get("task", {}).get("ordered") else names


def main_metric(spec: Mapping[str, Any]) -> str:
    """Return the metric that a run with this spec in JSON is compared by."""
    return metric_names_of_spec(spec)[0]


def metric_names_of_summary(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the metrics of the reports in a run's summary. It is compared by the first one.

    Summaries have no spec; their reports tell the tasks apart.
    """
    reports = [summary.get(split) or {} for split in ("test", "validation", "train")]
    report: Mapping[str, Any] = next(filter(None, reports), {})
    by_task = {"rmse": "regression", "micro_f1": "multi_label", "skill": "several_targets"}
    task = next((task for name, task in by_task.items() if name in report), "single_label")
    return metric_names_of_spec({"task": {"type": task, "ordered": "kappa" in report}})
