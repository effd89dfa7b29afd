"""The machine-learning problem."""

from enum import StrEnum
from typing import Literal

from lora_core.specs.frozen import Frozen


class ClassWeights(StrEnum):
    """How much an example of each class counts in the loss."""

    NONE = "none"
    BALANCED = "balanced"  # inverse to the frequency of the class in training


class SequenceClassificationSpec(Frozen):
    """One label per text, out of two or many."""

    type: Literal["sequence_classification"] = "sequence_classification"
    class_weights: ClassWeights = ClassWeights.NONE


TaskSpec = SequenceClassificationSpec  # becomes a union tagged by `type` with the second task
