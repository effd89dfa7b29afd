"""Descriptions of version 1 are read as those of version 2, wherever they are stored."""

from typing import Any

import pytest
from pydantic import ValidationError

from lora_core.specs.train import TrainSpec
from lora_core.training.checkpoint import RunIdentity

OLD: dict[str, Any] = {
    "spec_version": 1,
    "method": {"type": "lora"},
    "result": {"train_figures": True, "model": False},
    "trial": {"share": 0.25, "validation_texts": 50},
}
NEW: dict[str, Any] = {
    "spec_version": 2,
    "method": {"type": "lora"},
    "result": {"train_metrics": True, "model": False},
    "trial": {"budget": 0.25, "validation_texts": 50},
}


def test_version_1_is_upgraded() -> None:
    before = repr(OLD)
    assert TrainSpec.model_validate(OLD) == TrainSpec.model_validate(NEW)
    assert TrainSpec.model_validate(OLD).model_dump(exclude_unset=True) == NEW
    assert repr(OLD) == before


def test_version_1_without_these_fields_is_upgraded() -> None:
    spec = TrainSpec.model_validate({"spec_version": 1, "trial": None, "preset": "seed"})
    assert (spec.spec_version, spec.trial, spec.result) == (2, None, TrainSpec().result)


def test_checkpoint_of_version_1_has_an_identity() -> None:
    saved = {"spec": OLD, "data_sha256": "d", "base_sha256": "b", "environment": {}}
    assert RunIdentity.model_validate(saved).spec == TrainSpec.model_validate(NEW)


@pytest.mark.parametrize(
    ("description", "at"),
    [
        ({**OLD, "spec_version": 2}, ("result", "train_figures")),
        ({"trial": {"share": 0.5}}, ("trial", "budget")),
        ({"spec_version": 1, "trial": {"budgets": 0.5}}, ("trial", "budget")),
        ({"spec_version": 3}, ("spec_version",)),
        ({"spec_version": 1, "result": "no"}, ("result",)),
    ],
)
def test_anything_else_is_rejected(description: dict[str, Any], at: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as error:
        TrainSpec.model_validate(description)
    assert at in [each["loc"] for each in error.value.errors()]
