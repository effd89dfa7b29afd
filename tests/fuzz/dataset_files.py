"""Readers of dataset files: what the child process of an upload does with them."""

import zipfile
from pathlib import Path

from lora_core.child_protocol import format_json_line
from lora_core.data.corrections import write_corrected_file
from lora_core.data.file_inspection import (
    build_profile,
    preview_rows,
    read_contents,
    read_file_layout,
)
from lora_core.data.label_readers import LabelFormat, TargetColumns
from lora_core.data.label_review_schemas import CorrectionPlan, RequestedLabelChange
from lora_core.data.rows import ColumnSelection
from tests.fuzz.documented_errors import documented_errors
from tests.fuzz.readers import CORPUS, split_name

COLUMNS = (
    ColumnSelection(),
    ColumnSelection(label=None),
    ColumnSelection(pair="text_pair"),
    *(
        ColumnSelection(label_format=label_format)
        for label_format in (
            LabelFormat("multi_label"),
            LabelFormat("multi_label", separator=";"),
            LabelFormat("multi_label", columns=("a", "b")),
            LabelFormat("regression"),
            LabelFormat(
                "several_targets",
                targets=(
                    TargetColumns("a", ("a",), LabelFormat()),
                    TargetColumns("b", ("b",), LabelFormat("regression")),
                ),
            ),
        )
    ),
)


def _read_as(suffix: str, data: bytes, directory: Path) -> None:
    file = directory / f"data{suffix}"
    file.write_bytes(data)
    for columns in COLUMNS:
        with documented_errors():
            format_json_line(build_profile(read_contents(file, columns)))
    with documented_errors():
        row = read_contents(file, COLUMNS[0]).rows[0].number
        change = RequestedLabelChange(row=row, target=None, label="another")
        plan = CorrectionPlan(changes=(change,), keep=())
        out = directory / "corrected"
        out.mkdir()
        write_corrected_file(file, COLUMNS[0], plan, out)
    with documented_errors():
        format_json_line(preview_rows(file, COLUMNS[0], after=1, limit=5))
    with documented_errors():
        format_json_line(read_file_layout(file))


def csv(data: bytes, directory: Path) -> None:
    _read_as(".csv", data, directory)


def jsonl(data: bytes, directory: Path) -> None:
    _read_as(".jsonl", data, directory)


def label_studio(data: bytes, directory: Path) -> None:
    _read_as(".json", data, directory)


def parquet(data: bytes, directory: Path) -> None:
    _read_as(".parquet", data, directory)


def xlsx(data: bytes, directory: Path) -> None:
    """Read a workbook, or one with a changed part: its name, and in the next lines its content.

    Mutated archives are damaged, so without names no mutation would reach what is inside.
    """
    if not data.startswith(b"PK"):
        name, content = split_name(data)
        data = _workbook_with(name, content, directory / "changed.zip")
    _read_as(".xlsx", data, directory)


def _workbook_with(name: str, content: bytes, file: Path) -> bytes:
    with zipfile.ZipFile(CORPUS / "xlsx" / "reviews.xlsx") as workbook:
        parts = {part: workbook.read(part) for part in workbook.namelist()}
    with zipfile.ZipFile(file, "w") as changed:
        for part, original in (parts | {name: content}).items():
            changed.writestr(zipfile.ZipInfo(part), original)
    return file.read_bytes()
