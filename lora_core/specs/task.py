"""What a model predicts for a text: a label, several labels, a number, or several of these."""

import json
import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    StrictBool,
    field_validator,
    model_validator,
)

from lora_core.specs.data import ColumnName, Separator
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
    """Return the description with the name that the task has now; `targets` imply it."""
    if isinstance(task, dict) and "targets" in task and task.get("type") is None:
        return {**task, "type": "several_targets"}
    if isinstance(task, dict) and task.get("type") in (None, "sequence_classification"):
        return {**task, "type": "single_label"}
    return task


# -- Several targets ------------------------------------------------------------------------------


class _TargetFields(FrozenModel):
    """What a target adds to its task."""

    weight: Annotated[Float, Field(gt=0, le=1000)] = 1.0  # of its loss in the sum
    column: ColumnName | None = Field(  # None: the one with the name of the target
        default=None, exclude_if=lambda value: value is None
    )


class SingleLabelTarget(SingleLabelSpec, _TargetFields):
    """A target with one of two or more labels."""


class MultiLabelTarget(MultiLabelSpec, _TargetFields):
    """A target with any number of labels, from `column` or from `label_columns` of 0 and 1."""

    label_separator: Separator | None = Field(default=None, exclude_if=lambda value: value is None)
    label_columns: tuple[ColumnName, ...] | None = Field(
        default=None, min_length=1, max_length=512, exclude_if=lambda value: value is None
    )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.label_columns is not None:
            if self.label_separator is not None or self.column is not None:
                raise ValueError("label_columns excludes column and label_separator: omit them")
            if len({name.strip() for name in self.label_columns}) < len(self.label_columns):
                raise ValueError("label_columns has the same name twice")
        return self


class RegressionTarget(RegressionSpec, _TargetFields):
    """A target that is a number."""


TargetSpec = Annotated[
    Annotated[SingleLabelTarget | MultiLabelTarget | RegressionTarget, Field(discriminator="type")],
    BeforeValidator(_rename),
]


MAX_TARGETS = 32
MAX_TARGET_CHARACTERS = 32  # of the name of a target
_TARGET_NAME = re.compile(rf"[a-z][a-z0-9_]{{0,{MAX_TARGET_CHARACTERS - 1}}}", re.ASCII)


class SeveralTargetsSpec(FrozenModel):
    """Several targets, each with its own labels or numbers, predicted by one model.

    `targets` may also be text, as `parse_targets` reads it.

    Each is read from the column with its name, unless it says otherwise. The loss is the sum of
    those of the targets, times their weights.
    """

    type: Literal["several_targets"] = "several_targets"
    targets: dict[str, TargetSpec] = Field(min_length=2, max_length=MAX_TARGETS)

    @field_validator("targets", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return parse_targets(value) if isinstance(value, str) else value

    @field_validator("targets")
    @classmethod
    def _in_one_order(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Sort by name: stored JSON does not keep the order of keys everywhere."""
        for name in value:
            if not _TARGET_NAME.fullmatch(name):
                raise ValueError(
                    f"{name[:64]!r} cannot be the name of a target: use 1 to 32 of the characters "
                    "a-z, 0-9 and _, the first one a letter, and name the column with `column`"
                )
        return {name: value[name] for name in sorted(value)}


def parse_targets(text: str) -> dict[str, Any]:
    """Return the `targets` of a spec from JSON, or from `stars=regression,topic,flags=multi_label`.

    There, each target is NAME, NAME=TYPE or NAME=TYPE:COLUMN; the type is `single_label` by
    default, and `ordered` stands for one with ranks. Raises `ValueError`.
    """
    if text.lstrip().startswith("{"):
        try:
            targets = json.loads(text)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if not isinstance(targets, dict):
            raise ValueError("not an object")
        return targets
    targets = {}
    for part in text.split(","):
        name, _, rest = (each.strip() for each in part.partition("="))
        kind, _, column = (each.strip() for each in rest.partition(":"))
        if name in targets:
            raise ValueError(f"{name} is named twice")
        task = {"type": "single_label", "ordered": True} if kind == "ordered" else {"type": kind}
        targets[name] = {**(task if kind else {}), **({"column": column} if column else {})}
    return targets


TaskTypeOfTarget = Literal["single_label", "multi_label", "regression"]
TaskType = Literal["single_label", "multi_label", "regression", "several_targets"]
TaskSpec = Annotated[
    Annotated[
        SingleLabelSpec | MultiLabelSpec | RegressionSpec | SeveralTargetsSpec,
        Field(discriminator="type"),
    ],
    BeforeValidator(_rename),
]
