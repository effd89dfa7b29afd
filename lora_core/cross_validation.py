"""Cross-validation: what a method answers to texts that it has not learned from.

Here that of linear models, which needs no torch; `training.crossval` has all methods.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lora_core.data.folds import fold_of
from lora_core.data.linear_baseline import fit_examples, within_memory
from lora_core.data.records import Example, Splits
from lora_core.model_selection import Scores
from lora_core.progress_reporter import Pulse, Unseen, while_beating
from lora_core.specs.data import Split
from lora_core.specs.method import Candidate, LinearSpec, OneMethod
from lora_core.specs.train import TrainSpec
from lora_core.verdict import FEW_TEXTS

Logits = NDArray[np.float32]
Places = NDArray[np.int64]


class CrossValidation:
    """Of methods for one run, on the same folds of the same texts."""

    def __init__(
        self, spec: TrainSpec, labels: Sequence[str], examples: Sequence[Example], pulse: Pulse
    ) -> None:
        self._spec, self._labels, self._examples = spec, tuple(labels), tuple(examples)
        self._pulse = Unseen(pulse)
        self._folds: dict[int, NDArray[np.int64]] = {}
        self.truth = np.array([example.label for example in examples])

    def logits(self, candidate: Candidate) -> Logits:
        """(repeats, texts, classes); NaN for texts of folds that the candidate leaves out."""
        shape = (candidate.repeats, len(self._examples), len(self._labels))
        answers = np.full(shape, np.nan, dtype=np.float32)
        for repeat in range(candidate.repeats):
            folds = self._fold_of(repeat)
            for fold in range(candidate.folds):
                self._pulse.beat()
                held_out, learned = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
                if len(held_out) and len(learned):
                    answers[repeat, held_out] = self._fit(candidate.method, learned, held_out)
        return answers

    def answers(self, method: OneMethod) -> Places:
        """The label that the method gives to each text, when it is held out once."""
        found: Places = self.logits(Candidate(method=method))[0].argmax(axis=1)
        return found

    def scores(self, logits: Logits) -> Scores:
        """Of each text how often it was answered rightly."""
        right = np.where(np.isnan(logits[..., 0]), np.nan, logits.argmax(axis=2) == self.truth)
        return Scores(right.mean(axis=0))

    def _fold_of(self, repeat: int) -> NDArray[np.int64]:
        if repeat not in self._folds:
            self._folds[repeat] = fold_of(self._examples, seed=repeat)
        return self._folds[repeat]

    def _fit(
        self, method: OneMethod, learned: Places, held_out: Places
    ) -> NDArray[np.floating[Any]]:
        """Logits (texts, classes) of those held out."""
        if not isinstance(method, LinearSpec):
            raise TypeError(
                f"{method.type} is cross-validated by lora_core.training.cross_validation"
            )
        train = within_memory([self._examples[i] for i in learned], len(self._labels))
        texts = [self._examples[i].text for i in held_out]

        def answers() -> NDArray[np.floating[Any]]:
            balanced = self._spec.of(method).balanced
            model = fit_examples(train, method, classes=len(self._labels), balanced=balanced)
            return model.logits(texts)

        with threadpool_limits(1, user_api="blas"):  # several would wait for each other
            return while_beating(self._pulse, answers)


def judges(spec: TrainSpec, examples: Sequence[Example]) -> bool:
    """Whether a run that learns from these is judged by cross-validation, not on its test part."""
    return len(examples) < FEW_TEXTS and spec.result.cross_validation


def learnable(spec: TrainSpec, splits: Splits) -> tuple[Example, ...]:
    """All texts that a run may learn from: those of a validation part that was drawn, too."""
    as_given = Split.VALIDATION not in splits.drawn or spec.data.train_size is not None
    return splits.train if as_given else splits.train + splits.validation
