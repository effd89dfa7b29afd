from pathlib import Path

import pytest

from lora_core.data import files
from lora_core.data.rows import ColumnSelection, TextRow
from lora_core.errors import LoraCoreError
from lora_core.errors.data import (
    EmptyData,
    MalformedRow,
    MissingColumn,
    MissingLabel,
    MissingText,
    NulByte,
    UndecodableText,
)


def read(tmp_path: Path, content: bytes | str) -> list[TextRow]:
    path = tmp_path / "reviews.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return files.read_rows(path, ColumnSelection())


def test_labels_are_strings_integers_or_bools(tmp_path: Path) -> None:
    content = (
        '{"text": "a", "label": " x ", "n": 1}\n\n'
        '{"label": -7, "text": "b\\n\\u00e9"}\n'
        '{"text": "c", "label": true}'
    )
    assert read(tmp_path, content) == [
        TextRow(1, "a", "x"),
        TextRow(3, "b\né", "-7"),
        TextRow(4, "c", "true"),
    ]


FIRST = '{"text": "a", "label": 1}\n'
BAD: list[tuple[str | bytes, type[LoraCoreError], dict[str, object]]] = [
    ("", EmptyData, {}),
    ("\n \n", EmptyData, {}),
    (FIRST + '{"text": "b", "label"', MalformedRow, {"row": 2}),
    (FIRST + "[1, 2]\n", MalformedRow, {"row": 2}),
    (FIRST + '{"text": "b", "label": NaN}\n', MalformedRow, {"row": 2}),
    (FIRST + '{"text": "b", "label": 1.5}\n', MalformedRow, {"row": 2}),
    (FIRST + '{"text": "b", "label": [1]}\n', MalformedRow, {"row": 2}),
    (FIRST + '{"text": 3, "label": 1}\n', MalformedRow, {"row": 2}),
    (FIRST + '{"text": "b"}\n', MalformedRow, {"row": 2}),
    ('{"text": "b"}\n' + FIRST, MalformedRow, {"row": 1, "problem": "no field 'label'"}),
    (FIRST + '{"text": "\\ud800", "label": 1}\n', MalformedRow, {"row": 2}),
    (FIRST + '{"text": "b", "label": ' + "9" * 5000 + "}\n", MalformedRow, {"row": 2}),
    (FIRST + "[" * 100_000 + "\n", MalformedRow, {"row": 2}),
    ('{"text": "a", "sentiment": 1}\n', MissingColumn, {"column": "label"}),
    (FIRST + '{"text": null, "label": 1}\n', MissingText, {"rows": "2"}),
    (FIRST + '{"text": "b", "label": null}\n', MissingLabel, {"rows": "2"}),
    (FIRST + '{"text": "b\\u0000", "label": 1}\n', NulByte, {"row": 2}),
    (FIRST.encode() + b'{"text": "\xff", "label": 1}\n', UndecodableText, {"row": 2}),
]


@pytest.mark.parametrize(("content", "error", "detail"), BAD)
def test_invalid_line_is_reported(
    tmp_path: Path, content: str | bytes, error: type[LoraCoreError], detail: dict[str, object]
) -> None:
    with pytest.raises(error) as refused:
        read(tmp_path, content)
    assert refused.value.detail | detail == refused.value.detail


@pytest.mark.parametrize("above", [1, 150])
def test_split_that_only_later_lines_have_is_refused(tmp_path: Path, above: int) -> None:
    with pytest.raises(MalformedRow, match="split"):
        read(tmp_path, FIRST * above + '{"text": "b", "label": 1, "split": "test"}\n')


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        ('{"text": "a", "label": 1, "score": NaN}\n', "NaN is not JSON; write null"),
        ('{"text": "a", "label": 1, "score": -Infinity}\n', "-Infinity is not JSON; write null"),
        ('[{"text": "a", "label": 1}]\n', r"suffix \.json"),
        ('[\n{"text": "a", "label": 1}\n]\n', r"suffix \.json"),
    ],
)
def test_line_that_other_programs_write_is_explained(
    tmp_path: Path, content: str, advice: str
) -> None:
    with pytest.raises(MalformedRow, match=advice):
        read(tmp_path, content)
