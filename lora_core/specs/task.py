"""What a model predicts for a text: a label, several labels, or a number."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool

from lora_core.specs.fields import FrozenModel


class ClassWeights(StrEnum):
    """How the labels are weighted in the loss."""

    NONE = "none"
    BALANCED = "balanced"  # inversely to the frequency of the label in the train split


class SingleLabelSpec(FrozenModel):
    """One of two or more labels. With `ordered`, the labels are ranks, such as one to five stars.

    The order of ranks is that of the numbers, or the alphabetical one.
    """

    type: Literal["single_label"] = "single_label"
    class_weights: ClassWeights = ClassWeights.NONE
    # Left out of stored specs if false, which are the same as before the field existed.
    ordered: StrictBool = Field(default=False, exclude_if=lambda value: not value)


class MultiLabelSpec(FrozenModel):
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
