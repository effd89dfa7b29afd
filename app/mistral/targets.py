"""The targets of a file, and those of them that a job trains."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from app.datasets.schemas import UploadFields
from app.datasets.tables import Dataset
from app.fine_tuning_apis.events import build_warning_event
from app.mistral.errors import (
    LossFunctionNotApplicable,
    RegressionFileNotSupported,
    TargetWeightNotApplicable,
    TooFewClassifierTargets,
    UnknownClassifierTarget,
    UnlistedLabel,
)
from app.mistral.schemas import LossFunction, MistralTrainingTarget
from app.queue.events import EventContent
from lora_core.data.label_readers import build_targets_spec
from lora_core.errors.data import DataTooLarge
from lora_core.specs.encoded_labels import unqualified_outputs_of_target
from lora_core.specs.task import (
    MAX_TARGET_CHARACTERS,
    MAX_TARGETS,
    SeveralTargetsSpec,
    TaskType,
)

_LOSSES: dict[TaskType, LossFunction] = {
    "single_label": "single_class",
    "multi_label": "multi_class",
}
_LABELS_OF_LOSS = {
    "single_class": "has one label in each line",
    "multi_class": "has lists of labels",
}


class FileTarget(NamedTuple):
    """A target of a file. Clients know it by `name`, the column of its labels."""

    name: str
    key: str | None  # its name among several targets
    loss_function: LossFunction
    labels: tuple[str, ...]


class JobTargets(NamedTuple):
    """The targets of a job."""

    task: SeveralTargetsSpec | None  # None: the task of the file, which has one target
    described: list[dict[str, Any]]  # as the API describes them
    warnings: list[EventContent]


def to_upload_fields(tasks: Mapping[str, TaskType], *, file: str) -> UploadFields:
    """Return how to store a file that has labels of these names. Raises `DataTooLarge`."""
    if len(tasks) == 1:
        ((name, task),) = tasks.items()
        return UploadFields(task=task, label_column=name)
    if len(tasks) > MAX_TARGETS:
        raise DataTooLarge(file=file, what="the number of targets", limit=str(MAX_TARGETS))
    targets: dict[str, Any] = {}
    for name, task in tasks.items():
        targets[_new_key(name, targets)] = {"type": task, "column": name}
    return UploadFields(targets=json.dumps(targets, ensure_ascii=False))


def _new_key(name: str, taken: Mapping[str, Any]) -> str:
    """Return a name for one of several targets: `Topic (new)` → `topic_new`."""
    words = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    key = (words if words[:1].isalpha() else f"target_{words}")[:MAX_TARGET_CHARACTERS].strip("_")
    number = 2
    while key in taken:
        end = f"_{number}"
        key = key[: MAX_TARGET_CHARACTERS - len(end)].removesuffix(f"_{number - 1}") + end
        number += 1
    return key


def file_targets(dataset: Dataset) -> list[FileTarget]:
    """Return the targets that a file was checked with. Raises `RegressionFileNotSupported`."""
    label_format, labels = dataset.label_format, tuple(dataset.profile["labels"])
    if not label_format.targets:
        loss = _loss_function(dataset, label_format.task)
        return [FileTarget(dataset.label_column or "label", None, loss, labels)]
    return [
        FileTarget(
            name=key if each.columns is not None else columns[0],
            key=key,
            loss_function=_loss_function(dataset, each.task),
            labels=unqualified_outputs_of_target(key, labels),
        )
        for key, columns, each in label_format.targets
    ]


def _loss_function(dataset: Dataset, task: TaskType) -> LossFunction:
    if task not in _LOSSES:
        raise RegressionFileNotSupported(file=dataset.filename)
    return _LOSSES[task]


def select_classifier_targets(
    dataset: Dataset, asked: Sequence[MistralTrainingTarget] | None
) -> JobTargets:
    """Return the targets to train: those that were asked for, or all of the file.

    Raises `UnknownClassifierTarget`, `LossFunctionNotApplicable`, `UnlistedLabel`,
    `TooFewClassifierTargets`, `TargetWeightNotApplicable`, `RegressionFileNotSupported`.
    """
    available = {target.name: target for target in file_targets(dataset)}
    if asked is None:
        chosen = [(target, 1.0) for target in available.values()]
    else:
        chosen = [
            (_checked_target(dataset, available, each, at=f"classifier_targets.{i}"), each.weight)
            for i, each in enumerate(asked)
        ]
    described = [
        {
            "name": target.name,
            "labels": list(target.labels),
            "weight": weight,
            "loss_function": target.loss_function,
        }
        for target, weight in chosen
    ]
    warnings = [
        build_warning_event("label_without_texts", f"{each.name}: no text has the label {label!r}.")
        for each, (target, _) in zip(asked or (), chosen, strict=asked is not None)
        for label in sorted(set(each.labels).difference(target.labels))
    ]
    return JobTargets(_task(dataset, chosen, len(available)), described, warnings)


def check_validation_targets(dataset: Dataset, chosen: JobTargets, *, at: str) -> None:
    """Raise `UnknownClassifierTarget` if a validation file lacks a target of the job."""
    available = {target.name for target in file_targets(dataset)}
    for target in chosen.described:
        if target["name"] not in available:
            raise _unknown(dataset, available, target["name"], at=at)


def _task(
    dataset: Dataset, chosen: Sequence[tuple[FileTarget, float]], available: int
) -> SeveralTargetsSpec | None:
    if len(chosen) == 1:
        ((target, weight),) = chosen
        if available > 1:
            names = ", ".join(each.name for each in file_targets(dataset))
            raise TooFewClassifierTargets(
                file=dataset.filename, available=names, target=target.name, at="classifier_targets"
            )
        if weight != 1:
            raise TargetWeightNotApplicable(target=target.name, at="classifier_targets.0.weight")
        return None
    described = build_targets_spec(dataset.label_format.targets)
    targets = {
        str(target.key): {**described[str(target.key)], "weight": weight}
        for target, weight in chosen
    }
    return SeveralTargetsSpec.model_validate({"targets": targets})


def _checked_target(
    dataset: Dataset, available: Mapping[str, FileTarget], asked: MistralTrainingTarget, *, at: str
) -> FileTarget:
    """Return the target of the file that was asked for."""
    target = available.get(asked.name)
    if target is None:
        raise _unknown(dataset, available, asked.name, at=f"{at}.name")
    if asked.loss_function not in (None, target.loss_function):
        raise LossFunctionNotApplicable(
            target=target.name,
            file=dataset.filename,
            labels=_LABELS_OF_LOSS[target.loss_function],
            fitting=target.loss_function,
            at=f"{at}.loss_function",
        )
    listed = set(asked.labels)
    if unlisted := next((label for label in target.labels if label not in listed), None):
        raise UnlistedLabel(
            file=dataset.filename, label=unlisted, target=target.name, at=f"{at}.labels"
        )
    return target


def _unknown(
    dataset: Dataset, available: Mapping[str, FileTarget] | set[str], target: str, *, at: str
) -> UnknownClassifierTarget:
    names = ", ".join(sorted(available))
    return UnknownClassifierTarget(file=dataset.filename, target=target, available=names, at=at)
