"""Metrics of the final weights of a run."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lora_core import distributed
from lora_core.cross_validation import splits_for_references
from lora_core.data import linear_baseline
from lora_core.data.split import Example
from lora_core.events import Evaluated, Observer, Phase, replace_nonfinite_with_none
from lora_core.progress_reporter import ProgressReporter, run_in_thread_with_progress
from lora_core.saved_predictions import SplitLogits
from lora_core.specs.data import Split
from lora_core.tasks.base import Calibration
from lora_core.training import model_outputs
from lora_core.training.loop import TrainingResult
from lora_core.training.prepare import PreparedRun


class RunEvaluation(NamedTuple):
    """The metrics of a run as its summary has them, and what they are computed from."""

    metrics: dict[str, Any]
    logits: SplitLogits
    calibration: Calibration | None = None  # None: of a partial run


def evaluate_partial_run(prepared: PreparedRun, result: TrainingResult) -> RunEvaluation:
    """Return metrics and logits of the last weights on the evaluation subset."""
    logits: SplitLogits = {Split.VALIDATION: result.validation_logits}
    return RunEvaluation(_reports(prepared, logits), logits)


def evaluate_run(
    prepared: PreparedRun,
    result: TrainingResult,
    observer: Observer,
    *,
    local: ProgressReporter,
    shared: ProgressReporter,
) -> RunEvaluation:
    """Return metrics and logits of the model's weights on validation and test.

    The metrics include those of the linear model (TF-IDF + a linear model) and of calibration,
    which is fitted on validation alone, if it has enough texts. That model is fitted by one process
    while the others wait, so meanwhile it reports to `local`, which asks none of them.
    """
    local.enter_phase(Phase.LINEAR_MODEL, result.steps)
    splits = splits_for_references(prepared.splits, prepared.cross_validated)
    with distributed.main_process_first():
        linear = run_in_thread_with_progress(
            local, lambda: linear_baseline.fit_or_load_linear_baseline(splits, prepared.task)
        ).metrics
    observer.on_event(linear)
    shared.enter_phase(Phase.EVALUATING)
    logits: SplitLogits = {
        Split.VALIDATION: result.validation_logits,
        Split.TEST: _logits(prepared, Split.TEST, shared),
    }
    task, targets = prepared.task, {split: prepared.tokenized[split].targets for split in Split}
    calibration = task.calibrate(result.validation_logits, targets[Split.VALIDATION])
    compared = {
        split: task.evaluate_calibration(rows, targets[split], calibration)
        for split, rows in logits.items()
    }
    metrics = {
        "linear": linear.model_dump(mode="json", exclude={"event"}),
        "calibration": calibration.model_dump(mode="json") | compared,
        **_reports(prepared, logits, calibration),
    }
    if prepared.spec.result.train_metrics:
        train = _logits(prepared, Split.TRAIN, shared)
        metrics |= _reports(prepared, {Split.TRAIN: train}, calibration)
    test = replace_nonfinite_with_none(task.select_logged_metrics(metrics[Split.TEST]))
    observer.on_event(Evaluated(step=result.best_step, split=Split.TEST, metrics=test))
    return RunEvaluation(metrics, logits, calibration)


def evaluated_examples(prepared: PreparedRun, split: Split) -> list[Example]:
    """Return the examples of a split that a run is evaluated on."""
    examples = prepared.splits.examples_of(split)
    return [examples[i] for i in model_outputs.eval_indices(prepared.spec, split, len(examples))]


def _logits(prepared: PreparedRun, split: Split, progress: ProgressReporter) -> NDArray[np.float32]:
    data, budget = prepared.tokenized[split], prepared.spec.optim.micro_batch_tokens
    return model_outputs.compute_logits(prepared.forward, data, budget=budget, progress=progress)


def _reports(
    prepared: PreparedRun, logits: SplitLogits, calibration: Calibration | None = None
) -> dict[str, Any]:
    reports = {}
    for split, rows in logits.items():
        data = prepared.tokenized[split]
        indices = model_outputs.eval_indices(prepared.spec, split, len(data))
        reports[split.value] = prepared.task.report(rows, data.targets[indices], calibration)
    return reports
