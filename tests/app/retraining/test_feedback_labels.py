"""Which live texts are for training, which for evaluation, and which are left out."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from app.feedback.tables import Feedback
from app.retraining import merged_texts
from app.retraining.feedback_labels import (
    LiveText,
    TaskIOSchema,
    hash_normalized_text,
    is_held_out,
    resolve_feedback_labels,
)
from app.retraining.merged_texts import (
    MergedTextCounts,
    build_merged_data_spec,
    build_merged_file_task_spec,
    write_training_and_evaluation_files,
)
from app.retraining.schemas import TextExclusionReason
from lora_core.data.labeled_split_rows_file import LabeledSplitRow
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.task import SeveralTargetsSpec, SingleLabelSpec, TaskSpec

ONE = TaskIOSchema({"": "single_label"}, pairs=False)


def row(text: str, label: str, **changes: Any) -> Feedback:
    values = {"text_pair": None, "target": "", "task": "single_label", "author": "a"}
    return Feedback(**values | {"text": text, "label": label, "sampled": False} | changes)


def test_newest_label_of_an_author_counts() -> None:
    texts, left_out = resolve_feedback_labels([row("t", "x"), row(" t ", "y")], ONE)
    assert [(each.text, each.label) for each in texts] == [(" t ", "y")]
    assert not left_out


def test_authors_who_disagree() -> None:
    texts, left_out = resolve_feedback_labels([row("t", "x"), row("t", "y", author="b")], ONE)
    assert (texts, left_out) == ([], {TextExclusionReason.DISAGREEMENT: 1})
    texts, _ = resolve_feedback_labels(
        [row("t", "x"), row("t", "y", author="b"), row("t", "y")], ONE
    )  # `a` changed their mind
    assert [each.label for each in texts] == ["y"]


def test_numbers_of_several_authors_are_averaged() -> None:
    form = TaskIOSchema({"": "regression"}, pairs=False)
    rows = [row("t", "1.0", task="regression"), row("t", "2.0", task="regression", author="b")]
    assert [each.label for each in resolve_feedback_labels(rows, form)[0]] == ["1.5"]


def test_text_that_was_drawn_once_stays_drawn() -> None:
    texts, _ = resolve_feedback_labels([row("t", "x", sampled=True), row("t", "x")], ONE)
    assert texts[0].sampled


def test_other_tasks_and_forms() -> None:
    rows = [
        row("number", "1.0", task="regression"),
        row("pair", "x", text_pair="second"),
        row("target", "x", target="topic"),
        row("right", "x"),
        row("right", '["y"]', task="multi_label"),
        row("newer", "x", target="topic"),
        row("newer", "y"),
    ]
    texts, left_out = resolve_feedback_labels(rows, ONE)
    assert [(each.text, each.label) for each in texts] == [("right", "x"), ("newer", "y")]
    assert left_out == {TextExclusionReason.OTHER_TASK: 3}


def test_texts_that_are_not_known() -> None:
    without_text = row("", "x")
    without_text.text = None
    assert resolve_feedback_labels([without_text], ONE) == ([], Counter())


def test_several_targets_need_all_of_them() -> None:
    form = TaskIOSchema({"stars": "regression", "topic": "single_label"}, pairs=False)
    rows = [
        row("whole", "4.0", target="stars", task="regression"),
        row("whole", "billing", target="topic"),
        row("half", "billing", target="topic"),
    ]
    texts, left_out = resolve_feedback_labels(rows, form)
    assert [json.loads(each.label) for each in texts] == [{"stars": 4.0, "topic": "billing"}]
    assert left_out == {TextExclusionReason.INCOMPLETE: 1}


def test_half_of_the_texts_is_held_out() -> None:
    held_out = sum(is_held_out(hash_normalized_text(f"text {i}", None)) for i in range(2000))
    assert 920 < held_out < 1080
    assert hash_normalized_text("a", "b") != hash_normalized_text("a\0b"[:1], None)
    assert hash_normalized_text(" caf\u00e9 ", None) == hash_normalized_text("cafe\u0301", None)


# -- The merged texts ----------------------------------------------------------------------------

HELD_OUT = next(f"t{i}" for i in range(99) if is_held_out(hash_normalized_text(f"t{i}", None)))
NOT_HELD_OUT = next(
    f"t{i}" for i in range(99) if not is_held_out(hash_normalized_text(f"t{i}", None))
)
BASE = [
    LabeledSplitRow(Split.TRAIN, 1, "one", None, "a"),
    LabeledSplitRow(Split.TRAIN, 2, "two", None, "b"),
    LabeledSplitRow(Split.VALIDATION, 3, "three", None, "a"),
    LabeledSplitRow(Split.TEST, 4, "four", None, "b"),
]


class MergedFiles:
    """What `write_training_and_evaluation_files` writes."""

    def __init__(
        self,
        directory: Path,
        live: Sequence[LiveText],
        rows: Sequence[LabeledSplitRow] = BASE,
        *,
        task: TaskSpec | None = None,
        first_live_row: int | None = None,
        forgotten: Sequence[str] = (),
    ) -> None:
        files = directory / "training", directory / "evaluation"
        self.files: MergedTextCounts = write_training_and_evaluation_files(
            lambda: rows,
            live,
            Counter(),
            source="data:1",
            task=task or SingleLabelSpec(),
            first_live_row=first_live_row,
            is_forgotten=lambda text, _: text in forgotten,
            training_file=files[0],
            evaluation_file=files[1],
        )
        self.training, self.evaluation = (
            [json.loads(line) for line in file.read_text().splitlines()] for file in files
        )


def live(text: str, label: str = "a", *, sampled: bool = False) -> LiveText:
    return LiveText(text, None, label, sampled)


def test_half_of_the_drawn_texts_is_for_evaluation_all_others_for_training(tmp_path: Path) -> None:
    found = MergedFiles(
        tmp_path, [live(HELD_OUT, sampled=True), live(NOT_HELD_OUT, sampled=True), live("v")]
    )
    assert found.training[-2:] == [
        {"text": NOT_HELD_OUT, "label": "a", "split": "train"},
        {"text": "v", "label": "a", "split": "train"},
    ]
    assert found.evaluation == [
        {"text": "four", "label": "b", "part": "test"},
        {"text": HELD_OUT, "label": "a", "part": "live"},
    ]
    counts = found.files.counts
    assert (counts.train, counts.validation, counts.test) == (2, 1, 1)
    assert (counts.live_sampled, counts.live_volunteered, counts.new) == (1, 1, 2)
    assert (counts.evaluated_test, counts.evaluated_live) == (1, 1)
    assert found.files.kept_rows == 4


def test_volunteered_text_of_the_held_out_half_trains(tmp_path: Path) -> None:
    found = MergedFiles(tmp_path, [live(HELD_OUT)])
    assert found.files.counts.live_volunteered == 1
    assert found.files.counts.evaluated_live == 0


def test_text_that_production_was_trained_on_is_never_for_evaluation(tmp_path: Path) -> None:
    """It was volunteered, trained a version, and was drawn later."""
    rows = [*BASE, LabeledSplitRow(Split.TRAIN, 5, HELD_OUT, None, "a")]
    found = MergedFiles(tmp_path, [live(HELD_OUT, sampled=True)], rows, first_live_row=5)
    assert found.files.counts.evaluated_live == 0
    assert found.files.counts.live_sampled == 1
    assert found.files.counts.new == 0


def test_texts_of_validation_and_test_are_left_out(tmp_path: Path) -> None:
    found = MergedFiles(tmp_path, [live("three"), live(" four ", sampled=True)])
    assert found.files.counts.left_out == {TextExclusionReason.IN_EVALUATION_SPLIT: 2}
    assert len(found.training) == 4


def test_feedback_replaces_a_row(tmp_path: Path) -> None:
    """The row stays in its place: it is one of the data, though its label is corrected."""
    found = MergedFiles(tmp_path, [live("one", "b"), live("v")])
    assert found.training[0] == {"text": "one", "label": "b", "split": "train"}
    assert [each["text"] for each in found.training] == ["one", "two", "three", "four", "v"]
    assert (found.files.counts.replaced, found.files.counts.new) == (1, 2)
    assert found.files.kept_rows == 4


def test_row_outlives_its_feedback(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    found = MergedFiles(first, [live("one", "b"), live("v")])
    rows = [
        LabeledSplitRow(Split(each["split"]), number, each["text"], None, each["label"])
        for number, each in enumerate(found.training, start=1)
    ]
    found = MergedFiles(second, [], rows, first_live_row=found.files.kept_rows + 1)
    assert [each["text"] for each in found.training] == ["one", "two", "three", "four"]
    assert found.training[0]["label"] == "b"


def test_test_part_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [LabeledSplitRow(Split.TEST, i, f"test {i}", None, "a") for i in range(1, 24)]
    everything = sorted((hash_normalized_text(row.text, None), row.text) for row in rows)
    monkeypatch.setattr(merged_texts, "MAX_EVALUATED", 3)
    found = MergedFiles(tmp_path, [], rows)
    assert [each["text"] for each in found.evaluation] == [text for _, text in everything[:3]]


def test_one_copy_of_a_test_text_is_evaluated(tmp_path: Path) -> None:
    """They are no independent texts, which the level of the test takes them for."""
    copies = [LabeledSplitRow(Split.TEST, i, f"{' ' * i}four", None, "a") for i in range(5, 65)]
    found = MergedFiles(tmp_path, [], [*BASE, *copies])
    assert found.evaluation == [{"text": "four", "label": "b", "part": "test"}]
    assert (found.files.counts.test, found.files.counts.evaluated_test) == (61, 1)


def test_live_rows_of_an_earlier_run_are_dropped(tmp_path: Path) -> None:
    rows = [*BASE, LabeledSplitRow(Split.TRAIN, 5, "retracted", None, "a")]
    found = MergedFiles(tmp_path, [live("v")], rows, first_live_row=5)
    assert "retracted" not in {each["text"] for each in found.training}
    assert found.files.kept_rows == 4


def test_test_text_that_is_also_in_train_is_not_for_evaluation(tmp_path: Path) -> None:
    rows = [*BASE, LabeledSplitRow(Split.TEST, 5, "one", None, "a")]
    found = MergedFiles(tmp_path, [live("v")], rows)
    assert [each["text"] for each in found.evaluation] == ["four"]


def test_forgotten_texts(tmp_path: Path) -> None:
    found = MergedFiles(tmp_path, [live("v"), live("w")], forgotten=["one", "four", "v"])
    assert [each["text"] for each in found.training] == ["two", "three", "w"]
    assert found.evaluation == []
    assert found.files.counts.forgotten_rows == 2
    assert found.files.counts.left_out == {TextExclusionReason.FORGOTTEN: 1}


def test_columns_of_several_targets_never_collide(tmp_path: Path) -> None:
    task = SeveralTargetsSpec.model_validate(
        {"targets": {"text": {"type": "single_label"}, "split": {"type": "multi_label"}}}
    )
    label = json.dumps({"split": ["x"], "text": "a"})
    found = MergedFiles(
        tmp_path, [live("v", label)], [LabeledSplitRow(Split.TRAIN, 1, "t", None, label)], task=task
    )
    assert found.training[1] == {
        "text": "v",
        "label.split": ["x"],
        "label.text": "a",
        "split": "train",
    }
    read = build_merged_file_task_spec(task)
    assert isinstance(read, SeveralTargetsSpec)
    assert {name: each.column for name, each in read.targets.items()} == {
        "split": "label.split",
        "text": "label.text",
    }


@pytest.mark.parametrize("pairs", [False, True])
def test_lengths_of_production_are_kept(pairs: bool) -> None:
    data = DataSpec(
        source="old:1",
        text_column="body",
        text_pair_column="reply" if pairs else None,
        max_length=64,
        train_size=10,
        label_separator=";",
    )
    read = build_merged_data_spec(data, "new:2")
    assert (read.source, read.text_column, read.max_length) == ("new:2", "text", 64)
    assert (read.text_pair_column, read.split_column) == ("text_pair" if pairs else None, "split")
    assert (read.train_size, read.label_separator) == (None, None)
