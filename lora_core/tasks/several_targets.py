"""Several targets: one model predicts a label, labels or a number for each of them.

The outputs of the targets are side by side, in the order of their names, and so are the columns of
an array of targets or predictions: an index, a 0 or 1 for each label, or a number.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_core.specs.encoded_labels import decode_label_set, encode_targets, qualified_output_name
from lora_core.tasks.base import Calibration, Logits, Task
from lora_core.tasks.mispredictions import Misprediction
from lora_core.tasks.primary_metric import Floats, MeanSkill, Predictions, PrimaryMetric
from lora_core.tasks.targets import Target, Targets


class SeveralTargets(Task):
    """Targets by name, each a task of its own. `weights` are those of their losses in the sum."""

    type = "several_targets"
    problem_type = None  # transformers has none for it
    score_function = "none"
    curve_metrics = ("loss", "skill")

    def __init__(self, tasks: Mapping[str, Task], weights: Mapping[str, float]) -> None:
        super().__init__(
            [
                qualified_output_name(name, output)
                for name, task in tasks.items()
                for output in task.labels
            ]
        )
        self.tasks, self.weights = dict(tasks), dict(weights)
        self.outputs = _slices({name: len(task.labels) for name, task in tasks.items()})
        self.columns_of = _slices({name: task.num_target_columns for name, task in tasks.items()})
        self.has_thresholds = any(task.has_thresholds for task in tasks.values())
        self.metric = SkillOfTargets(self)

    @property
    def num_target_columns(self) -> int:
        return sum(task.num_target_columns for task in self.tasks.values())

    def values_of(self, values: NDArray[Any], target: str) -> NDArray[Any]:
        """Return the targets or predictions of one target, in the form of its task."""
        of_target = values[:, self.columns_of[target]]
        match self.tasks[target].type:
            case "single_label":
                return of_target[:, 0].astype(np.int64)
            case "regression":
                return of_target[:, 0]
            case _:
                return of_target > 0 if of_target.dtype == np.float64 else of_target

    def scale_and_offset(
        self, calibration: Calibration
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        each = [
            task.scale_and_offset(calibration.of_target(name)) for name, task in self.tasks.items()
        ]
        scales, offsets = zip(*each, strict=True)
        return np.concatenate(scales), np.concatenate(offsets)

    def targets(self, values: Sequence[Target]) -> NDArray[np.float32]:
        """Return the targets of texts as an array (texts, columns)."""
        columns = {
            name: task.targets([value[name] for value in values])
            for name, task in self.tasks.items()
        }
        return self._side_by_side(columns, np.float32)

    def calibrate(self, logits: Logits, targets: Targets) -> Calibration:
        """Fit the calibration of each target."""
        fitted = {
            name: task.calibrate(z, truth) for name, task, z, truth in self._each(logits, targets)
        }
        return Calibration(fitted=all(each.fitted for each in fitted.values()), targets=fitted)

    def predict(
        self, logits: Logits, calibration: Calibration | None = None
    ) -> NDArray[np.float64]:
        """Return what is predicted for each target, as (texts, columns)."""
        columns = {
            name: task.predict(
                logits[:, self.outputs[name]], calibration and calibration.of_target(name)
            )
            for name, task in self.tasks.items()
        }
        return self._side_by_side(columns, np.float64)

    def restandardize_logits_from(self, logits: Logits, of: Task) -> Logits:
        if not isinstance(of, SeveralTargets):
            raise TypeError(f"{of.type} has other outputs")
        return np.concatenate(
            [
                task.restandardize_logits_from(logits[:, self.outputs[name]], of.tasks[name])
                for name, task in self.tasks.items()
            ],
            axis=1,
        )

    def strata(self, targets: Targets) -> NDArray[np.int64]:
        """Return the stratum of each text in the target in which that has the fewest texts."""
        rarest, offset = np.zeros(len(targets), np.int64), 0
        fewest = np.full(len(targets), len(targets) + 1)
        for name, task in self.tasks.items():
            strata = task.strata(self.values_of(targets, name))
            counts = np.bincount(strata)
            rarest = np.where(counts[strata] < fewest, offset + strata, rarest)
            fewest = np.minimum(fewest, counts[strata])
            offset += len(counts)
        return rarest

    def prediction_to_target(self, prediction: Any) -> dict[str, Target]:
        row = np.asarray(prediction)[None]
        return {
            name: task.prediction_to_target(self.values_of(row, name)[0])
            for name, task in self.tasks.items()
        }

    def target_to_label(self, target: Target) -> str:
        labels: dict[str, str | float | tuple[str, ...]] = {}
        for name, task in self.tasks.items():
            label = task.target_to_label(target[name])
            match task.type:
                case "regression":
                    labels[name] = float(label)
                case "multi_label":
                    labels[name] = decode_label_set(label)
                case _:
                    labels[name] = label
        return encode_targets(labels)

    def mispredictions(
        self, logits: Logits, targets: Targets, calibration: Calibration
    ) -> list[Misprediction]:
        """Return the mispredictions of all targets, interleaved."""
        found = [
            [
                each._replace(target=name)
                for each in task.mispredictions(z, truth, calibration.of_target(name))
            ]
            for name, task, z, truth in self._each(logits, targets)
        ]
        return [each for each in chain(*zip_longest(*found)) if each is not None]

    def best_constant_prediction(self, targets: Targets) -> tuple[NDArray[np.float64], str]:
        """Return the best constant of each target."""
        constants, names = {}, []
        for name, task in self.tasks.items():
            constants[name], label = task.best_constant_prediction(self.values_of(targets, name))
            names.append(f"{name}: {label}")
        return self._side_by_side(constants, np.float64), ", ".join(names)

    def report(
        self, logits: Logits, targets: Targets, calibration: Calibration | None = None
    ) -> dict[str, Any]:
        """Return the weighted sum of the losses, the mean `skill`, and the report of each target.

        The skill of a target is the share of the error of its best constant prediction that the
        model avoids: 1 is perfect, 0 is no better than the constant (see `MeanSkill`).
        """
        finite = bool(np.isfinite(logits).all())
        if calibration is None and finite and self.has_thresholds:
            calibration = self.calibrate(logits, targets)
        reports = {
            name: task.report(z, truth, calibration and calibration.of_target(name))
            for name, task, z, truth in self._each(logits, targets)
        }
        skill = np.nan
        if finite:
            predicted = self.predict(logits, calibration)
            skill = self.metric.value(self.metric.per_text_statistics(targets, predicted))
        return {
            "loss": sum(self.weights[name] * report["loss"] for name, report in reports.items()),
            "skill": skill,
            "targets": reports,
        }

    def select_logged_metrics(self, report: Mapping[str, Any]) -> dict[str, float]:
        """Return loss and skill, and of each target the metric that it is compared by."""
        of_targets = {
            qualified_output_name(name, task.metric.name): report["targets"][name][task.metric.name]
            for name, task in self.tasks.items()
        }
        return super().select_logged_metrics(report) | of_targets

    def evaluate_calibration(
        self, logits: Logits, targets: Targets, calibration: Calibration
    ) -> dict[str, Any]:
        """Return the comparison of each target."""
        compared = {
            name: task.evaluate_calibration(z, truth, calibration.of_target(name))
            for name, task, z, truth in self._each(logits, targets)
        }
        return {"texts": len(targets), "targets": compared}

    def _each(
        self, logits: Logits, targets: Targets
    ) -> Iterator[tuple[str, Task, Logits, Targets]]:
        """Yield the name, the task, the logits and the targets of each target."""
        for name, task in self.tasks.items():
            yield name, task, logits[:, self.outputs[name]], self.values_of(targets, name)

    def _side_by_side(self, columns: Mapping[str, NDArray[Any]], dtype: Any) -> NDArray[Any]:
        arrays = [
            columns[name].reshape(-1, task.num_target_columns) for name, task in self.tasks.items()
        ]
        return np.concatenate(arrays, axis=1, dtype=dtype)


def _slices(sizes: Mapping[str, int]) -> dict[str, slice]:
    ends = accumulate(sizes.values())
    return {
        name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)
    }


class SkillOfTargets(MeanSkill, PrimaryMetric):
    """The mean skill of predictions (texts, columns)."""

    def __init__(self, task: SeveralTargets) -> None:
        metrics = [
            (each.metric, each.metric.width(each.num_target_columns))
            for each in task.tasks.values()
        ]
        super().__init__(metrics)
        self._task = task

    def per_text_statistics(self, truth: Predictions, predicted: Predictions) -> Floats:
        found, constants = [], []
        for name, each in self._task.tasks.items():
            true = self._task.values_of(truth, name)
            answers = self._task.values_of(predicted, name)
            found.append(each.metric.per_text_statistics(true, answers))
            constants.append(best_constant_error(each, true))
        return self.join(found, constants)


def best_constant_error(task: Task, truth: Predictions) -> float:
    """Return the error of the best constant prediction for these texts, as its metric has it."""
    constant, _ = task.best_constant_prediction(truth)
    always = np.repeat(constant, len(truth), axis=0)
    return float(
        task.metric.error_from_means(task.metric.per_text_statistics(truth, always).mean(axis=0))
    )
