"""Several targets in one file: how they are read, checked and divided."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from lora_core.data.checks import check_data
from lora_core.data.file_inspection import build_profile, read_contents
from lora_core.data.label_readers import LabelFormat, build_targets_spec, list_target_columns
from lora_core.data.load import load_splits
from lora_core.data.rows import ColumnSelection
from lora_core.data.split import assign_folds
from lora_core.errors import LoraCoreError
from lora_core.errors.data import (
    LabelNotNumber,
    MissingColumn,
    MissingTargetValue,
    SingleClass,
)
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.task import SeveralTargetsSpec
from lora_core.specs.train import TrainSpec

TARGETS: dict[str, Any] = {
    "topic": {"type": "single_label"},
    "stars": {"type": "regression", "column": "rating"},
    "flags": {"type": "multi_label", "label_columns": ["urgent", "rude"]},
}
TASK = SeveralTargetsSpec.model_validate({"targets": TARGETS})


def write(path: Path, **cells: str) -> Path:
    """One row in ten is about refunds. `cells` replace those of the last row."""
    rows = [
        {
            "text": f"ticket number {i}",
            "topic": "refund" if i % 10 == 0 else "billing",
            "rating": str(i % 7),
            "urgent": str(int(i % 5 == 0)),
            "rude": str(int(i % 25 == 1)),
        }
        for i in range(200)
    ]
    rows[-1] |= cells
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_rows_become_targets(tmp_path: Path) -> None:
    splits = load_splits(DataSpec(source=str(write(tmp_path / "tickets.csv"))), TASK)
    assert splits.labels == (
        "flags/rude", "flags/urgent", "stars/value", "topic/billing", "topic/refund",
    )  # fmt: skip
    for split in Split:
        for example in splits.examples_of(split):
            i = int(example.text.split()[-1])
            flags = tuple(n for n, has in enumerate((i % 25 == 1, i % 5 == 0)) if has)
            assert example.label == {
                "flags": flags, "stars": float(i % 7), "topic": int(i % 10 == 0),
            }  # fmt: skip


def test_splits_and_folds_have_a_share_of_every_label(tmp_path: Path) -> None:
    splits = load_splits(DataSpec(source=str(write(tmp_path / "tickets.csv"))), TASK)
    refunds = [sum(e.label["topic"] for e in splits.examples_of(split)) for split in Split]
    urgent = [sum(1 in e.label["flags"] for e in splits.examples_of(split)) for split in Split]
    stars = [[e.label["stars"] for e in splits.examples_of(split)] for split in Split]
    assert refunds == [14, 2, 4]
    assert urgent == [28, 4, 8]
    assert np.ptp([np.mean(each) for each in stars]) < 0.4
    folds = assign_folds(splits.train, seed=0)
    per_fold = Counter(
        fold for fold, each in zip(folds, splits.train, strict=True) if each.label["topic"]
    )
    assert set(per_fold.values()) <= {2, 3}


@pytest.mark.parametrize(
    ("cells", "error", "words"),
    [
        ({"topic": ""}, MissingTargetValue, "target 'topic' (column topic): 1 (first: 200)"),
        ({"rude": ""}, MissingTargetValue, "target 'flags' (column urgent, rude)"),
        ({"rating": "good"}, LabelNotNumber, "column 'rating'"),
    ],
)
def test_bad_cells_name_target_and_column(
    cells: dict[str, str], error: type[LoraCoreError], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as raised:
        load_splits(DataSpec(source=str(write(tmp_path / "tickets.csv", **cells))), TASK)
    assert words in str(raised.value)


def test_bad_columns_name_target_and_column(tmp_path: Path) -> None:
    data = DataSpec(source=str(write(tmp_path / "tickets.csv")))
    absent = {**TARGETS, "mood": {"type": "single_label"}}
    with pytest.raises(MissingColumn, match="'mood'") as raised:
        load_splits(data, SeveralTargetsSpec.model_validate({"targets": absent}))
    assert "column of each target" in raised.value.detail["advice"]
    path = tmp_path / "constant.jsonl"
    rows = [{"text": f"text {i}", "topic": "all", "stars": i} for i in range(50)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = {"topic": {"type": "single_label"}, "stars": {"type": "regression"}}
    with pytest.raises(SingleClass, match="column 'topic'"):
        load_splits(
            DataSpec(source=str(path)), SeveralTargetsSpec.model_validate({"targets": task})
        )


def test_profile_and_checks_of_each_target(tmp_path: Path) -> None:
    label_format = LabelFormat("several_targets", targets=list_target_columns(TASK))
    described = build_targets_spec(label_format.targets)
    again = SeveralTargetsSpec.model_validate({"targets": described})
    assert list_target_columns(again) == label_format.targets
    contents = read_contents(
        write(tmp_path / "tickets.csv"), ColumnSelection(label_format=label_format)
    )
    profile = build_profile(contents)
    assert profile.task == "several_targets"
    assert profile.targets == described
    assert profile.labels["topic/refund"] == 20
    assert profile.labels["flags/urgent"] == 40
    report = check_data(contents)
    topic, stars, flags = (report.targets[name] for name in ("topic", "stars", "flags"))
    assert topic.balance is not None
    assert topic.balance.baseline == pytest.approx(0.9)
    assert stars.numbers is not None
    assert stars.numbers.maximum == 6
    assert flags.label_sets is not None
    messages = {finding.code: finding.message for finding in report.findings}
    assert messages["imbalanced"].startswith("topic: ")
    assert messages["rare_labels"].startswith("flags: ")
    assert messages["ranks"].startswith("stars: ")


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        ({"targets": {"topic": {}}}, "at least 2 items"),
        ({"targets": {"a/b": {}, "c": {}}}, "cannot be the name of a target"),
        ({"targets": {"a": {"type": "several_targets"}, "c": {}}}, "expected tags"),
        ({"targets": {"a": {"weight": 0.0}, "c": {}}}, "greater than 0"),
        ({"targets": '{"a":' * 1500}, "nested too deeply"),
        (
            {
                "targets": {
                    "a": {"type": "multi_label", "label_columns": ["x"], "column": "y"},
                    "c": {},
                }
            },
            "label_columns excludes",
        ),
    ],
)
def test_invalid_targets(task: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        TrainSpec.model_validate({"task": {"type": "several_targets", **task}})


def test_label_column_excludes_several_targets() -> None:
    with pytest.raises(ValidationError, match="each target has its own column"):
        TrainSpec.model_validate({"task": TASK.model_dump(), "data": {"label_column": "topic"}})
