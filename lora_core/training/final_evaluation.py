"""Metrics of the final weights of a run."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_core import distributed
from lora_core.data import linear_baseline
from lora_core.data.split import Example
from lora_core.events import Evaluated, Observer, Phase, finite_or_none
from lora_core.progress_reporter import ProgressReporter
from lora_core.specs.data import Split
from lora_core.tasks.base import Calibration
from lora_core.tasks.single_label import SingleLabel
from lora_core.training import evaluate
from lora_core.training.correctness import encode_correctness
from lora_core.training.loop import TrainingResult
from lora_core.training.prepare import PreparedRun

SplitLogits = dict[Split, NDArray[np.float32]]  # each (texts, classes)


def evaluate_partial_run(
    prepared: PreparedRun, result: TrainingResult
) -> tuple[dict[str, Any], SplitLogits]:
    """Return metrics and logits of the last weights on the evaluation subset."""
    logits: SplitLogits = {Split.VALIDATION: result.validation_logits}
    return _reports(prepared, logits), logits


def evaluate_run(
    prepared: PreparedRun, result: TrainingResult, observer: Observer, progress: ProgressReporter
) -> tuple[dict[str, Any], SplitLogits]:
    """Return metrics and logits of the best weights on validation and test.

    The metrics include those of the linear model (TF-IDF + logistic regression) and of
    calibration. The temperature is fitted on validation alone, and is 1 if it has too few texts.
    """
    progress.enter_phase(Phase.LINEAR_MODEL)
    linear: dict[str, Any] = {}
    if isinstance(prepared.task, SingleLabel):
        with distributed.main_process_first():
            fitted = linear_baseline.evaluate(prepared.splits).metrics
        if prepared.cross_validated is not None:  # it was trained on the validation texts
            fitted = fitted.model_copy(update={"validation": {}})
        observer.on_event(fitted)
        linear = {"linear": fitted.model_dump(mode="json", exclude={"event"})}
    progress.enter_phase(Phase.EVALUATING)
    logits: SplitLogits = {
        Split.VALIDATION: result.validation_logits,
        Split.TEST: _logits(prepared, Split.TEST, progress),
    }
    task, targets = prepared.task, {split: prepared.tokenized[split].targets for split in Split}
    calibration = task.calibrate(result.validation_logits, targets[Split.VALIDATION])
    compared = {
        split: task.compare_calibration(rows, targets[split], calibration)
        for split, rows in logits.items()
    }
    metrics = {
        **linear,
        "calibration": calibration.model_dump(mode="json") | compared,
        **_reports(prepared, logits, calibration),
    }
    if prepared.spec.result.train_metrics:
        train = _logits(prepared, Split.TRAIN, progress)
        metrics |= _reports(prepared, {Split.TRAIN: train}, calibration)
    test = finite_or_none({name: metrics[Split.TEST][name] for name in task.curve_metrics})
    observer.on_event(Evaluated(step=result.best_step, split=Split.TEST, metrics=test))
    return metrics, logits


def correctness_by_split(prepared: PreparedRun, logits: SplitLogits) -> dict[str, Any]:
    """Return for each split which texts were predicted correctly."""
    return {
        split: encode_correctness(evaluated_examples(prepared, split), prepared.splits.labels, rows)
        for split, rows in logits.items()
    }


def evaluated_examples(prepared: PreparedRun, split: Split) -> list[Example]:
    """Return the examples of a split that a run is evaluated on."""
    examples = prepared.splits.examples(split)
    return [examples[i] for i in evaluate.eval_indices(prepared.spec, split, len(examples))]


def _logits(prepared: PreparedRun, split: Split, progress: ProgressReporter) -> NDArray[np.float32]:
    data, budget = prepared.tokenized[split], prepared.spec.optim.micro_batch_tokens
    return evaluate.logits(prepared.forward, data, budget=budget, progress=progress)


def _reports(
    prepared: PreparedRun, logits: SplitLogits, calibration: Calibration | None = None
) -> dict[str, Any]:
    reports = {}
    for split, rows in logits.items():
        data = prepared.tokenized[split]
        indices = evaluate.eval_indices(prepared.spec, split, len(data))
        reports[split.value] = prepared.task.report(rows, data.targets[indices], calibration)
    return reports
