"""Cross-validation: predict each text with a model that was not trained on it.

This module does it for linear models and needs no torch; `training.cross_validation` does it for
all methods. It also holds `AutoSelectionResult`, the outcome of the method `auto`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lora_core.data.linear_baseline import (
    Indices,
    fit_linear_model,
    subsample_to_max_characters,
)
from lora_core.data.split import Example, Splits, assign_folds
from lora_core.model_selection import CandidateScores, select_candidate_index
from lora_core.progress_reporter import (
    HeartbeatOnlyProgress,
    ProgressReporter,
    run_in_thread_with_progress,
)
from lora_core.results import MethodSelection
from lora_core.specs.data import Split
from lora_core.specs.method import CandidateSpec, LinearSpec, SingleMethod
from lora_core.specs.train import TrainSpec
from lora_core.tasks.build import build_task
from lora_core.tasks.primary_metric import Predictions
from lora_core.verdict import CROSS_VALIDATION_MAX_TEXTS, ReferencePredictions

Logits = NDArray[np.float32]


class LinearCrossValidator:
    """Cross-validates methods for one run, all on the same folds of the same texts."""

    def __init__(
        self,
        spec: TrainSpec,
        labels: Sequence[str],
        examples: Sequence[Example],
        progress: ProgressReporter,
    ) -> None:
        self._spec, self._labels, self._examples = spec, tuple(labels), tuple(examples)
        self._progress = HeartbeatOnlyProgress(progress)
        self._folds: dict[int, Indices] = {}
        values = [each.label for each in examples]
        self.task = build_task(spec.task, labels, values)
        self.targets = self.task.targets(values)

    def predict_held_out_logits(self, candidate: CandidateSpec) -> Logits:
        """Return held-out logits (repeats, texts, outputs).

        They are NaN for texts in folds that the candidate skips.
        """
        shape = (candidate.repeats, len(self._examples), len(self.task.labels))
        logits = np.full(shape, np.nan, dtype=np.float32)
        for repeat in range(candidate.repeats):
            folds = self._assign_folds(repeat)
            for fold in range(candidate.folds):
                self._progress.tick()
                held_out, train = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
                if len(held_out) and len(train):
                    logits[repeat, held_out] = self._fit(candidate.method, train, held_out)
        return logits

    def predict_held_out(self, method: SingleMethod) -> Predictions:
        """Return what the method predicts for each text when it is held out."""
        logits = self.predict_held_out_logits(CandidateSpec(method=method))[0]
        return self.task.predict_cross_fitted(logits, self.targets)

    def evaluate_logits(self, logits: Logits) -> CandidateScores:
        """Return how well the texts were predicted, the mean of the repeats that predict them.

        With fewer folds than there are, these are others in each repeat.
        """
        metric, held_out = self.task.metric, ~np.isnan(logits[..., 0])
        of_repeats = [
            metric.per_text_statistics(
                self.targets[each], self.task.predict_cross_fitted(rows[each], self.targets[each])
            )
            for rows, each in zip(logits, held_out, strict=True)
        ]
        total = np.zeros((len(self.targets), of_repeats[0].shape[1]))
        for each, found in zip(held_out, of_repeats, strict=True):
            total[each] += found
        predicted, times = held_out.any(axis=0), held_out.sum(axis=0)
        statistics = total[predicted] / times[predicted, None]
        by_text = np.full(len(self.targets), np.nan)
        by_text[predicted] = metric.scores(statistics)
        return CandidateScores(by_text, metric.value(statistics), metric.interval(statistics))

    def predict_by_cross_fitted_choice(
        self, scores: Sequence[CandidateScores], all_logits: Sequence[Logits]
    ) -> Predictions:
        """Return what is predicted for each text by the candidate that the other folds select.

        A candidate looks better than it is on the texts that it was selected by. `scores` and
        `all_logits`: of the candidates, each of which predicts all texts.
        """
        folds = self._assign_folds(0)
        predicted = [self.task.predict_cross_fitted(each[0], self.targets) for each in all_logits]
        answers = np.empty_like(predicted[0])
        for held_out in (folds == fold for fold in np.unique(folds)):
            best = select_candidate_index(
                [replace(each, by_text=each.by_text[~held_out]) for each in scores]
            )
            answers[held_out] = predicted[best][held_out]
        return answers

    def _assign_folds(self, repeat: int) -> Indices:
        if repeat not in self._folds:
            self._folds[repeat] = assign_folds(self._examples, seed=repeat)
        return self._folds[repeat]

    def _fit(
        self, method: SingleMethod, train: Indices, held_out: Indices
    ) -> NDArray[np.floating[Any]]:
        """Fit on the texts `train`; return logits (texts, outputs) of the texts `held_out`."""
        if not isinstance(method, LinearSpec):
            raise TypeError(
                f"{method.type} is cross-validated by lora_core.training.cross_validation"
            )
        examples = subsample_to_max_characters(
            [self._examples[i] for i in train], len(self._labels)
        )
        texts = [self._examples[i].input for i in held_out]

        def fit_and_predict() -> NDArray[np.floating[Any]]:
            balanced = self._spec.with_method(method).balanced
            model = fit_linear_model(examples, method, self.task, balanced=balanced)
            return model.logits(texts)

        # With several BLAS threads they would wait for each other.
        with threadpool_limits(1, user_api="blas"):
            return run_in_thread_with_progress(self._progress, fit_and_predict)


@dataclass(frozen=True)
class AutoSelectionResult:
    """The method that cross-validation selected, with the splits it is trained and evaluated on.

    Where the data define no validation split, it is trained on all texts that are not for testing,
    and its validation metrics are those of cross-validation: `cross_validated` then has the logits
    (texts, outputs) of the validation split, whose texts are also in the training split.
    `cross_fitted` is what a verdict by cross-validation is on, if all candidates predict all texts:
    see `LinearCrossValidator.predict_by_cross_fitted_choice`.
    """

    selection: MethodSelection
    splits: Splits
    cross_validated: NDArray[np.float32] | None
    started: float  # when the run began, by `time.monotonic`
    cross_fitted: Predictions | None = None
    probe: ReferencePredictions | None = None  # of a probe, if the run of the method cannot fit one

    def summary(self) -> dict[str, Any]:
        """Return what this adds to the summary of the run."""
        return {
            "selection": self.selection.model_dump(mode="json"),
            "cross_validated": self.cross_validated is not None,  # the validation split
        }


def splits_for_references(splits: Splits, cross_validated: NDArray[np.float32] | None) -> Splits:
    """Return the splits that a run's references are fitted on.

    Without the validation split, if its texts are also in the training split (see
    `AutoSelectionResult`): thresholds that were fitted on them would be those of training texts.
    """
    return splits if cross_validated is None else replace(splits, validation=())


def first_folds_mask(examples: Sequence[Example], folds: int) -> NDArray[np.bool_]:
    """Return for each text (texts,) whether it is in the first `folds` folds of the first repeat.

    A candidate that is limited to these folds predicts only these texts.
    """
    return assign_folds(examples, seed=0) < folds


def uses_cross_validated_verdict(spec: TrainSpec, examples: Sequence[Example]) -> bool:
    """Return whether the verdict on a run comes from cross-validation, not from its test split."""
    return len(examples) < CROSS_VALIDATION_MAX_TEXTS and spec.result.cross_validation


def trainable_examples(spec: TrainSpec, splits: Splits) -> tuple[Example, ...]:
    """Return all texts that a run may train on: also those of a validation split that was drawn."""
    as_given = Split.VALIDATION not in splits.drawn or spec.data.train_size is not None
    return splits.train if as_given else splits.train + splits.validation
