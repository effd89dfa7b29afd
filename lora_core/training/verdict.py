"""The verdict on a run on a base: compute the predictions that it is compared with."""

import numpy as np

from lora_core.cross_validation import (
    AutoSelectionResult,
    first_folds_mask,
    splits_for_references,
    trainable_examples,
    uses_cross_validated_verdict,
)
from lora_core.data import linear_baseline
from lora_core.data.linear_baseline import Indices, calibrate_on_held_out_folds
from lora_core.data.split import Example, Splits
from lora_core.events import NullObserver
from lora_core.model_selection import LINEAR_CANDIDATES, PROBE_CANDIDATES
from lora_core.progress_reporter import HeartbeatOnlyProgress, ProgressReporter
from lora_core.results import Verdict
from lora_core.specs.data import Split
from lora_core.specs.method import CandidateSpec, ProbeSpec
from lora_core.specs.train import OptimSpec, TrainSpec
from lora_core.tasks.base import Logits
from lora_core.tasks.build import build_task
from lora_core.tasks.primary_metric import Predictions
from lora_core.training import probe
from lora_core.training.cross_validation import AnyMethodCrossValidator
from lora_core.training.final_evaluation import RunEvaluation
from lora_core.training.prepare import PreparedRun, prepare_run
from lora_core.verdict import ReferencePredictions, build_verdict

# Limits for the probe that a run is compared with: each text costs a pass of the base.
PROBE_TRAIN_TEXTS, PROBE_TEST_TEXTS = 1000, 1000


def verdict_of_run(
    prepared: PreparedRun,
    optim: OptimSpec,
    evaluation: RunEvaluation,
    selected: AutoSelectionResult | None,
    progress: ProgressReporter,
) -> Verdict:
    """Return the verdict on the test split or, with few texts, by cross-validation.

    `optim` is that of the run without defaults: a fold has its own, as when `auto` compares.
    """
    spec, splits, task = prepared.spec, prepared.splits, prepared.task
    examples = trainable_examples(spec, splits)
    if uses_cross_validated_verdict(spec, examples):
        return _cross_validated_verdict(prepared, optim, examples, selected, progress)
    splits = splits_for_references(splits, prepared.cross_validated)
    baseline = linear_baseline.fit_or_load_linear_baseline(splits, task)
    references = {"linear": _answers_to_all(np.asarray(baseline.test_predictions))}
    if not isinstance(spec.method, ProbeSpec):
        references["probe"] = fit_probe_and_predict(spec, splits, progress)
    return build_verdict(
        task,
        prepared.tokenized[Split.TEST].targets,
        task.predict(evaluation.logits[Split.TEST], evaluation.calibration),
        references,
        training_targets=prepared.tokenized[Split.TRAIN].targets,
    )


def fit_probe_and_predict(
    spec: TrainSpec, splits: Splits, progress: ProgressReporter
) -> ReferencePredictions:
    """Return the predictions of a probe on the same base.

    With few texts they come from cross-validation. Otherwise the probe is fitted on at most
    `PROBE_TRAIN_TEXTS` texts and predicts at most `PROBE_TEST_TEXTS` test texts, drawn at random.
    `splits`: see `splits_for_references`.
    """
    method = PROBE_CANDIDATES[0]
    examples = trainable_examples(spec, splits)
    if uses_cross_validated_verdict(spec, examples):
        cross_validation = AnyMethodCrossValidator(spec, splits.labels, examples, progress)
        return _answers_to_all(cross_validation.predict_held_out(method))
    values = [each.label for each in splits.train]
    task = build_task(spec.task, splits.labels, values)
    train = probe.draw_stratified_indices(task.strata(task.targets(values)), PROBE_TRAIN_TEXTS)
    validation, test = (
        np.sort(np.random.default_rng(0).permutation(len(each))[:PROBE_TEST_TEXTS])
        for each in (splits.validation, splits.test)
    )
    sample = Splits(
        labels=splits.labels,
        train=tuple(splits.train[i] for i in train),
        validation=tuple(splits.validation[i] for i in validation) if task.has_thresholds else (),
        test=tuple(splits.test[i] for i in test),
    )
    nested = HeartbeatOnlyProgress(progress)
    prepared = prepare_run(spec.with_method(method), NullObserver(), nested, sample)
    task, tokenized = prepared.task, prepared.tokenized
    states = {
        split: probe.compute_and_check_pooled_states(prepared, data, np.arange(len(data)), nested)
        for split, data in tokenized.items()
        if len(data)
    }
    size = probe.mean_row_rms(states[Split.TRAIN])
    inputs = {split: probe.probe_inputs(prepared, x, size) for split, x in states.items()}
    x, targets = inputs[Split.TRAIN], tokenized[Split.TRAIN].targets
    balanced = prepared.spec.balanced

    def predict_held_out(train: Indices, held_out: Indices) -> Logits:
        weight, bias = probe.fit_probe_weights(
            x[train], targets[train], method, task, balanced=balanced
        )
        return x[held_out] @ weight.T + bias

    weight, bias = probe.fit_probe_weights(x, targets, method, task, balanced=balanced)
    calibration = None
    if task.has_thresholds and sample.validation:
        logits = inputs[Split.VALIDATION] @ weight.T + bias
        calibration = task.calibrate(logits, tokenized[Split.VALIDATION].targets)
    elif task.has_thresholds:
        calibration = calibrate_on_held_out_folds(sample.train, task, predict_held_out)
    return ReferencePredictions(
        test, task.predict(inputs[Split.TEST] @ weight.T + bias, calibration)
    )


def _cross_validated_verdict(
    prepared: PreparedRun,
    optim: OptimSpec,
    examples: tuple[Example, ...],
    selected: AutoSelectionResult | None,
    progress: ProgressReporter,
) -> Verdict:
    spec, splits = prepared.spec.model_copy(update={"optim": optim}), prepared.splits
    cross_validation = AnyMethodCrossValidator(spec, splits.labels, examples, progress)
    if selected is None or selected.cross_validated is None:
        candidate = CandidateSpec(method=spec.encoder_method)
        folds, logits = candidate.folds, cross_validation.predict_held_out_logits(candidate)[0]
    else:
        chosen = selected.selection.candidates[selected.selection.chosen]
        folds, logits = chosen.folds, selected.cross_validated
    evaluated = first_folds_mask(examples, folds)
    predictions = {"linear": cross_validation.predict_held_out(LINEAR_CANDIDATES[-1])}
    if not isinstance(spec.method, ProbeSpec):
        predictions["probe"] = cross_validation.predict_held_out(PROBE_CANDIDATES[0])
    task, targets = cross_validation.task, cross_validation.targets[evaluated]
    cross_fitted = selected.cross_fitted if selected else None
    return build_verdict(
        task,
        targets,
        task.predict_cross_fitted(logits, targets) if cross_fitted is None else cross_fitted,
        {name: _answers_to_all(each[evaluated]) for name, each in predictions.items()},
        training_targets=cross_validation.targets,
        measured_on="cross_validation",
    )


def _answers_to_all(answers: Predictions) -> ReferencePredictions:
    return ReferencePredictions(np.arange(len(answers)), answers)
