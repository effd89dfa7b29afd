"""Results of a run as its summary contains them. Reading them needs neither torch nor NumPy."""

from typing import Any, Literal

from pydantic import Field, model_validator

from lora_core.specs.fields import Float, FrozenModel, Int
from lora_core.specs.method import LayerRole, SingleMethod

# What models are compared by: single-label, multi-label, regression, where lower is better, and
# several targets
MetricName = Literal["accuracy", "macro_f1", "rmse", "skill"]


class MetricValue(FrozenModel):
    """The value of a metric. Results that are older than other tasks have only an accuracy."""

    value: Float  # of the metric
    accuracy: Float | None = None  # of a single-label task

    @model_validator(mode="before")
    @classmethod
    def _accuracy_is_the_value(cls, stored: Any) -> Any:
        if isinstance(stored, dict) and "value" not in stored and "accuracy" in stored:
            return {**stored, "value": stored["accuracy"]}
        return stored


class ReferenceComparison(MetricValue):
    """The model compared with a reference, which has the `value`, on the same texts."""

    texts: Int
    difference: Float  # value of the model minus that of the reference
    low: Float  # 95% interval of the difference
    high: Float


class LabelPredictionCounts(FrozenModel):
    """A label of few texts, in numbers of texts."""

    label: str
    texts: Int  # with this label
    predicted: Int  # for which it is predicted
    correct: Int  # of both


class Verdict(MetricValue):
    """Whether a model is useful. Proportions are from 0 to 1, intervals are 95%."""

    measured_on: Literal["test", "cross_validation"]
    texts: Int
    metric: MetricName = "accuracy"
    low: Float
    high: Float
    # What is best without reading: the most frequent label of the training texts; for several
    # labels every label, which has the best macro F1; for numbers the mean.
    majority_label: str
    majority: ReferenceComparison  # with always predicting that
    references: dict[str, ReferenceComparison]  # "linear", "probe"
    learned: bool  # false: its predictions fit the texts no better than chance
    # False: nor would perfect ones, as there are too few texts or nearly all have one target.
    testable: bool = Field(default=True, exclude_if=lambda value: value)
    never_predicted: tuple[str, ...]  # labels that occur but are never predicted
    rare_labels: tuple[LabelPredictionCounts, ...] = ()
    # Several targets: the verdict on each.
    targets: dict[str, "Verdict"] = Field(default={}, exclude_if=lambda value: not value)
    headline: str
    sentences: tuple[str, ...]

    @property
    def learned_nothing(self) -> bool:
        """Whether the model has not learned anything, on texts that could have shown it."""
        return self.testable and not self.learned


class CandidateResult(MetricValue):
    """The cross-validation result of one method."""

    method: SingleMethod = Field(discriminator="type")
    folds: Int
    repeats: Int
    texts: Int
    metric: MetricName = "accuracy"
    low: Float  # 95% interval of the value
    high: Float
    macro_f1: Float | None = None  # None: of a regression
    seconds: Float


class MethodSelection(FrozenModel):
    """The candidates that were evaluated, and the index of the selected one."""

    texts: Int  # that the selected method is trained on
    chosen: Int
    candidates: tuple[CandidateResult, ...]

    @property
    def method(self) -> SingleMethod:
        return self.candidates[self.chosen].method


class AdaptedLayers(FrozenModel):
    """The linear layers of a block that roles of `method.targets` stand for."""

    roles: tuple[LayerRole, ...]  # several: they are parts of one layer, and adapted together
    layers: tuple[str, ...]  # names inside a block
    parameters: Int  # of their adapters in all blocks, with the default rank


class BaseModelReport(FrozenModel):
    """The report on a base model. Speeds and peak memory are those of the machine that tried it."""

    base: str
    commit: str | None  # of a hub model
    model_type: str
    road: Literal["fast", "general"]
    blocks: Int  # with weights of their own
    passes: Int  # blocks that a text passes through
    width: Int
    max_tokens: Int
    parameters: Int
    adapted: tuple[AdaptedLayers, ...]
    head: tuple[str, ...]  # its layers, which are trained and saved in full
    trained_parameters: Int  # of LoRA with its defaults, head included
    logits_difference: Float  # between a batch and transformers on each text alone
    merge_difference: Float  # between logits with a merged and an unmerged adapter
    device: str
    precision: str
    tokens_per_second: Float  # in float32 on the CPU
    trained_tokens_per_second: Float  # in a step of LoRA
    lora_memory_mb: Float  # weights, gradients and optimizer, without activations
    full_memory_mb: Float  # the same for full fine-tuning
    peak_memory_mb: Float  # of the check, libraries included
