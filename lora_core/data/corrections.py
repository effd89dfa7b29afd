"""Change labels in a data file, leave out rows, and nothing else.

CSV, TSV and JSON Lines: only the lines of changed rows are written anew; all others stay as they
are, byte by byte, except where a Windows-1252 file gets a label that this encoding lacks. JSON
arrays and Parquet files keep their format, columns and types. A sheet of a workbook becomes a CSV
file, and an export of Label Studio JSON Lines: neither could be written without losing something
else of it. Rows keep their numbers in all of them, and a row that is left out becomes a blank line;
only in JSON arrays and Parquet files the rows after it move up.

At the end the new file is read again: it must have the same rows, with the new labels.
"""

import codecs
import csv
import errno
import io
import json
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from lora_core.data import chat, files, label_studio, mistral_labels, text_files
from lora_core.data.label_readers import LabelFormat, normalize_label_name
from lora_core.data.label_review_schemas import (
    AppliedLabelChange,
    CorrectionPlan,
    CorrectionResult,
    text_label_digest,
)
from lora_core.data.rows import ColumnSelection, ParseInfo, TextRow, find_column
from lora_core.data.text_files import UTF_8, UTF_16, Encoding, TextLines
from lora_core.errors.data import (
    DataTooLarge,
    LabelNotWritable,
    NoRowsLeftAfterErasure,
    RowNumbersNotFound,
    UnchangedLabel,
    format_row_numbers,
)
from lora_core.specs.encoded_labels import (
    LabelValue,
    decode_label,
    decode_targets,
    encode_label,
    extract_target_label,
    replace_target_value,
)

Cells = dict[str, Any]  # by column


@dataclass(frozen=True)
class _Edit:
    """A new value in the columns of a label."""

    columns: tuple[str, ...]
    label_format: LabelFormat
    value: LabelValue

    def cells(self, old: Mapping[str, Any]) -> Cells:
        """Return the new cells of these columns, of the same types as the old ones if possible."""
        if self.label_format.columns is not None:
            assert isinstance(self.value, tuple)  # noqa: S101 - a set of names
            return {
                name: _binary_cell(old[name], normalize_label_name(name) in self.value)
                for name in self.columns
            }
        (column,) = self.columns
        return {column: _cell(old[column], self.value, self.label_format.separator)}


@dataclass(frozen=True)
class _Plan:
    """What to write: the edits of changed rows, by row number, and rows that are left out."""

    edits: Mapping[int, Sequence[_Edit]]
    left_out: Set[int]

    def of_row(self, number: int) -> Sequence[_Edit]:
        """Return the edits of a row, none for most."""
        return self.edits.get(number, ())


def write_corrected_file(
    path: Path, columns: ColumnSelection, corrections: CorrectionPlan, out_dir: Path
) -> CorrectionResult:
    """Write a file with the changed labels to `out_dir`, unless there are no changes.

    Rows that are left out are not changed.

    Raises `RowNumbersNotFound`, `NoRowsLeftAfterErasure`, `UnchangedLabel`, `LabelNotWritable`,
    `DataTooLarge`, and what `files.read_rows` raises.
    """
    rows = {row.number: row for row in files.read_rows(path, columns)}
    wanted = {each.row for each in corrections.changes} | {each.row for each in corrections.keep}
    if missing := sorted(wanted - rows.keys()):
        raise RowNumbersNotFound(
            file=path.name, count=len(missing), rows=format_row_numbers(missing)
        )
    left_out = rows.keys() & set(corrections.leave_out)
    changed, edits = _edits(path, columns, rows, corrections, left_out)
    kept = tuple(
        text_label_digest(rows[each.row], target, label)
        for each in corrections.keep
        if each.row not in left_out
        for target, label in row_labels_by_target(rows[each.row], columns.label_format).items()
        if each.target in (None, target)
    )
    if not corrections.changes:
        return CorrectionResult(file=None, changes=(), left_out=(), kept=kept)
    if len(left_out) == len(rows):
        raise NoRowsLeftAfterErasure(file=path.name)
    try:
        out = _write(path, columns, _Plan(edits, left_out), out_dir)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        limit = "that of an upload"
        raise DataTooLarge(file=path.name, what="its corrected version", limit=limit) from error
    expected = {number: row for number, row in rows.items() if number not in left_out}
    for each in changed:
        row = expected[each.row]
        label = each.after
        if each.target is not None:
            value = decode_label(label, columns.label_format.format_of_target(each.target).task)
            label = replace_target_value(row.label, each.target, value)
        expected[each.row] = replace(row, label=label)
    keeps_numbers = out.suffix not in (".json", ".parquet")
    _check(out, columns, expected if keeps_numbers else _moved_up(expected, left_out))
    return CorrectionResult(
        file=out.name, changes=tuple(changed), left_out=tuple(sorted(left_out)), kept=kept
    )


def row_labels_by_target(row: TextRow, label_format: LabelFormat) -> dict[str | None, str]:
    """Return the label of each target of a row; of tasks with a single one, its name is None."""
    if not label_format.targets:
        return {None: row.label}
    return {name: extract_target_label(row.label, name) for name in decode_targets(row.label)}


def _edits(
    path: Path,
    columns: ColumnSelection,
    rows: Mapping[int, TextRow],
    corrections: CorrectionPlan,
    left_out: Set[int],
) -> tuple[list[AppliedLabelChange], Mapping[int, Sequence[_Edit]]]:
    """Return the changes with the labels before, and what to write. Raises `UnchangedLabel`."""
    changed: list[AppliedLabelChange] = []
    edits: dict[int, list[_Edit]] = defaultdict(list)
    types = _parquet_types(path)
    for each in corrections.changes:
        if each.row in left_out:
            continue
        before = row_labels_by_target(rows[each.row], columns.label_format)[each.target]
        label_format, label_columns = columns.label_format, columns.label_columns
        if each.target is not None:
            target = next(one for one in label_format.targets if one.name == each.target)
            label_format, label_columns = target.label_format, target.columns
        value = decode_label(each.label, label_format.task)
        if isinstance(value, float) and (name := find_column(label_columns[0], types)):
            value = _as_stored(value, types[name])
        after = encode_label(value)
        if before == after:
            raise UnchangedLabel(file=path.name, row=each.row, label=before)
        changed.append(
            AppliedLabelChange(row=each.row, target=each.target, before=before, after=after)
        )
        edits[each.row].append(_Edit(label_columns, label_format, value))
    changed.sort(key=lambda each: (each.row, each.target or ""))
    return changed, edits


def _write(path: Path, columns: ColumnSelection, plan: _Plan, out_dir: Path) -> Path:
    """Write the corrected file in its own format, or in the one nearest to it."""
    out = out_dir / path.name
    match suffix := files.validate_file_and_get_suffix(path, columns.sheet):
        case ".parquet":
            _write_parquet(path, out, plan)
        case ".xlsx":
            out = out.with_suffix(".csv")
            _write_sheet(path, columns.sheet, out, plan)
        case ".jsonl":
            _write_json_lines(path, out, plan, _json_editor(path, columns, plan))
            if plan.left_out and _prompt_format_differs(path, out, columns):
                _write_objects(
                    mistral_labels.read_jsonl_as_flat_objects(path, columns)[0], out, plan
                )
        case ".json" if label_studio.is_export_file(path, columns):
            out = out.with_suffix(".jsonl")
            objects = label_studio.read_flattened_tasks(path, columns, ParseInfo())
            _write_objects(objects, out, plan)
        case ".json":
            _write_json_array(path, out, plan)
        case _:
            _write_delimited(path, out, "," if suffix == ".csv" else "\t", plan)
    return out


def _prompt_format_differs(path: Path, out: Path, columns: ColumnSelection) -> bool:
    """Return whether prompts that remain have other words in common: their texts would change."""
    before, after = (files.infer_file_prompt_format(each, columns) for each in (path, out))
    return before != after


def _moved_up(rows: Mapping[int, TextRow], left_out: Set[int]) -> Mapping[int, TextRow]:
    """Return rows with the numbers that they have in a format without blank lines."""
    gone = sorted(left_out)
    numbers = {number: number - bisect_left(gone, number) for number in rows}
    return {numbers[number]: replace(row, number=numbers[number]) for number, row in rows.items()}


def _check(out: Path, columns: ColumnSelection, expected: Mapping[int, TextRow]) -> None:
    """Read the corrected file and compare every row. Raises `LabelNotWritable`."""
    found = {row.number: row for row in files.read_rows(out, replace(columns, sheet=None))}
    for number in sorted(expected.keys() | found.keys()):
        if found.get(number) != expected.get(number):
            wanted = expected[number].label if number in expected else ""
            raise LabelNotWritable(file=out.name, row=number, label=wanted)


# -- Cells ----------------------------------------------------------------------------------------


def _cell(old: Any, value: LabelValue, separator: str | None) -> Any:
    """Return a label as a cell of the type of the old one: text stays text, a list a list."""
    match value:
        case tuple() if separator is not None:
            return separator.join(value)
        case tuple():
            return json.dumps(value, ensure_ascii=False) if isinstance(old, str) else list(value)
        case str():
            if isinstance(old, bool):
                return {"true": True, "false": False}.get(value, value)
            if isinstance(old, int) and value.removeprefix("-").isdecimal():
                return int(value) if str(int(value)) == value else value
            return value
        case number if isinstance(old, Decimal):
            return Decimal(repr(number))
        case number:
            is_text = isinstance(old, str)
            shortest = int(number) if number.is_integer() and (is_text or _is_int(old)) else number
            return str(shortest) if is_text else shortest


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _binary_cell(old: Any, has_label: bool) -> Any:
    """Return a cell of a column of 0 and 1, written as the old one is."""
    match old:
        case bool():
            return has_label
        case int() | float() | Decimal():
            return type(old)(has_label)
        case str() if old.strip().lower() in ("true", "false"):
            text = str(has_label)
            return text if old.strip()[0].isupper() else text.lower()
        case str() if old.strip().endswith(".0"):
            return f"{has_label:.1f}"
        case _:
            return str(int(has_label))


def _edited(cells: Cells, edits: Iterable[_Edit]) -> Cells:
    """Return the cells of a row with its new labels."""
    for edit in edits:
        found = {name: find_column(name, cells) or name for name in edit.columns}
        new = edit.cells({name: cells[column] for name, column in found.items()})
        cells = {**cells, **{found[name]: cell for name, cell in new.items()}}
    return cells


def _edited_row(header: Sequence[str], cells: Sequence[Any], edits: Iterable[_Edit]) -> list[Any]:
    """Return a row of a table with its new labels. Other columns may share a name, or have none."""
    old = dict(zip(header, cells, strict=True))
    new = _edited(old, edits)
    return [
        cell if new[name] == old[name] else new[name]
        for name, cell in zip(header, cells, strict=True)
    ]


# -- CSV and TSV ----------------------------------------------------------------------------------


class _Recorder:
    """Passes lines on, and remembers those of the current record."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = lines
        self._taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self._taken.append(line)
            yield line

    def pop_lines(self) -> str:
        """Return the lines since the last call."""
        taken = "".join(self._taken)
        self._taken.clear()
        return taken


def _write_delimited(path: Path, out: Path, default: str, plan: _Plan) -> None:
    layout = text_files.detect_dialect(path, default)
    recorder = _Recorder(TextLines(path, layout.encoding, line_end=layout.line_end))
    records = csv.reader(islice(recorder, layout.skipped, None), delimiter=layout.separator)
    header: list[str] | None = None
    row = 0
    with _open_text(path, out, layout.encoding, plan) as file:
        for cells in records:
            source = recorder.pop_lines()
            if header is None:
                header = cells if any(cell.strip() for cell in cells) else None
                row = 0 if header is None else 1
            else:
                if row in plan.left_out:
                    source = _line_end(source)
                elif edits := plan.of_row(row):
                    new = _edited_row(header, cells, edits)
                    source = _delimited_line(new, layout.separator, _line_end(source))
                row += 1
            file.write(source)
        file.write(recorder.pop_lines())


def _open_text(path: Path, out: Path, encoding: Encoding, plan: _Plan) -> io.TextIOWrapper:
    """Open the corrected file in the encoding of the file, or in UTF-8 if that lacks a letter."""
    with path.open("rb") as file:
        start = file.read(3)
    codec = "utf-8"
    if encoding in (UTF_8, UTF_16):
        marks = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16"}
        marks[codecs.BOM_UTF16_BE] = "utf-16"
        codec = next((each for mark, each in marks.items() if start.startswith(mark)), codec)
    else:
        values = [edit.value for of_row in plan.edits.values() for edit in of_row]
        labels = [" ".join(each) if isinstance(each, tuple) else str(each) for each in values]
        try:
            "".join(labels).encode(encoding.codec)
            codec = encoding.codec
        except UnicodeEncodeError:
            codec = "utf-8-sig"  # with a mark, so that spreadsheets read it
    return out.open("w", encoding=codec, newline="")


def _line_end(line: str) -> str:
    return line[len(line.rstrip("\r\n")) :]


def _delimited_line(cells: Sequence[str], separator: str, end: str) -> str:
    """Return a record. With any other end of line, a line feed in a cell would not be quoted."""
    line = io.StringIO()
    csv.writer(line, delimiter=separator, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n") + end


def _write_sheet(path: Path, sheet: str | None, out: Path, plan: _Plan) -> None:
    """Write a sheet as CSV. Blank rows become blank lines, so that rows keep their numbers."""
    table = files.open_table(path, ".xlsx", sheet)
    with out.open("w", encoding="utf-8-sig", newline="") as file:
        file.write(_delimited_line(table.header, ",", "\r\n"))
        next_row = 1
        for number, cells in table.rows:
            if number in plan.left_out:
                continue
            file.write("\r\n" * (number - next_row))
            next_row = number + 1
            new = cells
            if edits := plan.of_row(number):
                new = _edited_row(table.header, cells, edits)
            file.write(_delimited_line(new, ",", "\r\n"))


# -- JSON -----------------------------------------------------------------------------------------

# Returns the object of a row with its new labels: (row number, object) -> object.
_Editor = Callable[[int, dict[str, Any]], dict[str, Any]]


def _json_editor(path: Path, columns: ColumnSelection, plan: _Plan) -> _Editor:
    """Return what changes the objects of a `.jsonl` file, which may keep labels in several ways."""
    first = next(text_files.iter_json_lines(path), (0, {}))[1]
    if mistral_labels.reads_labels_object(first, columns):
        return lambda number, record: _edit_label_object(record, plan.of_row(number))
    if not chat.has_chat_form(first, columns):
        return lambda number, record: _edited(record, plan.of_row(number))
    answers = {
        number: cells[chat.LABEL] for number, cells in chat.read_flattened_chat(path, columns)[0]
    }
    return lambda number, record: _edit_answer(
        path.name, number, record, answers[number], plan.of_row(number)
    )


def _edit_label_object(record: dict[str, Any], edits: Iterable[_Edit]) -> dict[str, Any]:
    """Change labels in the object `labels`; a field of the record has precedence over them."""
    names = {
        unicodedata.normalize("NFC", name): name for name in record.get(mistral_labels.LABELS, {})
    }
    for edit in edits:
        labels = record.get(mistral_labels.LABELS, {})
        old = {name: labels.get(names.get(name, name)) for name in edit.columns} | {
            name: record[name] for name in edit.columns if name in record
        }
        new = edit.cells(old)
        label_format = edit.label_format
        if isinstance(edit.value, tuple) and label_format == LabelFormat("multi_label"):
            new = {name: list(edit.value) for name in new}  # a single name may stand for a list
        fields = {name: cell for name, cell in new.items() if name in record}
        others = {names.get(k, k): cell for k, cell in new.items() if k not in record}
        record = {**record, **fields}
        if others:
            record[mistral_labels.LABELS] = {**labels, **others}
    return record


def _edit_answer(
    file: str, number: int, record: dict[str, Any], answer: object, edits: Sequence[_Edit]
) -> dict[str, Any]:
    """Replace the label within the answer of an example in chat form. Raises `LabelNotWritable`."""
    if not edits:
        return record
    (edit,) = edits
    new = str(edit.cells({chat.LABEL: answer})[chat.LABEL])

    def replaced(content: object) -> str:
        if not isinstance(content, str) or content.count(str(answer)) != 1:
            raise LabelNotWritable(file=file, row=number, label=new)
        return content.replace(str(answer), new)

    messages = record.get(chat.MESSAGES)
    if not isinstance(messages, list):
        return {**record, chat.COMPLETION: replaced(record.get(chat.COMPLETION))}
    *before, last = messages
    return {**record, chat.MESSAGES: [*before, {**last, "content": replaced(last["content"])}]}


def _write_json_lines(path: Path, out: Path, plan: _Plan, editor: _Editor) -> None:
    lines = TextLines(path)
    lines.row = 1
    with _open_text(path, out, UTF_8, plan) as file:
        for line in lines:
            left_out = lines.row in plan.left_out
            file.write(_line_end(line) if left_out else _edited_line(line, lines.row, editor))
            lines.row += 1


def _edited_line(line: str, number: int, editor: _Editor) -> str:
    """Return a line of JSON, the same one if its object stays the same."""
    if not line.strip():
        return line
    record = json.loads(line)
    new = editor(number, record)
    if new == record:
        return line
    return _json_text(new, ensure_ascii=line.isascii()) + _line_end(line)


def _json_text(record: dict[str, Any], *, ensure_ascii: bool = False) -> str:
    text = json.dumps(record, ensure_ascii=ensure_ascii)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, in a field that is not read, can only be escaped
        return json.dumps(record)
    return text


def _write_json_array(path: Path, out: Path, plan: _Plan) -> None:
    records = (
        _edited(record, plan.of_row(number))
        for number, record in text_files.iter_json_array(path)
        if number not in plan.left_out
    )
    with out.open("w", encoding="utf-8") as file:
        for i, record in enumerate(records):
            file.write(",\n" if i else "[\n")
            file.write(_json_text(record))
        file.write("\n]\n")


def _write_objects(objects: chat.NumberedObjects, out: Path, plan: _Plan) -> None:
    """Write objects as JSON Lines, with blank lines for numbers that are left out."""
    next_row = 1
    with out.open("w", encoding="utf-8") as file:
        for number, record in objects:
            if number in plan.left_out:
                continue
            file.write("\n" * (number - next_row))
            next_row = number + 1
            file.write(_json_text(_edited(record, plan.of_row(number))))
            file.write("\n")


# -- Parquet --------------------------------------------------------------------------------------


def _parquet_types(path: Path) -> Mapping[str, Any]:
    """Return the types of the columns of a Parquet file; none of other files."""
    if path.suffix.lower() != ".parquet":
        return {}
    from lora_core.data import arrow  # pyarrow is slow to import, and most files do not need it

    with arrow.open_parquet(path) as source:
        return {field.name: field.type for field in source.schema_arrow}


def _as_stored(number: float, arrow_type: Any) -> float:
    """Return a number as a column holds it, such as 4.3 as 4.300000190734863 in 32 bits."""
    import pyarrow as pa

    is_float = pa.types.is_floating(arrow_type)
    return float(pa.scalar(number, arrow_type).as_py()) if is_float else number


def _write_parquet(path: Path, out: Path, plan: _Plan) -> None:
    import pyarrow as pa  # slow to import, and most files do not need it
    import pyarrow.parquet as pq

    from lora_core.data import arrow

    with arrow.open_parquet(path) as source:
        schema = source.schema_arrow
        names = list(schema.names)
        first_row = 1
        with pq.ParquetWriter(out, schema) as writer:
            for group in range(source.metadata.num_row_groups):
                table = source.read_row_group(group, use_threads=False)
                of_group = {
                    number - first_row: each
                    for number, each in plan.edits.items()
                    if first_row <= number < first_row + len(table)
                }
                edited = {n for each in of_group.values() for e in each for n in e.columns}
                for name in {find_column(n, names) or n for n in edited}:
                    cells = table.column(name).to_pylist()
                    for position, each in of_group.items():
                        old = dict.fromkeys(names, cells[position])
                        cells[position] = _edited(old, each)[name]
                        row, cell = first_row + position, cells[position]
                        _check_cell(path.name, row, cell, schema.field(name).type, pa)
                    column = pa.array(cells, type=schema.field(name).type)
                    table = table.set_column(names.index(name), schema.field(name), column)
                rows = range(first_row, first_row + len(table))
                first_row = rows.stop
                if not plan.left_out.isdisjoint(rows):
                    gone = [i for i, row in enumerate(rows) if row in plan.left_out]
                    kept = pairwise((-1, *gone, len(rows)))  # slices: some types have no filter
                    table = pa.concat_tables(table.slice(a + 1, b - a - 1) for a, b in kept)
                    table = _with_used_values(table, pa)
                if len(table):
                    writer.write_table(table)


def _with_used_values(table: Any, pa: Any) -> Any:
    """Return a table whose dictionaries have no values of rows that were left out."""
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            cells = table.column(i).to_pylist()
            table = table.set_column(i, field, pa.array(cells, type=field.type))
    return table


def _check_cell(file: str, row: int, cell: Any, arrow_type: Any, pa: Any) -> None:
    """Raise `LabelNotWritable` if a cell is not of the type of its column."""
    try:
        pa.array([cell], type=arrow_type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise LabelNotWritable(file=file, row=row, label=str(cell)) from error
