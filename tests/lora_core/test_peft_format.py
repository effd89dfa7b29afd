"""The config of an adapter, as anybody may have written it."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_core import peft_format
from lora_core.errors.adapter import AdapterNotFound, UnsupportedAdapterSetting
from lora_core.peft_format import AdapterConfig
from tests.slow import slow_but

NAME = "encoder.layer.3.attention"


def read(directory: Path, **settings: Any) -> AdapterConfig:
    """Read the config of an adapter on attention layers with these settings."""
    config = {"peft_type": "LORA", "task_type": "SEQ_CLS", "target_modules": ["attention"]}
    (directory / peft_format.CONFIG_FILE).write_text(json.dumps(config | settings))
    (directory / peft_format.WEIGHTS_FILE).touch()
    return peft_format.read_adapter_config(directory)


@pytest.mark.parametrize(
    "settings",
    [
        {"layers_pattern": "("},
        {"rank_pattern": {"(?x)attention#": 4}},  # the rest of ours would be a comment
        {"alpha_pattern": {"x{99999999999}": 4}},
        {"modules_to_save": ["x)|(x"]},
        {"target_modules": "*"},
        {"modules_to_save": ["(" * 5_000 + ")" * 5_000]},
    ],
)
def test_invalid_pattern_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedAdapterSetting, match="an invalid pattern"):
        read(tmp_path, **settings)


@pytest.mark.parametrize(
    "pattern",
    slow_but([r"(\w|\w\w)*\d", r"(x|xx)+[^x]"], r"(x|xx)+[^x]"),  # each takes a second
)
def test_slow_pattern_is_refused(tmp_path: Path, pattern: str) -> None:
    config = read(tmp_path, target_modules=pattern)
    with pytest.raises(UnsupportedAdapterSetting, match="takes more than 1 s"):
        config.adapts("x" * 5_000)


def test_pattern_without_a_number_selects_no_block(tmp_path: Path) -> None:
    config = read(tmp_path, layers_to_transform=[3], layers_pattern="encoder|x")
    assert not config.adapts(NAME)
    config = read(tmp_path, layers_to_transform=[3], layers_pattern="(?P<index>layer)")
    assert config.adapts(NAME)
    assert read(tmp_path, layers_to_transform=[3], layers_pattern="layer").adapts(NAME)


def test_full_name_is_adapted_in_any_block(tmp_path: Path) -> None:
    """As PEFT does it: `layers_to_transform` restricts suffixes."""
    assert read(tmp_path, target_modules=[NAME], layers_to_transform=[0]).adapts(NAME)
    assert not read(tmp_path, layers_to_transform=[0]).adapts(NAME)


def test_deeply_nested_config_is_refused(tmp_path: Path) -> None:
    read(tmp_path)
    (tmp_path / peft_format.CONFIG_FILE).write_text("[" * 100_000)
    with pytest.raises(AdapterNotFound, match="not JSON"):
        peft_format.read_adapter_config(tmp_path)
