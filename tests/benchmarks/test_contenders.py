"""The contenders have the settings that their names promise."""

import pytest

from benchmarks.accuracy import changes
from benchmarks.accuracy.contenders import CONTENDERS, FULL, described
from lora_core.data.load import load_splits
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.method import LoraSpec
from lora_core.specs.train import RuntimeSpec, TrainSpec
from tests.slow import slow_but


@pytest.mark.parametrize("name", FULL)
def test_defaults_are_those_of_the_project(name: str) -> None:
    spec = described(CONTENDERS["lora"], FULL[name], seed=2)
    assert spec == TrainSpec(method=LoraSpec(), data=FULL[name], runtime=RuntimeSpec(seed=2))


DATA = [*FULL.values(), *changes.DATA.values()]


@pytest.mark.parametrize("data", slow_but(DATA, DATA[0]))
def test_dataset_has_enough_texts(data: DataSpec) -> None:
    splits = load_splits(data)
    sizes = [len(splits.examples_of(split)) for split in Split]
    assert sizes == [data.train_size, data.validation_size, data.test_size]
