"""Results of a run as its summary contains them. Reading them needs neither torch nor NumPy."""

from typing import Literal

from pydantic import Field

from lora_core.specs.fields import Float, FrozenModel, Int
from lora_core.specs.method import SingleMethod


class ReferenceComparison(FrozenModel):
    """The model compared with a reference on the same texts."""

    texts: Int
    accuracy: Float  # of the reference
    difference: Float  # accuracy of the model minus that of the reference
    low: Float  # 95 % interval of the difference
    high: Float


class Verdict(FrozenModel):
    """Whether a model is useful. Proportions are from 0 to 1, intervals are 95 %."""

    measured_on: Literal["test", "cross_validation"]
    texts: Int
    accuracy: Float
    low: Float
    high: Float
    majority_label: str  # the most frequent label of the training texts
    majority: ReferenceComparison  # with always predicting that label
    references: dict[str, ReferenceComparison]  # "linear", "probe"
    learned: bool  # false: its predictions agree with the labels no more often than chance
    never_predicted: tuple[str, ...]  # labels that occur but are never predicted
    headline: str
    sentences: tuple[str, ...]


class CandidateResult(FrozenModel):
    """The cross-validation result of one method."""

    method: SingleMethod = Field(discriminator="type")
    folds: Int
    repeats: Int
    texts: Int
    accuracy: Float
    low: Float  # 95 % interval of the accuracy
    high: Float
    macro_f1: Float
    seconds: Float


class MethodSelection(FrozenModel):
    """The candidates that were evaluated, and the index of the selected one."""

    texts: Int  # that the selected method is trained on
    chosen: Int
    candidates: tuple[CandidateResult, ...]

    @property
    def method(self) -> SingleMethod:
        return self.candidates[self.chosen].method
