import csv
from pathlib import Path

import pytest

from lora_core.data import files, text_files
from lora_core.data.rows import ColumnSelection, TextRow
from lora_core.errors import LoraCoreError
from lora_core.errors.data import (
    DataTooLarge,
    EmptyData,
    MalformedRow,
    MissingColumn,
    MissingLabel,
    MissingText,
    NulByte,
    UndecodableText,
)


def read(tmp_path: Path, content: bytes | str, name: str = "reviews.csv") -> list[TextRow]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return files.read_rows(path, ColumnSelection())


def test_quotes_line_breaks_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    content = '\ufefflabel,text\r\npos,"two\nlines, one ""cell"""\r\nneg, plain \r\n\r\n'
    assert read(tmp_path, content) == [
        TextRow(1, 'two\nlines, one "cell"', "pos"),
        TextRow(2, " plain ", "neg"),
    ]


def test_tsv_is_separated_by_tabs(tmp_path: Path) -> None:
    rows = read(tmp_path, 'text\tlabel\tsplit\na, "b"\t1\ttest\n"c\td"\t0\ttrain\n', "reviews.tsv")
    assert rows == [TextRow(1, 'a, "b"', "1", "test"), TextRow(2, "c\td", "0", "train")]


def test_labels_are_stripped_and_normalized(tmp_path: Path) -> None:
    rows = read(tmp_path, "text,label\na, e\u0301 \nb,\u00e9\n")
    assert {row.label for row in rows} == {"é"}


def test_blank_lines_count_as_rows(tmp_path: Path) -> None:
    assert [row.number for row in read(tmp_path, "text,label\na,1\n\nb,0\n")] == [1, 3]


BAD: list[tuple[bytes, type[LoraCoreError], dict[str, object]]] = [
    (b"", EmptyData, {}),
    (b"\n\n", EmptyData, {}),
    (b"text,label\n", EmptyData, {}),
    (b"text,sentiment\na,1\n", MissingColumn, {"column": "label", "available": "text, sentiment"}),
    (b"text,label,text\na,1,b\n", MalformedRow, {"row": 0}),
    (b"text,label\na,1\n,0\nb,1\n \t,0\n", MissingText, {"count": 2, "rows": "2, 4"}),
    (b"text,label\na,1\nb,\nc, \n", MissingLabel, {"count": 2, "rows": "2, 3"}),
    (b'text,label\na,1\n"b" c,0\n', MalformedRow, {"row": 2}),
    (b'text,label\na,1\n"b,0\nc,1\n', MalformedRow, {"row": 2}),
    (b"text,label\na,1\nb\n", MalformedRow, {"row": 2}),
    (b"text,label\na,1\nb, with a comma,0\n", MalformedRow, {"row": 2}),
    (b"text,label\ra,1\nb,0\r", MalformedRow, {"row": 0}),
    (b"text,label\na,1\nb\x00,0\n", NulByte, {"row": 2}),
    (b"text,label\na,1\nb\xc3\xa9 \xe9,0\n", UndecodableText, {"row": 2}),
    (b'text,label\na,1\n"two\nlines \x81",0\n', UndecodableText, {"row": 2}),
    ("text,label\na,1\n".encode("utf-16-le"), NulByte, {"row": 0}),
    ("text,label\na,1\nb,0\n".encode("utf-16")[:-1], UndecodableText, {"row": 2}),
    ("text,label\na,1\nb,0".encode("utf-16") + b"\x00\xdc\n\0", UndecodableText, {"row": 2}),
    (b"text;label\na;1\nb;with;0\nc;1\n", MalformedRow, {"row": 2}),
]


@pytest.mark.parametrize(("content", "error", "detail"), BAD)
def test_damaged_file_is_refused_with_its_row(
    tmp_path: Path, content: bytes, error: type[LoraCoreError], detail: dict[str, object]
) -> None:
    with pytest.raises(error) as refused:
        read(tmp_path, content)
    assert refused.value.detail | detail == refused.value.detail
    assert refused.value.detail["file"] == "reviews.csv"
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("text,label\nshort,1\n" + "x" * 21 + ",0\n", "a cell in row 2"),
        ("text,label\n" + "x" * 90 + ",0\n", "a line of row 1"),
        ("text,label\na,1\nb,0\nc,1\nd,0\n", "the number of rows"),
        ("text,label,c,d\na,1,,\n", "the number of columns"),
        ("text,label\na,1\nb,2\nc,3\n", "the number of different labels"),
        ("text,label\na,123456\n", "the label in row 1"),
        ("text,label\n" + "x" * 20 + ",1\n" + "y" * 20 + ",0\n", "the sum of texts"),
    ],
)
def test_every_size_has_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, what: str
) -> None:
    for place, name, limit in (
        ("text_files", "MAX_CELL_CHARACTERS", 20),
        ("text_files", "MAX_LINE_CHARACTERS", 80),
        ("rows", "MAX_ROWS", 3),
        ("rows", "MAX_COLUMNS", 3),
        ("label_readers", "MAX_LABELS", 2),
        ("label_readers", "MAX_LABEL_CHARACTERS", 5),
        ("rows", "MAX_BYTES", 30),
    ):
        monkeypatch.setattr(f"lora_core.data.{place}.{name}", limit)
    before = csv.field_size_limit()
    with pytest.raises(DataTooLarge, match=f"reviews.csv: {what}"):
        read(tmp_path, content)
    csv.field_size_limit(before)


def test_csv_field_limit_is_not_reset_while_reading(tmp_path: Path) -> None:
    long = "x" * 500_000  # more than the parser accepts by default
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path in paths:
        path.write_text(f"text,label\n{long},1\n", encoding="utf-8")
    csv.field_size_limit(131_072)
    first, second = (text_files.open_delimited(path, ",") for path in paths)
    assert first.header == second.header == ["text", "label"]
    assert list(first.rows) == list(second.rows) == [(1, [long, "1"])]


GERMAN = ["Der Film war schön, „Spaß“", "Größe: 5 €, sehr übel", "gut; mit Semikolon\nund Zeile"]


def write_csv(tmp_path: Path, encoding: str, delimiter: str, end: str, first: str = "") -> Path:
    """As a spreadsheet saves it; `end` ends the rows."""
    path = tmp_path / "reviews.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        file.write(first)
        writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
        writer.writerows([["label", "text"], *(["ja", text] for text in GERMAN), ["", ""]])
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_spreadsheet_dialects_are_read(tmp_path: Path, encoding: str, delimiter: str) -> None:
    path = write_csv(tmp_path, encoding, delimiter, "\r\n")
    rows, reading = files.read_rows_and_info(path, ColumnSelection())
    assert rows == [TextRow(number, text, "ja") for number, text in enumerate(GERMAN, start=1)]
    named = {"utf-16": "UTF-16", "cp1252": "Windows-1252"}.get(encoding, "UTF-8")
    assert (reading.encoding, reading.separator) == (named, delimiter)
    assert reading.blank_rows == 1


def test_cr_line_endings(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_bytes(b'text;label\r"a\rb";1\rc;0\r')
    assert files.read_rows(path, ColumnSelection()) == [
        TextRow(1, "a\rb", "1"),
        TextRow(2, "c", "0"),
    ]


@pytest.mark.parametrize("first", ["sep=;\r\n", '"sep=;"\n', "sep=;\r"])
def test_sep_line_sets_the_separator(tmp_path: Path, first: str) -> None:
    end = first.lstrip('"sep=;')
    path = tmp_path / "reviews.csv"
    content = f'{first}text;label{end}a,b;"1;x"{end}c,d;0{end}'
    path.write_bytes(content.encode())
    assert files.read_rows(path, ColumnSelection()) == [
        TextRow(1, "a,b", "1;x"),
        TextRow(2, "c,d", "0"),
    ]


@pytest.mark.parametrize(
    ("content", "header"),
    [
        ("text;label, as given\na;1\nb, c;0\n", ["text", "label, as given"]),
        ("text,label;old\na;b,1\nb;c;d,0\n", ["text", "label;old"]),
        ("text | note\nb, c\n", ["text | note"]),
        ('"text;note",label\na,1\n', ["text;note", "label"]),
        ('"text;note"\na\n', ["text;note"]),
        ("text;label\n", ["text", "label"]),
    ],
)
def test_separator_is_detected_from_header_and_rows(
    tmp_path: Path, content: str, header: list[str]
) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text(content)
    assert text_files.open_delimited(path, ",").header == header


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "Фильм был очень хороший, спасибо"),
        ("cp1253", "καλή ταινία"),
        ("cp1250", "Bardzo dobra książka, żółty"),
        ("mac-roman", "für schöne Größe, süß"),
        ("shift-jis", "とても良い映画でした"),
        ("gb18030", "这部电影非常好"),
        ("utf-16-be", "good"),
    ],
)
def test_ambiguous_encoding_is_refused(tmp_path: Path, encoding: str, text: str) -> None:
    path = tmp_path / "reviews.csv"
    rows = "".join(f"{text} number {i} of the films,{i % 2}\r\n" for i in range(20))
    path.write_bytes(f"text,label\r\n{rows}".encode(encoding))
    with pytest.raises((UndecodableText, NulByte)):
        files.read_rows(path, ColumnSelection())


def test_blank_rows_are_skipped_but_numbered(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("text,label,note\n,,\na,1,\n, ,\nb,0,\n,,\n,\n  \n")
    rows, reading = files.read_rows_and_info(path, ColumnSelection())
    assert rows == [TextRow(2, "a", "1"), TextRow(4, "b", "0")]
    assert reading.blank_rows == 5


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        ("csv", "text,label\na,1\n"),
        ("jsonl", '{"text": "a", "label": 1}\n'),
        ("json", '[{"text": "a", "label": 1}]'),
    ],
)
def test_utf_16_without_a_mark_is_named(
    tmp_path: Path, codec: str, suffix: str, content: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content.encode(codec))
    with pytest.raises(NulByte, match=r"may be UTF-16 .* save it as UTF-8"):
        files.read_rows(path, ColumnSelection())
    path.write_text(content.replace("a", "a\0\0", 1))
    with pytest.raises(LoraCoreError) as raised:
        files.read_rows(path, ColumnSelection())
    assert "UTF-16" not in str(raised.value)
