"""What a preset adds to a description, and what it leaves alone."""

from typing import Any

import pytest
from pydantic import ValidationError

from lora_core.specs.method import HeadMode, LoraSpec, LoraVariant, Role
from lora_core.specs.presets import PRESETS, Preset
from lora_core.specs.train import TrainSpec


@pytest.mark.parametrize("name", list(Preset))
def test_every_preset_is_a_run_by_itself(name: Preset) -> None:
    spec = TrainSpec.model_validate({"preset": name})
    dumped = spec.model_dump(mode="json")
    for section, settings in PRESETS[name].items():
        expected = dumped[section] | settings if isinstance(settings, dict) else settings
        assert dumped[section] == expected
    assert TrainSpec.model_validate(dumped) == spec


def test_the_seed_trains_adapters_of_query_and_value_alone() -> None:
    spec = TrainSpec.model_validate({"preset": "seed"})
    assert spec.method == LoraSpec(
        variant=LoraVariant.UNSCALED,
        r=8,
        alpha=16,
        targets=(Role.QUERY, Role.VALUE),
        head=HeadMode.FROZEN,
    )
    assert (spec.optim.epochs, spec.optim.batch_size, spec.optim.learning_rate) == (3, 12, 5e-5)


def test_what_is_said_wins_one_by_one() -> None:
    said = {"preset": "seed", "method": {"type": "lora", "r": 4}, "optim": {"epochs": 1}}
    spec = TrainSpec.model_validate(said)
    assert isinstance(spec.method, LoraSpec)
    assert (spec.method.r, spec.method.variant) == (4, LoraVariant.UNSCALED)
    assert (spec.optim.epochs, spec.optim.batch_size) == (1, 12)


def test_another_method_takes_the_rest() -> None:
    spec = TrainSpec.model_validate({"preset": "seed", "method": {"type": "full"}})
    assert spec.method.type == "full"
    assert spec.optim.batch_size == 12


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ({"preset": "sead", "method": {"type": "full"}}, ("preset",)),
        ({"preset": ["seed"], "method": {"type": "full"}}, ("preset",)),
        ({"preset": "seed", "optim": 3}, ("optim",)),
        ({"preset": "seed", "optim": {"epoch": 3}}, ("optim", "epoch")),
        ({"preset": "seed", "method": {"type": 7}}, ("method",)),
        ({"method": None}, ("method",)),
    ],
)
def test_nonsense_is_refused_where_it_stands(said: dict[str, Any], place: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        TrainSpec.model_validate(said)
    assert refused.value.errors()[0]["loc"] == place
