"""The verdict on a run on a base: compute the predictions that it is compared with."""

import numpy as np
from numpy.typing import NDArray

from lora_core.cross_validation import (
    AutoOutcome,
    in_first_folds,
    training_pool,
    uses_cross_validation,
)
from lora_core.data import linear_baseline
from lora_core.data.split import Example, Splits, label_indices
from lora_core.events import NullObserver
from lora_core.model_selection import LINEAR_CANDIDATES, PROBE_CANDIDATES
from lora_core.progress_reporter import HeartbeatOnlyProgress, ProgressReporter
from lora_core.results import Verdict
from lora_core.specs.data import Split
from lora_core.specs.method import CandidateSpec, ProbeSpec
from lora_core.specs.train import TrainSpec
from lora_core.training import probe
from lora_core.training.cross_validation import CrossValidation
from lora_core.training.prepare import PreparedRun, prepare_run
from lora_core.verdict import ReferencePredictions, build_verdict, most_frequent_label

# Limits for the probe that a run is compared with: each text costs a pass of the base.
PROBE_TRAIN_TEXTS, PROBE_TEST_TEXTS = 1000, 1000

Logits = NDArray[np.float32]


def verdict_of_run(
    prepared: PreparedRun,
    test_logits: Logits,
    selected: AutoOutcome | None,
    progress: ProgressReporter,
) -> Verdict:
    """Return the verdict on the test split or, with few texts, by cross-validation."""
    spec, splits = prepared.spec, prepared.splits
    examples = training_pool(spec, splits)
    if uses_cross_validation(spec, examples):
        return _cross_validated_verdict(prepared, examples, selected, progress)
    references = {"linear": _answers_to_all(linear_baseline.evaluate(splits).test_predictions)}
    if not isinstance(spec.method, ProbeSpec):
        references["probe"] = predict_with_probe(spec, splits, progress)
    return build_verdict(
        label_indices(splits.test),
        test_logits.argmax(axis=1),
        references,
        labels=splits.labels,
        majority=most_frequent_label(splits.train),
    )


def predict_with_probe(
    spec: TrainSpec, splits: Splits, progress: ProgressReporter
) -> ReferencePredictions:
    """Return the predictions of a probe on the same base.

    With few texts they come from cross-validation. Otherwise the probe is fitted on at most
    `PROBE_TRAIN_TEXTS` texts and predicts at most `PROBE_TEST_TEXTS` test texts, drawn at random.
    """
    method = PROBE_CANDIDATES[0]
    examples = training_pool(spec, splits)
    if uses_cross_validation(spec, examples):
        cross_validation = CrossValidation(spec, splits.labels, examples, progress)
        return _answers_to_all(cross_validation.predictions(method))
    labels = label_indices(splits.train)
    train = probe.draw_stratified(labels, PROBE_TRAIN_TEXTS)
    test = np.sort(np.random.default_rng(0).permutation(len(splits.test))[:PROBE_TEST_TEXTS])
    sample = Splits(
        labels=splits.labels,
        train=tuple(splits.train[i] for i in train),
        validation=(),
        test=tuple(splits.test[i] for i in test),
    )
    nested = HeartbeatOnlyProgress(progress)
    prepared = prepare_run(spec.with_method(method), NullObserver(), nested, sample)
    train_x, test_x = (
        probe.checked_pooled_states(prepared, data, np.arange(len(data)), nested)
        for data in (prepared.tokenized[Split.TRAIN], prepared.tokenized[Split.TEST])
    )
    size = probe.mean_scale(train_x)
    weight, bias = probe.fit_logistic_regression(
        probe.probe_inputs(prepared, train_x, size),
        label_indices(sample.train),
        method,
        classes=len(splits.labels),
        balanced=prepared.spec.balanced,
    )
    logits = probe.probe_inputs(prepared, test_x, size) @ weight.T + bias
    return ReferencePredictions(test, logits.argmax(axis=1))


def _cross_validated_verdict(
    prepared: PreparedRun,
    examples: tuple[Example, ...],
    selected: AutoOutcome | None,
    progress: ProgressReporter,
) -> Verdict:
    spec, splits = prepared.spec, prepared.splits
    cross_validation = CrossValidation(spec, splits.labels, examples, progress)
    if selected is None or selected.cross_validated is None:
        candidate = CandidateSpec(method=spec.encoder_method)
        folds, logits = candidate.folds, cross_validation.logits(candidate)[0]
    else:
        chosen = selected.selection.candidates[selected.selection.chosen]
        folds, logits = chosen.folds, selected.cross_validated
    evaluated = in_first_folds(examples, folds)
    predictions = {"linear": cross_validation.predictions(LINEAR_CANDIDATES[-1])}
    if not isinstance(spec.method, ProbeSpec):
        predictions["probe"] = cross_validation.predictions(PROBE_CANDIDATES[0])
    references = {name: _answers_to_all(each[evaluated]) for name, each in predictions.items()}
    return build_verdict(
        cross_validation.true_labels[evaluated],
        logits.argmax(axis=1),
        references,
        labels=splits.labels,
        majority=most_frequent_label(examples),
        measured_on="cross_validation",
    )


def _answers_to_all(answers: "NDArray[np.int64] | tuple[int, ...]") -> ReferencePredictions:
    return ReferencePredictions(np.arange(len(answers)), np.asarray(answers, dtype=np.int64))
