"""What a preset adds to a spec, and what it leaves unchanged."""

from typing import Any

import pytest
from pydantic import ValidationError

from lora_core.specs.method import HeadMode, LayerRole, LoraSpec, LoraVariant
from lora_core.specs.train import PRESETS, Preset, TrainSpec


@pytest.mark.parametrize("name", list(Preset))
def test_every_preset_is_a_valid_spec(name: Preset) -> None:
    spec = TrainSpec.model_validate({"preset": name})
    dumped = spec.model_dump(mode="json")
    for section, settings in PRESETS[name].items():
        expected = dumped[section] | settings if isinstance(settings, dict) else settings
        assert dumped[section] == expected
    assert TrainSpec.model_validate(dumped) == spec


def test_seed_preset_adapts_query_and_value_only() -> None:
    spec = TrainSpec.model_validate({"preset": "seed"})
    assert spec.method == LoraSpec(
        variant=LoraVariant.UNSCALED,
        r=8,
        alpha=16,
        targets=(LayerRole.QUERY, LayerRole.VALUE),
        head=HeadMode.FROZEN,
    )
    assert (spec.optim.epochs, spec.optim.batch_size, spec.optim.learning_rate) == (3, 12, 5e-5)


def test_explicit_settings_override_the_preset() -> None:
    given = {"preset": "seed", "method": {"type": "lora", "r": 4}, "optim": {"epochs": 1}}
    spec = TrainSpec.model_validate(given)
    assert isinstance(spec.method, LoraSpec)
    assert (spec.method.r, spec.method.variant) == (4, LoraVariant.UNSCALED)
    assert (spec.optim.epochs, spec.optim.batch_size) == (1, 12)


def test_other_method_keeps_the_other_preset_settings() -> None:
    spec = TrainSpec.model_validate({"preset": "seed", "method": {"type": "full"}})
    assert spec.method.type == "full"
    assert spec.optim.batch_size == 12


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"preset": "sead", "method": {"type": "full"}}, ("preset",)),
        ({"preset": ["seed"], "method": {"type": "full"}}, ("preset",)),
        ({"preset": "seed", "optim": 3}, ("optim",)),
        ({"preset": "seed", "optim": {"epoch": 3}}, ("optim", "epoch")),
        ({"preset": "seed", "method": {"type": 7}}, ("method",)),
        ({"method": None}, ("method",)),
    ],
)
def test_invalid_setting_is_refused_at_its_path(
    given: dict[str, Any], place: tuple[str, ...]
) -> None:
    with pytest.raises(ValidationError) as refused:
        TrainSpec.model_validate(given)
    assert refused.value.errors()[0]["loc"] == place
