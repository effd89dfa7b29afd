"""Exports of Label Studio: tasks become rows, and choices become labels.

The files in `tests/assets/label_studio` were exported by Label Studio itself; `tests/e2e` exports
them again.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_core.data import checks, file_inspection, files, load
from lora_core.data.label_readers import LabelFormat, list_target_columns
from lora_core.data.rows import ColumnSelection
from lora_core.errors import LoraCoreError
from lora_core.errors.data import (
    EmptyData,
    MalformedRow,
    MissingColumn,
    NoAnnotations,
    NoChoiceAnnotations,
    SeveralLabelStudioChoices,
    SingleClass,
    UndecodableText,
)
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.task import MultiLabelSpec, SeveralTargetsSpec

ASSETS = Path(__file__).parents[2] / "assets" / "label_studio"
MULTI_LABEL = ColumnSelection(label_format=LabelFormat("multi_label"))
TARGETS = SeveralTargetsSpec.model_validate({"targets": "mood,topic=multi_label"})

Record = dict[str, Any]
Write = Callable[..., Path]


def choices(*chosen: str, control: str = "sentiment") -> Record:
    """A result: what was chosen."""
    value = {"choices": list(chosen)}
    return {"from_name": control, "to_name": "text", "type": "choices", "value": value}


def annotation(*results: Record, day: int = 1, **fields: Any) -> Record:
    at = f"2026-11-{day:02}T10:00:00.000000Z"
    return {"id": day, "result": list(results), "created_at": at, "updated_at": at, **fields}


def task(text: str, *annotations: Record, **data: Any) -> Record:
    return {"id": 7, "data": {"text": text, **data}, "annotations": list(annotations)}


def labeled(text: str, label: str) -> Record:
    return task(text, annotation(choices(label)))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*records: Record) -> Path:
        path = tmp_path / "export.json"
        path.write_text(json.dumps(records), encoding="utf-8")
        return path

    return write


def read(path: Path, columns: ColumnSelection = ColumnSelection()) -> file_inspection.FileContents:
    return file_inspection.read_contents(path, columns)


def texts_and_labels(found: file_inspection.FileContents) -> list[tuple[str, str]]:
    return [(row.text, row.label) for row in found.rows]


def test_a_control_is_found_by_what_is_seen_of_its_name(write: Write) -> None:
    answers = (("a", "b"), ("a",), ())
    path = write(
        *(
            task(f"t{i}", annotation(choices(*each, control="topic ")))
            for i, each in enumerate(answers)
        )
    )
    found = read(path, replace(MULTI_LABEL, label="\u200btopic"))
    assert [row.label for row in found.rows] == ['["a", "b"]', '["a"]', "[]"]


# -- What the server exports ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sentiment.json", "sentiment-min.json"])
def test_exports_of_the_server_in_both_forms(name: str) -> None:
    found = read(ASSETS / name)
    assert texts_and_labels(found) == [
        ("The film was a joy.", "positive"),
        ("Two hours that I shall not get back.", "negative"),
        ("I laughed, and then I left.", "negative"),
    ]
    codes = {finding.code: finding for finding in checks.check_data(found).findings}
    assert codes["annotators_disagree"].count == 1
    assert [row.text for each in codes["annotators_disagree"].examples for row in each.rows] == [
        "I laughed, and then I left."
    ]
    if name == "sentiment.json":  # JSON-MIN leaves out tasks that were only skipped
        assert codes["unannotated_tasks"].count == 2


@pytest.mark.parametrize("name", ["topics.json", "topics-min.json"])
def test_several_choices_are_sets_of_labels(name: str) -> None:
    found = read(ASSETS / name, MULTI_LABEL)
    assert texts_and_labels(found) == [
        ("The parcel is late and the bill is wrong.", '["billing", "shipping"]'),
        ("Where is my parcel?", '["shipping"]'),
        ("Thank you for everything!", "[]"),
    ]


# -- What of several annotations counts -----------------------------------------------------------


@pytest.mark.parametrize(
    ("annotations", "label"),
    [
        ([annotation(choices("a"))], "a"),
        ([annotation(choices("a")), annotation(choices("b"), day=2)], "b"),
        ([annotation(choices("b"), day=2), annotation(choices("a"))], "b"),
        (
            [annotation(choices(each), day=day) for day, each in enumerate("aba", 1)],
            "a",
        ),
        (
            [annotation(choices(each), day=day) for day, each in enumerate("aab", 1)],
            "a",
        ),
        ([annotation(choices("a"), ground_truth=True), annotation(choices("b"), day=2)], "a"),
        ([annotation(choices("a")), annotation(choices("b"), day=2, was_cancelled=True)], "a"),
        ([annotation(choices("a")), annotation(day=2)], "a"),
    ],
    ids=["one", "latest", "latest-first", "majority", "early-majority", "truth", "skipped",
         "empty"],
)  # fmt: skip
def test_majority_then_latest(write: Write, annotations: list[Record], label: str) -> None:
    path = write(task("first", *annotations), labeled("second", "a"), labeled("third", "b"))
    assert texts_and_labels(read(path))[0] == ("first", label)


def test_only_differing_annotations_are_reported(write: Write) -> None:
    agreed = task("x", annotation(choices("a")), annotation(choices("a"), day=2))
    differing = task("y", annotation(choices("a")), annotation(choices("b"), day=2))
    found = read(write(agreed, differing, labeled("z", "a")))
    assert found.parse_info.disputed_rows == [2]
    order = task("x", annotation(choices("a", "b")), annotation(choices("b", "a"), day=2))
    found = read(write(order, labeled("y", "a")), MULTI_LABEL)
    assert found.parse_info.disputed_rows == []


def test_tasks_without_an_annotation_are_skipped_and_keep_their_numbers(write: Write) -> None:
    path = write(task("none"), labeled("x", "a"), task("empty", annotation()), labeled("y", "b"))
    found = read(path)
    assert [row.number for row in found.rows] == [2, 4]
    assert found.parse_info.unannotated_tasks == 2
    preview = file_inspection.preview_rows(path, ColumnSelection(), after=2, limit=5)
    assert [row.row for row in preview.rows] == [4]


def test_annotation_without_choices_has_no_labels_in_a_multi_label_task(write: Write) -> None:
    path = write(task("x", annotation()), labeled("y", "a"), task("z"))
    assert texts_and_labels(read(path, MULTI_LABEL)) == [("x", "[]"), ("y", '["a"]')]


def test_several_results_of_a_control_are_one_answer(write: Write) -> None:
    path = write(task("x", annotation(choices("a"), choices("b"))), labeled("y", "a"))
    assert texts_and_labels(read(path, MULTI_LABEL))[0] == ("x", '["a", "b"]')
    with pytest.raises(SeveralLabelStudioChoices):
        read(path)


# -- Columns --------------------------------------------------------------------------------------


def review(text: str, label: str, **data: Any) -> Record:
    record = labeled(text, label)
    return {**record, "data": {"review": text, **data}}


def test_the_only_text_field_and_the_only_control_need_no_names(write: Write) -> None:
    path = write(
        review("x", "a", id="r1", image="https://example.com/1.png", stars=3),
        review("y", "b", id="r2", image="/data/upload/1/2.png", stars=4),
    )
    assert texts_and_labels(read(path)) == [("x", "a"), ("y", "b")]
    named = read(path, ColumnSelection("review", "sentiment"))
    assert texts_and_labels(named) == [("x", "a"), ("y", "b")]
    assert file_inspection.read_file_layout(path).columns == (
        "id",
        "text",
        "image",
        "stars",
        "label",
    )


def test_label_is_what_was_chosen_and_no_field_of_that_name(write: Write) -> None:
    path = write(
        task("x", annotation(choices("a")), label="old"),
        task("y", annotation(choices("b")), label="old"),
    )
    assert texts_and_labels(read(path)) == [("x", "a"), ("y", "b")]


def test_text_is_a_field_and_no_choice_of_that_name(write: Write) -> None:
    def record(text: str, mood: str) -> Record:
        return task(text, annotation(choices("ok", control="text"), choices(mood, control="mood")))

    path = write(record("x", "good"), record("y", "bad"))
    found = read(path, ColumnSelection(label="mood"))
    assert texts_and_labels(found) == [("x", "good"), ("y", "bad")]


def test_several_fields_or_controls_must_be_named(write: Write) -> None:
    def record(mood: str, *topics: str) -> Record:
        results = [choices(mood, control="mood"), choices(*topics, control="topic")]
        return {
            "data": {"title": "t", "body": f"a {mood} text"},
            "annotations": [annotation(*results)],
        }

    path = write(record("good", "x"), record("bad", "x", "y"), record("bad", "x"))
    with pytest.raises(MissingColumn) as caught:
        read(path)
    assert caught.value.detail["available"] == "title, body, mood, topic"
    assert caught.value.detail["text_column"] == "body"
    found = read(path, ColumnSelection("body", "mood"))
    assert [row.label for row in found.rows] == ["good", "bad", "bad"]
    with pytest.raises(MissingColumn):
        read(path, ColumnSelection("body"))
    several = LabelFormat("several_targets", targets=list_target_columns(TARGETS))
    found = read(path, ColumnSelection("body", label_format=several))
    assert found.rows[1].label == '{"mood": "bad", "topic": ["x", "y"]}'


def test_split_and_pair_are_fields_of_the_data(write: Write) -> None:
    path = write(
        task("x", annotation(choices("a")), reply="1", split="train"),
        task("y", annotation(choices("b")), reply="2", split="train"),
        task("z", annotation(choices("b")), reply="3", split="test"),
    )
    found = read(path, ColumnSelection(pair="reply"))
    assert [row.pair for row in found.rows] == ["1", "2", "3"]
    assert {split: len(rows) for split, rows in found.splits.items()} == {
        Split.TRAIN: 2,
        Split.TEST: 1,
    }


def test_predictions_read_all_tasks_with_their_data_and_annotations(write: Write) -> None:
    path = write(review("x", "a", stars=3), {"data": {"review": "y"}})
    assert [row.text for row in read(path, ColumnSelection(label=None)).rows] == ["x", "y"]
    assert [record.cells for record in files.iter_whole_rows(path, "review")] == [
        {"id": 7, "review": "x", "stars": 3, "label": "a"},
        {"id": None, "review": "y", "stars": None, "label": None},
    ]


def test_training_reads_the_same_labels(write: Write) -> None:
    records = [task(f"text {i}", annotation(choices(*"ab"[: 1 + i % 2]))) for i in range(20)]
    spec = DataSpec(source=str(write(*records)), validation_size=4, test_size=4)
    splits = load.load_splits(spec, MultiLabelSpec())
    assert splits.labels == ("a", "b")
    assert len(splits.train) == 12


# -- Errors ---------------------------------------------------------------------------------------

SPAN = {
    "from_name": "entity",
    "type": "labels",
    "value": {"start": 0, "end": 4, "labels": ["PER"]},
}
ABOUT_A_PART = {
    **choices("a", control="part"),
    "value": {"start": 0, "end": 4, "choices": ["a"]},
}


@pytest.mark.parametrize(
    ("records", "error", "words"),
    [
        ([task("x"), task("y", annotation(choices("a"), was_cancelled=True))], NoAnnotations, "2"),
        ([task("x", annotation(SPAN))], NoChoiceAnnotations, "entity (labels)"),
        ([task("x", annotation(ABOUT_A_PART))], NoChoiceAnnotations, "part (choices)"),
        (
            [task("x", annotation(choices("a", "b")))],
            SeveralLabelStudioChoices,
            "2 choices of 'sentiment'",
        ),
        ([labeled("x", "a"), labeled("y", "a")], SingleClass, "'a'"),
        ([labeled("x", "a"), {"data": "y"}], MalformedRow, "row 2: not a task"),
        ([{"data": {"text": "x"}, "annotations": {}}], NoAnnotations, "1"),
        ([{"data": {"text": "x"}, "annotations": [3]}], MalformedRow, "not an object"),
        ([{"data": {"text": "x"}, "annotations": "no"}], MalformedRow, "not a task"),
        ([], EmptyData, "no rows"),
    ],
    ids=[
        "cancelled", "spans", "parts", "several", "one-class", "no-data", "no-list", "ids", "text",
        "empty",
    ],
)  # fmt: skip
def test_exports_that_cannot_be_used(
    write: Write, records: list[Record], error: type[LoraCoreError], words: str
) -> None:
    with pytest.raises(error) as caught:
        read(write(*records))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"text": "x", "id": 1, "entity": [{"start": 0, "labels": ["PER"]}]}, "entity (labels)"),
        ({"text": "x", "id": 1}, "none of its 1 tasks"),
    ],
)
def test_json_min_without_choices(write: Write, record: Record, words: str) -> None:
    end = {"annotator": 1, "annotation_id": 1, "updated_at": "2026-11-01T10:00:00Z"}
    with pytest.raises(NoChoiceAnnotations if "entity" in record else NoAnnotations) as caught:
        read(write({**record, **end}))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"text": "x"}', "not a JSON array"),
        (b'[{"text": "x"}', "neither a comma"),
        (b'[{"text": "x"} {"text": "y"}]', "row 1"),
        (b'[{"text": "x"},]', "row 2: not a JSON object"),
        (b'[{"text": "x"}, 3]', "row 2: not a JSON object"),
        (b'[{"text": NaN}]', "row 1: not a JSON object"),
        (b'[{"text": "x"}] []', "the end of the array"),
        (b"[" * 100_000, "row 1: not a JSON object"),
    ],
)
def test_broken_arrays(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(MalformedRow) as caught:
        read(path, ColumnSelection(label=None))
    assert words in str(caught.value)


@pytest.mark.parametrize("content", ["[{}]", '[{"data": {}}]'])
def test_rows_without_fields(tmp_path: Path, content: str) -> None:
    path = tmp_path / "empty.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(MissingColumn):
        next(files.iter_whole_rows(path, "text"))


def test_encoding_error_has_the_row(tmp_path: Path) -> None:
    path = tmp_path / "latin.json"
    path.write_bytes(b'\xef\xbb\xbf[{"text": "ok", "label": "a"}, {"text": "\xe9", "label": "b"}]')
    with pytest.raises(UndecodableText, match="row 2"):
        read(path)


def test_other_arrays_of_objects_are_read_as_rows(write: Write) -> None:
    rows = [{"text": "x", "label": "a", "n": 1}, {"text": "y", "label": "b", "n": 2}]
    path = write(*rows)
    assert texts_and_labels(read(path)) == [("x", "a"), ("y", "b")]
    assert [record.cells for record in files.iter_whole_rows(path, "text")] == rows
