"""What a model predicts for a text: a label, several labels, or a number."""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StrictBool, model_validator

from lora_core.specs.fields import Float, FrozenModel


class ClassWeights(StrEnum):
    """How the labels are weighted in the loss."""

    NONE = "none"
    BALANCED = "balanced"  # inversely to the frequency of the label in the train split


class LossName(StrEnum):
    """The loss of a task with labels."""

    CROSS_ENTROPY = "cross_entropy"
    FOCAL = "focal"  # what is easy counts less (Lin et al. 2017, arXiv 1708.02002)


class _LabelSpec(FrozenModel):
    """What tasks with labels share. Fields that are newer than stored specs are left out if unused.

    The focal loss multiplies the cross-entropy with (1 - p)^gamma, where p is the probability of
    the truth. The methods `linear` and `probe` are fitted with cross-entropy.
    """

    loss: LossName = Field(
        default=LossName.CROSS_ENTROPY, exclude_if=lambda value: value is LossName.CROSS_ENTROPY
    )
    # None: `loss.FOCAL_GAMMA`
    focal_gamma: Annotated[Float, Field(gt=0, le=10)] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )

    @model_validator(mode="after")
    def _gamma_needs_focal_loss(self) -> Self:
        if self.focal_gamma is not None and self.loss is not LossName.FOCAL:
            raise ValueError("focal_gamma needs loss 'focal'")
        return self


class SingleLabelSpec(_LabelSpec):
    """One of two or more labels. With `ordered`, the labels are ranks, such as one to five stars.

    The order of ranks is that of the numbers, or the alphabetical one. With `tune_thresholds`, the
    predicted label is not the most probable one, but the one with the highest probability / its
    threshold: thresholds that give the best macro F1 on validation, for rare labels.
    """

    type: Literal["single_label"] = "single_label"
    class_weights: ClassWeights = ClassWeights.NONE
    # Left out of stored specs if false, which are the same as before the field existed.
    ordered: StrictBool = Field(default=False, exclude_if=lambda value: not value)
    tune_thresholds: StrictBool = Field(default=False, exclude_if=lambda value: not value)

    @model_validator(mode="after")
    def _ranks_have_soft_targets(self) -> Self:
        if self.ordered and self.loss is LossName.FOCAL:
            raise ValueError("ordered labels have a loss of their own: omit loss")
        return self


class MultiLabelSpec(_LabelSpec):
    """Any number of labels, none included.

    A cell of the label column is a list, or text with `data.label_separator`; or each of
    `data.label_columns` is 1 for the texts that have this label, else 0.
    """

    type: Literal["multi_label"] = "multi_label"
    class_weights: ClassWeights = ClassWeights.NONE


class RegressionSpec(FrozenModel):
    """A number. The label column has numbers only."""

    type: Literal["regression"] = "regression"


def _rename(task: Any) -> Any:
    """Return the description with the name that the task has now."""
    if isinstance(task, dict) and task.get("type") in (None, "sequence_classification"):
        return {**task, "type": "single_label"}
    return task


TaskType = Literal["single_label", "multi_label", "regression"]
TaskSpec = Annotated[
    Annotated[SingleLabelSpec | MultiLabelSpec | RegressionSpec, Field(discriminator="type")],
    BeforeValidator(_rename),
]
