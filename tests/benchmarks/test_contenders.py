"""What is compared is what it is called."""

import pytest

from benchmarks.accuracy import changes, contenders
from benchmarks.accuracy.changes import CHANGES
from benchmarks.accuracy.contenders import CONTENDERS, FULL, described, few
from lora_core.data.load import load_splits
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.method import LoraSpec
from lora_core.specs.train import OptimSpec, RuntimeSpec, StopSpec, TrainSpec


@pytest.mark.parametrize("name", FULL)
def test_the_defaults_are_those_of_the_project(name: str) -> None:
    spec = described(CONTENDERS["lora"], FULL[name], seed=2)
    assert spec == TrainSpec(method=LoraSpec(), data=FULL[name], runtime=RuntimeSpec(seed=2))


def test_the_plain_loop_says_everything_and_so_stays_the_same() -> None:
    said = CONTENDERS["plain"]
    assert said["method"].keys() == LoraSpec.model_fields.keys() - {"layers"}
    assert said["optim"].keys() == OptimSpec.model_fields.keys() - {"micro_batch_tokens"}
    assert said["stop"].keys() == StopSpec.model_fields.keys() - {"patience"}


@pytest.mark.parametrize("data", [*FULL.values(), *changes.DATA.values()])
def test_there_are_texts_enough(data: DataSpec) -> None:
    splits = load_splits(data)
    sizes = [len(splits.examples(split)) for split in Split]
    assert sizes == [data.train_size, data.validation_size, data.test_size]


def test_every_cell_has_a_name_of_its_own() -> None:
    table = [*contenders.cells(few(FULL))]
    names = [cell.name for cell in (*table, *changes.cells([], few(changes.DATA)))]
    assert len(set(names)) == len(names)
    assert len(table) == 3 * (1 + 3 * 2) + 2 * 3  # seed and plain on the smallest data alone
    assert {cell.judged_on for cell in table} == {Split.TEST}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_changes_what_it_says_and_no_more(name: str) -> None:
    before = described(CONTENDERS["lora"], FULL["imdb-8000"], seed=1)
    told, after = before.model_dump(), changes.changed(before, CHANGES[name]).model_dump()
    assert after == told | {
        section: values if "type" in values else told[section] | values
        for section, values in CHANGES[name].items()
    }
    assert changes.is_default(name) == (after == told)


def test_what_is_the_default_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    rate = OptimSpec().weight_decay
    same, other = {"optim": {"weight_decay": rate}}, {"optim": {"weight_decay": 2 * rate}}
    monkeypatch.setattr(changes, "CHANGES", {"same": same, "other": other})
    found = [*changes.cells([], {"few": DataSpec()})]
    assert [cell.name for cell in found[2:4]] == ["few/defaults/2", "few/other/0"]
    assert len(found) == 6
