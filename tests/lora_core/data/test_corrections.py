"""Labels are changed in a file, and nothing else. Files are compared byte by byte, or as others
read them."""

import csv
import errno
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xlsxwriter

from lora_core.data import corrections, files
from lora_core.data.corrections import write_corrected_file
from lora_core.data.label_readers import LabelFormat, list_target_columns
from lora_core.data.label_review_schemas import (
    ConfirmedLabel,
    CorrectionPlan,
    CorrectionResult,
    RequestedLabelChange,
)
from lora_core.data.rows import ColumnSelection
from lora_core.errors.data import (
    DataTooLarge,
    LabelNotWritable,
    NoRowsLeftAfterErasure,
    RowNumbersNotFound,
    UnchangedLabel,
)
from lora_core.specs.task import SeveralTargetsSpec

ASSETS = Path(__file__).parents[2] / "assets" / "label_studio"
SETS = ColumnSelection(label_format=LabelFormat("multi_label"))
SEPARATED = ColumnSelection(label_format=LabelFormat("multi_label", ";"))
BINARY = ColumnSelection(label_format=LabelFormat("multi_label", None, ("toxic", "insult")))
BINARY_LABEL = ColumnSelection(label_format=LabelFormat("multi_label", None, ("label",)))
NUMBERS = ColumnSelection(label_format=LabelFormat("regression"))
TARGETS = ColumnSelection(
    label="label",
    label_format=LabelFormat(
        "several_targets",
        targets=list_target_columns(
            SeveralTargetsSpec.model_validate(
                {"targets": "stars=regression,topic,flags=multi_label"}
            )
        ),
    ),
)


class Corrected:
    """A file before and after."""

    def __init__(self, before: Path, out: Path, result: CorrectionResult) -> None:
        self.before, self.result = before, result
        assert result.file is not None
        self.after = out / result.file

    @property
    def text(self) -> str:
        return self.after.read_bytes().decode()


def correct(
    path: Path,
    *changes: tuple[Any, ...],
    columns: ColumnSelection | None = None,
    leave_out: tuple[int, ...] = (),
) -> Corrected:
    """Change labels given as (row, label) or (row, label, target)."""
    out = path.parent / "out"
    out.mkdir()
    wanted = tuple(RequestedLabelChange(row=r, label=label, target=dict(enumerate(t)).get(0))
                   for r, label, *t in changes)  # fmt: skip
    corrections = CorrectionPlan(changes=wanted, keep=(), leave_out=leave_out)
    result = write_corrected_file(path, columns or ColumnSelection(), corrections, out)
    return Corrected(path, out, result)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        # quotes, line ends, blank lines and other cells stay as they are
        ("a.csv", 'text,label,n\n"a ""b""",pos,"1"\n\nc,neg,2\n',
         'text,label,n\n"a ""b""",pos,"1"\n\nc,pos,2\n'),
        ("a.csv", 'text;label\r\na;pos\r\n\r\n"b;c";neg', 'text;label\r\na;pos\r\n\r\n"b;c";pos'),
        ("a.csv", "sep=|\ntext|label\na|pos\nb|x\nc|neg\n",
         "sep=|\ntext|label\na|pos\nb|x\nc|pos\n"),
        ("a.csv", "text,label\ra,pos\rb,x\rc,neg\r", "text,label\ra,pos\rb,x\rc,pos\r"),
        ("a.csv", '\n\ntext,label\na,pos\n"b\n\n,",pos\n"c\nd",neg\n',
         '\n\ntext,label\na,pos\n"b\n\n,",pos\n"c\nd",pos\n'),
        ("a.tsv", "text\tlabel\na\tpos\nb\tx\nc, d\tneg\n",
         "text\tlabel\na\tpos\nb\tx\nc, d\tpos\n"),
        ("a.jsonl",
         '{"text":"a","label":"pos"}\n\n{"n": 1.50, "text":"\\u00e9","label":"neg"}\n',
         '{"text":"a","label":"pos"}\n\n{"n": 1.5, "text": "\\u00e9", "label": "pos"}\n'),
        ("a.jsonl", '{"text":"a","label":"pos"}\n\n{"text":"é","label":"neg"}',
         '{"text":"a","label":"pos"}\n\n{"text": "é", "label": "pos"}'),
        ("a.json",
         '[{"text":"a","label":"pos"}, {"text":"b","label":"x"},{"text":"c","label":"neg"}]',
         '[\n{"text": "a", "label": "pos"},\n{"text": "b", "label": "x"},\n'
         '{"text": "c", "label": "pos"}\n]\n'),
        # labels in an object, as Mistral has them
        ("a.jsonl",
         '{"text":"a","labels":{"label":"pos"}}\n\n{"text":"b","labels":{"label":"neg"}}\n',
         '{"text":"a","labels":{"label":"pos"}}\n\n{"text": "b", "labels": {"label": "pos"}}\n'),
    ],
)  # fmt: skip
def test_only_the_changed_line_is_written_anew(
    tmp_path: Path, name: str, before: str, after: str
) -> None:
    corrected = correct(write(tmp_path, name, before), (3, "pos"))
    assert corrected.text == after
    (change,) = corrected.result.changes
    assert (change.row, change.target, change.before, change.after) == (3, None, "neg", "pos")


HALF_AN_EMOJI = r'"by": "Bob \ud83d"'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '[{"text": "é", "label": "neg", %s}, {"text": "b", "label": "pos"}]'),
        ("a.jsonl", '{"text": "é", "label": "neg", %s}\n{"text": "b", "label": "pos"}\n'),
        ("a.json", """[{"data": {"text": "é", %s}, "annotations": [{"result": [
            {"from_name": "a", "type": "choices", "value": {"choices": ["neg"]}}]}]},
            {"data": {"text": "b"}, "annotations": [{"result": [
            {"from_name": "a", "type": "choices", "value": {"choices": ["pos"]}}]}]}]"""),
    ],
)  # fmt: skip
def test_half_of_a_character_in_another_field_stays(
    tmp_path: Path, name: str, content: str
) -> None:
    """JavaScript leaves it when it cuts a text within an emoji."""
    corrected = correct(write(tmp_path, name, content % HALF_AN_EMOJI), (1, "pos"))
    assert HALF_AN_EMOJI in corrected.text
    rows = files.read_rows(corrected.after, ColumnSelection())
    assert [(row.text, row.label) for row in rows] == [("é", "pos"), ("b", "pos")]


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_the_encoding_stays(tmp_path: Path, codec: str) -> None:
    before = "text,label\nnaïve café,neg\nb,pos\nnext,neg\n"
    path = write(tmp_path, "a.csv", before.encode(codec))
    corrected = correct(path, (1, "pos"))
    assert corrected.after.read_bytes() == before.replace("café,neg", "café,pos").encode(codec)


def test_a_label_that_the_encoding_lacks(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,label\nnaïve café,neg\nb,pos\n".encode("cp1252"))
    corrected = correct(path, (1, "良い"))
    assert corrected.after.read_bytes() == "text,label\nnaïve café,良い\nb,pos\n".encode(
        "utf-8-sig"
    )


def test_a_set_of_labels_that_the_encoding_lacks(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,label\nnaïve café,b\ny,a;b\n".encode("cp1252"))
    corrected = correct(path, (2, r'["b", "a\u200bb"]'), columns=SEPARATED)
    expected = "text,label\nnaïve café,b\ny,b;a\u200bb\n"
    assert corrected.after.read_bytes() == expected.encode("utf-8-sig")


def test_other_columns_may_share_a_name(tmp_path: Path) -> None:
    """An index that pandas wrote has no name, and neither may the last column."""
    path = tmp_path / "a.csv"
    path.write_bytes(b",text,label,note,note,\n0,one,a,1,2,x\n1,two,b,3,4,y\n")
    expected = b",text,label,note,note,\n0,one,b,1,2,x\n1,two,b,3,4,y\n"
    assert correct(path, (1, "b")).after.read_bytes() == expected


def test_a_label_with_a_separator_is_quoted(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'text,label\nx,a\n"y\nz",b\n')
    corrected = correct(path, (2, 'a, "b"'))
    with corrected.after.open(newline="") as file:
        assert list(csv.reader(file)) == [["text", "label"], ["x", "a"], ["y\nz", 'a, "b"']]


@pytest.mark.parametrize(
    ("name", "columns", "before", "label", "after"),
    [
        ("a.csv", SEPARATED, "text,label\nx,b\ny,a;b\n", '["b", "c"]', "text,label\nx,b\ny,b;c\n"),
        ("a.csv", SEPARATED, "text,label\nx,b\ny,a;b\n", "[]", "text,label\nx,b\ny,\n"),
        ("a.csv", SETS, 'text,label\nx,"[""b""]"\ny,[]\n', '["b"]',
         'text,label\nx,"[""b""]"\ny,"[""b""]"\n'),
        ("a.jsonl", SETS, '{"text":"x","label":["b"]}\n{"text":"y","label":[]}\n', '["b", "c"]',
         '{"text":"x","label":["b"]}\n{"text": "y", "label": ["b", "c"]}\n'),
        ("a.jsonl", SETS,
         '{"text":"x","labels":{"label":["b"]}}\n{"text":"y","labels":{"label":"b"}}\n',
         '["b", "c"]',
         '{"text":"x","labels":{"label":["b"]}}\n{"text": "y", "labels": {"label": ["b", "c"]}}\n'),
        ("a.csv", BINARY, "text,toxic,insult\nx,1,0\ny,0,1\n", '["toxic"]',
         "text,toxic,insult\nx,1,0\ny,1,0\n"),
        ("a.csv", BINARY, "text,toxic,insult\nx,1,0\ny,True,False\n", '["insult"]',
         "text,toxic,insult\nx,1,0\ny,False,True\n"),
        ("a.csv", NUMBERS, "text,label\nx,2\ny,3.50\n", "4.0", "text,label\nx,2\ny,4\n"),
        ("a.jsonl", NUMBERS, '{"text":"x","label":2}\n{"text":"y","label":3}\n', "2.5",
         '{"text":"x","label":2}\n{"text": "y", "label": 2.5}\n'),
        ("a.jsonl", ColumnSelection(), '{"text":"x","label":2}\n{"text":"y","label":3}\n', "2",
         '{"text":"x","label":2}\n{"text": "y", "label": 2}\n'),
        ("a.jsonl", ColumnSelection(), '{"text":"x","label":true}\n{"text":"y","label":false}\n',
         "true", '{"text":"x","label":true}\n{"text": "y", "label": true}\n'),
    ],
)  # fmt: skip
def test_kinds_of_labels(
    tmp_path: Path, name: str, columns: ColumnSelection, before: str, label: str, after: str
) -> None:
    corrected = correct(write(tmp_path, name, before), (2, label), columns=columns)
    assert corrected.text == after


def test_one_of_several_targets(tmp_path: Path) -> None:
    lines = [
        {"text": "x", "labels": {"stars": 1, "topic": "food", "flags": ["a"]}},
        {"text": "y", "labels": {"stars": 2, "topic": "room", "flags": "b"}},
    ]
    path = write(tmp_path, "a.jsonl", "".join(json.dumps(each) + "\n" for each in lines))
    changes = [(2, "food", "topic"), (2, "3.5", "stars"), (2, '["a", "b"]', "flags")]
    corrected = correct(path, *changes, columns=TARGETS)
    assert [json.loads(line) for line in corrected.text.splitlines()] == [
        lines[0],
        {"text": "y", "labels": {"stars": 3.5, "topic": "food", "flags": ["a", "b"]}},
    ]
    before = [(each.target, each.before) for each in corrected.result.changes]
    assert before == [("flags", '["b"]'), ("stars", "2.0"), ("topic", "room")]


CHAT = "".join(
    json.dumps(
        {
            "messages": [
                {"role": "user", "content": f"Classify: text {i}"},
                {"role": "assistant", "content": answer % ("pos" if i % 2 else "neg")},
            ]
        }
    )
    + "\n"
    for answer in ("%s",)
    for i in range(12)
)


@pytest.mark.parametrize("answer", ["%s", '{"sentiment": "%s"}'])
def test_chat_examples_keep_their_form(tmp_path: Path, answer: str) -> None:
    examples = [json.loads(line) for line in CHAT.splitlines()]
    for example in examples:
        example["messages"][1]["content"] = answer % example["messages"][1]["content"]
    path = write(tmp_path, "a.jsonl", "".join(json.dumps(each) + "\n" for each in examples))
    corrected = correct(path, (1, "pos"))
    examples[0]["messages"][1]["content"] = answer % "pos"
    assert [json.loads(line) for line in corrected.text.splitlines()] == examples


def test_a_sheet_becomes_a_csv_file_with_the_same_row_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    with xlsxwriter.Workbook(path) as workbook:
        sheet = workbook.add_worksheet("Data")
        for i, cells in enumerate(
            [["n", "text", "label"], [1, "a, b", "pos"], [], [2, "é", "neg"]]
        ):
            sheet.write_row(i, 0, cells)
    corrected = correct(path, (3, "pos"), columns=ColumnSelection(sheet="Data"))
    assert corrected.after.name == "a.csv"
    expected = '\ufeffn,text,label\r\n1,"a, b",pos\r\n\r\n2,é,pos\r\n'
    assert corrected.after.read_bytes().decode() == expected


def test_an_export_of_label_studio_becomes_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    tasks = [
        {"id": i, "data": {"text": f"text {i}"}, "annotations": annotations}
        for i, annotations in enumerate(
            [
                [_choice("pos")],
                [],
                [_choice("neg")],
            ]
        )
    ]
    path.write_text(json.dumps(tasks))
    corrected = correct(path, (3, "pos"))
    assert corrected.after.name == "a.jsonl"
    lines = [json.loads(line) if line else None for line in corrected.text.splitlines()]
    assert [line and (line["text"], line["label"]) for line in lines] == [
        ("text 0", "pos"),
        None,
        ("text 2", "pos"),
    ]


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("a.csv", 'text,label\n"a\n1",x\r\n\nb,x\nc,pos\n', "text,label\n\r\n\nb,pos\n\n"),
        ("a.tsv", "text\tlabel\na\tx\n\nb\tx\nc\tpos", "text\tlabel\n\n\nb\tpos\n"),
        ("a.jsonl",
         '{"text":"a","label":"x"}\n\n{"text":"b","label":"x"}\n{"text":"c","label":"pos"}\n',
         '\n\n{"text": "b", "label": "pos"}\n\n'),
        ("a.json",
         '[{"text":"a","label":"x"},{"text":"d","label":"x"},{"text":"b","label":"x"},'
         '{"text":"c","label":"pos"}]',
         '[\n{"text": "d", "label": "x"},\n{"text": "b", "label": "pos"}\n]\n'),
    ],
)  # fmt: skip
def test_rows_are_left_out(tmp_path: Path, name: str, before: str, after: str) -> None:
    """Other rows keep their numbers, except in an array. A row that is left out is not changed."""
    path = write(tmp_path, name, before)
    corrected = correct(path, (1, "pos"), (3, "pos"), leave_out=(1, 4, 9))
    assert corrected.text == after
    assert [each.row for each in corrected.result.changes] == [3]
    assert corrected.result.left_out == (1, 4)


def test_rows_of_a_sheet_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    with xlsxwriter.Workbook(path) as workbook:
        sheet = workbook.add_worksheet("Data")
        for i, cells in enumerate([["text", "label"], ["a", "x"], ["b", "x"], ["c", "y"]]):
            sheet.write_row(i, 0, cells)
    corrected = correct(path, (3, "x"), columns=ColumnSelection(sheet="Data"), leave_out=(1,))
    assert corrected.text == "\ufefftext,label\r\n\r\nb,x\r\nc,x\r\n"


def test_rows_of_an_export_of_label_studio_are_left_out(tmp_path: Path) -> None:
    tasks = [
        {"id": i, "data": {"text": f"text {i}"}, "annotations": [_choice(name)]}
        for i, name in enumerate(["pos", "neg", "neg"])
    ]
    corrected = correct(write(tmp_path, "a.json", json.dumps(tasks)), (3, "pos"), leave_out=(2,))
    lines = [line and json.loads(line)["label"] for line in corrected.text.splitlines()]
    assert lines == ["pos", "", "pos"]


def test_rows_of_parquet_are_left_out(tmp_path: Path) -> None:
    """Not even the dictionary of a column has their texts, and the file can be corrected again."""
    texts = pa.array(["secret a", "secret b", "secret c", "d"]).dictionary_encode()
    table = pa.table({"text": texts, "label": ["x", "y", "x", "y"]})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=2)
    corrected = correct(path, (4, "x"), leave_out=(1, 2, 3))
    after = pq.read_table(corrected.after)
    assert (after.to_pydict(), after.schema) == ({"text": ["d"], "label": ["x"]}, table.schema)
    assert b"secret" not in corrected.after.read_bytes()
    (tmp_path / "again").mkdir()
    change = RequestedLabelChange(row=1, label="y", target=None)
    again = CorrectionPlan(changes=(change,), keep=())
    write_corrected_file(corrected.after, ColumnSelection(), again, tmp_path / "again")


def test_rows_of_string_views_are_left_out(tmp_path: Path) -> None:
    texts = [f"secret {'s' * 20} {i}" for i in range(4)] + ["a", "b"]
    views = pa.array(texts, pa.string_view())
    tags = pa.array([[each] for each in texts], pa.list_(pa.string_view()))
    labels = pa.array(["x", "y"] * 3, pa.string_view())
    table = pa.table({"text": views, "tags": tags, "label": labels})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    corrected = correct(path, (6, "x"), leave_out=(1, 2, 3, 4))
    after = pq.read_table(corrected.after)
    assert after.to_pydict() == {"text": ["a", "b"], "tags": [["a"], ["b"]], "label": ["x", "x"]}
    assert after.schema == table.schema
    assert b"secret" not in corrected.after.read_bytes()


def test_an_empty_row_group_is_harmless(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "label": ["x", "y"]})
    path = tmp_path / "a.parquet"
    with pq.ParquetWriter(path, table.schema) as writer:
        for part in (table[:1], table[:0], table[1:]):
            writer.write_table(part)
    corrected = correct(path, (2, "x"))
    assert pq.read_table(corrected.after).column("label").to_pylist() == ["x", "x"]


def test_prompts_keep_their_texts_when_others_are_left_out(tmp_path: Path) -> None:
    """Without the last row all prompts would share a word, which texts leave out."""
    prompts = ["Rate: a fine film", "Rate: a dull plot", "Rate: so bad it hurts", "No words at all"]
    lines = [json.dumps({"prompt": each, "completion": f"label {i % 2}"})
             for i, each in enumerate(prompts)]  # fmt: skip
    path = write(tmp_path, "a.jsonl", "\n".join(lines) + "\n")
    before = [(row.text, row.label) for row in files.read_rows(path, ColumnSelection())]
    corrected = correct(path, (1, "label 1"), leave_out=(4,))
    after = [(row.text, row.label) for row in files.read_rows(corrected.after, ColumnSelection())]
    assert after == [(before[0][0], "label 1"), *before[1:3]]
    assert "at all" not in corrected.text


def test_a_file_without_rows_is_not_written(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", '[{"text":"a","label":"x"},{"text":"b","label":"y"}]')
    with pytest.raises(NoRowsLeftAfterErasure, match="Delete the dataset"):
        correct(path, (1, "y"), leave_out=(1, 2))


def _choice(name: str) -> dict[str, Any]:
    value = {"choices": [name]}
    return {"result": [{"from_name": "mood", "type": "choices", "value": value}]}


def test_parquet_keeps_its_types_and_row_groups(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["a", "b", "c", "d"],
            "label": pa.array(["pos", "neg", "pos", "neg"]).dictionary_encode(),
            "at": pa.array([1, 2, 3, 4], pa.timestamp("ms")),
        }
    )
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=2)
    corrected = correct(path, (2, "pos"), (3, "new"))
    after = pq.ParquetFile(corrected.after)
    assert (after.metadata.num_row_groups, after.schema_arrow) == (2, table.schema)
    read = after.read().to_pydict()
    assert read.pop("label") == ["pos", "pos", "new", "neg"]
    assert read == {name: table.to_pydict()[name] for name in ("text", "at")}


@pytest.mark.parametrize(
    ("columns", "types", "cells", "label", "after"),
    [
        (SETS, pa.list_(pa.string()), [["b"], []], '["b"]', [["b"], ["b"]]),
        (NUMBERS, pa.float32(), [1.0, 2.0], "2.5", [1.0, 2.5]),
        (NUMBERS, pa.float32(), [1.0, 2.0], "4.3", [1.0, 4.300000190734863]),
        (NUMBERS, pa.float16(), [1.0, 2.0], "4.3", [1.0, 4.30078125]),
        (NUMBERS, pa.decimal128(10, 2), [Decimal(1), Decimal(2)], "4.3",
         [Decimal("1.00"), Decimal("4.30")]),
        (BINARY_LABEL, pa.decimal128(1, 0), [Decimal(1), Decimal(0)], '["label"]',
         [Decimal(1), Decimal(1)]),
        (ColumnSelection(), pa.int8(), [1, 2], "1", [1, 1]),
        (ColumnSelection(), pa.bool_(), [True, False], "true", [True, True]),
    ],
)  # fmt: skip
def test_types_of_parquet_columns(
    tmp_path: Path, columns: ColumnSelection, types: Any, cells: list[Any], label: str, after: Any
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["x", "y"], "label": pa.array(cells, types)}), path)
    corrected = correct(path, (2, label), columns=columns)
    written = pq.read_table(corrected.after).column("label")
    assert (written.type, written.to_pylist()) == (types, after)


def test_a_number_is_reported_as_its_column_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    stars = pa.array([1.5, 4.3], pa.float32())
    pq.write_table(
        pa.table({"text": ["x", "y"], "topic": ["a", "b"], "flags": [["c"], []], "stars": stars}),
        path,
    )
    (change,) = correct(path, (1, "4.3", "stars"), columns=TARGETS).result.changes
    assert (change.before, change.after) == ("1.5", "4.300000190734863")
    (tmp_path / "out").rename(tmp_path / "first")
    with pytest.raises(UnchangedLabel):
        correct(path, (2, "4.3", "stars"), columns=TARGETS)


def test_a_separator_at_the_end_of_a_set_is_no_label(tmp_path: Path) -> None:
    content = "text,label\nx,a;b;\ny,b; \nz,a;\n"
    corrected = correct(write(tmp_path, "a.csv", content), (2, '["a"]'), columns=SEPARATED)
    assert corrected.text == content.replace("b; ", "a")
    rows = files.read_rows(corrected.after, SEPARATED)
    assert [row.label for row in rows] == ['["a", "b"]', '["a"]', '["a"]']


@pytest.mark.parametrize(
    ("name", "columns", "content", "label"),
    [
        ("a.csv", SEPARATED, "text,label\nx,a;b\n", '["a;b"]'),
        ("a.csv", BINARY, "text,toxic,insult\nx,1,0\n", '["spam"]'),
    ],
)
def test_labels_that_the_format_cannot_hold(
    tmp_path: Path, name: str, columns: ColumnSelection, content: str, label: str
) -> None:
    with pytest.raises(LabelNotWritable, match=r"a\.csv, row 1"):
        correct(write(tmp_path, name, content), (1, label), columns=columns)


@pytest.mark.parametrize(
    ("columns", "types", "label"),
    [
        (ColumnSelection(), pa.int64(), "one"),
        (NUMBERS, pa.decimal128(10, 2), "4.321"),
    ],
)
def test_labels_that_a_parquet_column_cannot_hold(
    tmp_path: Path, columns: ColumnSelection, types: Any, label: str
) -> None:
    path = tmp_path / "a.parquet"
    cells = pa.array([1, 2, 3], types)
    pq.write_table(pa.table({"text": ["x", "y", "z"], "label": cells}), path)
    with pytest.raises(LabelNotWritable, match=rf"row 2: the label '{label}' cannot"):
        correct(path, (1, "3"), (2, label), columns=columns)


def test_rows_outside_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,label\nx,a\n\ny,b\n")
    with pytest.raises(RowNumbersNotFound, match=r"2 of the rows do not exist \(first: 2, 4\)"):
        correct(path, (2, "b"), (4, "a"), (1, "b"))


def test_a_label_that_stays(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,label\nx,a\ny,b\n")
    with pytest.raises(UnchangedLabel, match="the label is 'a' already"):
        correct(path, (1, "a"))


def test_kept_labels_are_recognized_in_other_versions(tmp_path: Path) -> None:
    def digests(content: str, row: int) -> tuple[str, ...]:
        path = write(tmp_path, "a.csv", content)
        keep = CorrectionPlan(changes=(), keep=(ConfirmedLabel(row=row, target=None),))
        result = write_corrected_file(path, ColumnSelection(), keep, tmp_path)
        assert result.file is None
        return result.kept

    first = digests("text,label\nx,a\ny,b\n", 1)
    assert len(first) == 1
    assert digests("label,text\nb,y\na, x \n", 2) == first
    assert digests("text,label\nx,b\n", 1) != first


def test_a_file_that_grows_beyond_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child of a service may only write files of a certain size."""

    def write_too_much(*_: object) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(corrections, "_write_delimited", write_too_much)
    with pytest.raises(DataTooLarge, match="its corrected version"):
        correct(write(tmp_path, "a.csv", "text,label\nx,a\ny,b\n"), (1, "b"))


def test_every_row_of_a_large_file_stays(tmp_path: Path) -> None:
    lines = [f'{{"text": "text {i}", "label": "{"ab"[i % 2]}"}}' for i in range(3000)]
    path = write(tmp_path, "a.jsonl", "\n".join(lines))
    corrected = correct(path, *((row, "b") for row in range(1, 3000, 2) if row % 3 == 0))
    before, after = (files.read_rows(each, ColumnSelection()) for each in (path, corrected.after))
    changed = [row.number for row, new in zip(before, after, strict=True) if row != new]
    assert changed == [row for row in range(1, 3000, 2) if row % 3 == 0]
