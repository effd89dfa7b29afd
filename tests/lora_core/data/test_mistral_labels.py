"""Lines with an object of labels: their names are columns, and messages are a text."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_core.data.file_inspection import build_profile, read_contents, read_file_layout
from lora_core.data.label_readers import LabelFormat, list_target_columns
from lora_core.data.mistral_labels import infer_task_type_by_target
from lora_core.data.rows import ColumnSelection
from lora_core.errors import LoraCoreError
from lora_core.errors.data import (
    DataTooLarge,
    MalformedRow,
    MissingColumn,
    MissingLabel,
    MissingTargetValue,
)
from lora_core.specs.chat import PromptFormat
from lora_core.specs.task import SeveralTargetsSpec

TARGETS = {"flags": {"type": "multi_label"}, "topic": {"type": "single_label"}}
SEVERAL = ColumnSelection(
    label_format=LabelFormat(
        "several_targets",
        targets=list_target_columns(SeveralTargetsSpec.model_validate({"targets": TARGETS})),
    )
)
TOPIC = ColumnSelection(label="topic")


def record(text: str, **labels: Any) -> dict[str, Any]:
    return {"text": text, "labels": labels}


def chat(labels: dict[str, Any], *turns: tuple[str, str]) -> dict[str, Any]:
    return {
        "messages": [{"role": role, "content": content} for role, content in turns],
        "labels": labels,
    }


RECORDS = [
    record("my parcel", topic="shipping", flags=["urgent"]),
    record("charged twice", topic="billing", flags=[]),
    record("where is it", topic="shipping", flags="rude"),
]


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "mails.jsonl", RECORDS)


def test_targets_are_what_any_line_has(file: Path) -> None:
    assert infer_task_type_by_target(file) == {"topic": "single_label", "flags": "multi_label"}
    assert read_file_layout(file).targets == {"topic": "single_label", "flags": "multi_label"}
    assert set(read_file_layout(file).columns) == {"text", "topic", "flags"}


def test_one_of_the_labels_is_a_label_column(file: Path) -> None:
    found = read_contents(file, TOPIC)
    assert [(row.text, row.label) for row in found.rows] == [
        ("my parcel", "shipping"), ("charged twice", "billing"), ("where is it", "shipping"),
    ]  # fmt: skip
    assert build_profile(found).labels == {"billing": 1, "shipping": 2}


def test_a_name_alone_is_a_set_of_one(file: Path) -> None:
    columns = ColumnSelection(label="flags", label_format=LabelFormat("multi_label"))
    labels = [json.loads(row.label) for row in read_contents(file, columns).rows]
    assert labels == [["urgent"], [], ["rude"]]


def test_several_labels_are_several_targets(file: Path) -> None:
    found = read_contents(file, SEVERAL)
    assert [json.loads(row.label) for row in found.rows] == [
        {"flags": ["urgent"], "topic": "shipping"},
        {"flags": [], "topic": "billing"},
        {"flags": ["rude"], "topic": "shipping"},
    ]
    assert found.labels == ("flags/rude", "flags/urgent", "topic/billing", "topic/shipping")


def test_messages_are_read_as_a_prompt_in_chat_form(tmp_path: Path) -> None:
    system = ("system", "You sort mail.")
    records = [
        chat({"topic": "shipping"}, system, ("user", "Sort: where is my parcel?")),
        chat({"topic": "billing"}, system, ("user", "Sort: refund"), ("assistant", "of what?"),
             ("user", "Sort: the shoes")),
    ]  # fmt: skip
    found = read_contents(write(tmp_path / "chats.jsonl", records), TOPIC)
    assert [row.text for row in found.rows] == [
        "where is my parcel?", "Sort: refund\nof what?\nthe shoes",
    ]  # fmt: skip
    assert build_profile(found).prompt_format == PromptFormat(prefix="Sort:")


def test_a_conversation_without_a_user_is_read(tmp_path: Path) -> None:
    records = [
        chat({"topic": "a"}, ("assistant", "Hello.")),
        chat({"topic": "b"}, ("user", "Bye."), ("assistant", "Bye.")),
    ]
    found = read_contents(write(tmp_path / "chats.jsonl", records), TOPIC)
    assert [row.text for row in found.rows] == ["Hello.", "Bye.\nBye."]


def test_the_format_of_the_training_data_is_used(tmp_path: Path) -> None:
    path = write(tmp_path / "chats.jsonl", [chat({"topic": "a"}, ("user", "Sort: a")),
                                            chat({"topic": "b"}, ("user", "b"))])  # fmt: skip
    columns = ColumnSelection(label="topic", prompt_format=PromptFormat(prefix="Sort:"))
    assert [row.text for row in read_contents(path, columns).rows] == ["a", "b"]


def test_examples_in_chat_form_keep_their_answer_as_the_label(tmp_path: Path) -> None:
    turns = (("user", "fine film"), ("assistant", "good")), (("user", "mess"), ("assistant", "bad"))
    path = write(tmp_path / "films.jsonl", [chat({"source": "web"}, *each) for each in turns])
    found = read_contents(path, ColumnSelection())
    assert [(row.text, row.label) for row in found.rows] == [("fine film", "good"), ("mess", "bad")]


def test_messages_without_an_answer_may_have_a_label_of_the_default_name(tmp_path: Path) -> None:
    records = [chat({"label": label}, ("user", text)) for text, label in (("x", "a"), ("y", "b"))]
    found = read_contents(write(tmp_path / "chats.jsonl", records), ColumnSelection())
    assert [(row.text, row.label) for row in found.rows] == [("x", "a"), ("y", "b")]


def test_a_field_has_precedence_over_a_label_of_its_name(tmp_path: Path) -> None:
    records = [{**record(f"text {name}", label="other"), "label": name} for name in "ab"]
    path = write(tmp_path / "mails.jsonl", records)
    assert [row.label for row in read_contents(path, ColumnSelection()).rows] == ["a", "b"]
    assert infer_task_type_by_target(path) == {}


def test_names_are_in_one_unicode_form(tmp_path: Path) -> None:
    labels = {"the\u0301me": "x"}, {"th\u00e9me": "y"}
    path = write(
        tmp_path / "mails.jsonl", [record(f"t{i}", **each) for i, each in enumerate(labels)]
    )
    found = read_contents(path, ColumnSelection(label="th\u00e9me"))
    assert [row.label for row in found.rows] == ["x", "y"]


@pytest.mark.parametrize(
    "content",
    ["", '{"text": "a", "label": "b"}\n', '{"text": "a", "labels": ["b"]}\n', "text,label\na,b\n"],
)
def test_other_files_have_no_targets(content: str, tmp_path: Path) -> None:
    path = tmp_path / "mails.jsonl"
    path.write_text(content, encoding="utf-8")
    if content.startswith("text"):
        with pytest.raises(MalformedRow):
            infer_task_type_by_target(path)
    else:
        assert infer_task_type_by_target(path) == {}


BAD: list[tuple[list[dict[str, Any]], ColumnSelection, type[LoraCoreError], str]] = [
    ([*RECORDS, record("a", topic=None, flags=[])], SEVERAL, MissingTargetValue, "4"),
    ([*RECORDS, record("a", flags=[])], SEVERAL, MissingTargetValue, "4"),
    ([*RECORDS, {"text": "a"}], TOPIC, MissingLabel, "4"),
    ([*RECORDS, {"text": "a", "labels": "x"}], TOPIC, MissingLabel, "4"),
    ([*RECORDS, record("a", topic={"b": "c"})], TOPIC, MalformedRow, "a dict"),
    (RECORDS, ColumnSelection(label="stars"), MissingColumn, "stars"),
]


@pytest.mark.parametrize(("records", "columns", "error", "words"), BAD)
def test_lines_that_are_refused(
    records: list[dict[str, Any]],
    columns: ColumnSelection,
    error: type[LoraCoreError],
    words: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=words):
        read_contents(write(tmp_path / "mails.jsonl", records), columns)


def test_messages_that_are_refused(tmp_path: Path) -> None:
    records = [chat({"topic": "a"}, ("user", "x")), chat({"topic": "b"}, ("tool", "x"))]
    with pytest.raises(MalformedRow, match="row 2: message 1 has the role 'tool'"):
        read_contents(write(tmp_path / "chats.jsonl", records), TOPIC)


@pytest.mark.parametrize("name", ["", "x" * 257, "a\nb"])
def test_names_that_no_column_can_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(MalformedRow, match="1 to 256 printable"):
        infer_task_type_by_target(write(tmp_path / "mails.jsonl", [record("a", **{name: "b"})]))


def test_too_many_names(tmp_path: Path) -> None:
    labels = {f"l{i}": "a" for i in range(513)}
    with pytest.raises(DataTooLarge, match="512"):
        infer_task_type_by_target(write(tmp_path / "mails.jsonl", [record("a", **labels)]))
