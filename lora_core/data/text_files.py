"""Text files: CSV, TSV, JSON Lines and JSON arrays, parsed strictly.

The encodings are UTF-8, UTF-16 with a byte order mark, and Windows-1252. Spreadsheets save CSV in
the encoding of the system and do not record which. Of these only Windows-1252, for Western Europe
and America, is read, and only if nothing contradicts it: a wrong guess would change words silently.
"""

import codecs
import csv
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from lora_core.data.rows import (
    MAX_CELL_CHARACTERS,
    MAX_LINE_CHARACTERS,
    SEPARATORS,
    SPLIT_COLUMN,
    ColumnSelection,
    NumberedCells,
    NumberedRows,
    ParseInfo,
    TableWithHeader,
    normalize_column_name,
)
from lora_core.errors import LoraCoreError
from lora_core.errors.data import DataTooLarge, MalformedRow, NulByte, UndecodableText

# -- Encodings ------------------------------------------------------------------------------------

_CHUNK_BYTES = 1 << 20  # bytes
_ASCII_LETTERS = bytes(range(ord("A"), ord("Z") + 1)) + bytes(range(ord("a"), ord("z") + 1))
_HIGH_BYTES = bytes(range(0x80, 0x100))
_UNDEFINED_BYTES = b"\x81\x8d\x8f\x90\x9d"
_UTF_8_SEQUENCE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)
# Rare in Western text: four accented letters in a row (Cyrillic, Greek), an accented capital after
# a lowercase letter (Mac Roman), a superscript or currency sign inside a word (Polish), bytes that
# look like UTF-8 (a file of mixed encodings).
_NOT_WESTERN = re.compile(
    rb"[\xc0-\xff]{4}|[a-z][\x8a\x8c\x8e\x9f\xc0-\xd6\xd8-\xde]"
    rb"|[A-Za-z\xc0-\xff][\xa3\xa5\xa7\xaf\xb3\xb9\xbc\xbe\xbf][a-z\x80-\xff]"
    rb"|[\xc2\xc3][\x80-\xbf]|\xe2\x80[\x80-\xbf]"
)
_MAX_HIGH_SHARE = 0.3  # of the letters: French has 5%, German 3%


class Encoding(NamedTuple):
    """A supported encoding.

    With `errors`, invalid bytes become lone surrogates, which `TextLines` finds, so that it can
    report the row.
    """

    name: str  # shown to users
    codec: str
    errors: str = "surrogateescape"


UTF_8 = Encoding("UTF-8", "utf-8-sig")
UTF_16 = Encoding("UTF-16", "utf-16", "surrogatepass")
WINDOWS_1252 = Encoding("Windows-1252", "cp1252")


def detect_encoding(path: Path) -> Encoding:
    """Return the encoding of a file. An unknown one is returned as UTF-8, where decoding fails."""
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return UTF_16
    if _is_utf_8(path) or not _is_western(path):
        return UTF_8
    return WINDOWS_1252


def _is_utf_8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in _read_chunks(path):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _is_western(path: Path) -> bool:
    """Return whether nothing contradicts Windows-1252. A file that is mostly UTF-8 is damaged."""
    letters = high_bytes = sequences = unlikely = 0
    for chunk in _read_chunks(path):
        if any(byte in chunk for byte in (b"\0", *(bytes([each]) for each in _UNDEFINED_BYTES))):
            return False
        letters += len(chunk) - len(chunk.translate(None, _ASCII_LETTERS))
        high_bytes += len(chunk) - len(chunk.translate(None, _HIGH_BYTES))
        sequences += sum(len(found) for found in _UTF_8_SEQUENCE.findall(chunk))
        unlikely += sum(1 for _ in _NOT_WESTERN.finditer(chunk))
    return (
        high_bytes <= _MAX_HIGH_SHARE * (letters + high_bytes)
        and 2 * sequences <= high_bytes
        and 100 * unlikely <= high_bytes
    )


def _read_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


# -- Lines ----------------------------------------------------------------------------------------

HEAD_CHARACTERS = 65_536  # used to detect the line ending


class TextLines:
    """Iterates over the lines of a text file, line endings included. The caller maintains `row`, so
    that errors can report it.

    Raises `UndecodableText`, `NulByte`, `DataTooLarge`.
    """

    def __init__(self, path: Path, encoding: Encoding = UTF_8, *, line_end: str = "\n") -> None:
        self.file = path.name
        self.row = 0  # 0: the header
        self._path = path
        self._encoding = encoding
        self._end = line_end

    def __iter__(self) -> Iterator[str]:
        codec, errors = self._encoding.codec, self._encoding.errors
        with self._path.open(encoding=codec, errors=errors, newline=self._end) as file:
            try:
                while line := file.readline(MAX_LINE_CHARACTERS + 1):
                    self._check(line)
                    yield line
            except UnicodeDecodeError as error:  # a truncated character at the end
                raise UndecodableText(file=self.file, row=self.row) from error

    def _check(self, line: str) -> None:
        if len(line) > MAX_LINE_CHARACTERS:
            raise DataTooLarge(
                file=self.file,
                what=f"a line of row {self.row}",
                limit=f"{MAX_LINE_CHARACTERS:,} characters",
            )
        if not line.isascii():
            try:
                line.encode()
            except UnicodeEncodeError as error:  # see `Encoding.errors`
                raise UndecodableText(file=self.file, row=self.row) from error
        if "\0" in line:
            raise _nul_error(self.file, self.row, line)


def _nul_error(file: str, row: int, text: str) -> NulByte:
    """Return the error for text with a NUL. Of ASCII in UTF-16, it is every other byte."""
    if {"\0"} in (set(text[:8:2]), set(text[1:8:2])):
        advice = "The file may be UTF-16 without a byte order mark: save it as UTF-8"
        return NulByte(file=file, row=row, advice=advice)
    return NulByte(file=file, row=row)


def detect_line_end(path: Path, encoding: Encoding) -> str:
    r"""Return "\n" for lines that end in LF or CR LF, "\r" if the file has no LF."""
    with path.open(encoding=encoding.codec, errors="replace", newline="") as file:
        head = file.read(HEAD_CHARACTERS)
    return "\r" if "\r" in head and "\n" not in head else "\n"


# -- CSV and TSV, in the dialects that spreadsheets write -----------------------------------------

# Parsed with the standard library instead of `datasets`, whose errors do not report the row of a
# broken quote, and which reads as much as it can of a damaged file.

_SNIFFED_ROWS = 20  # rows used to detect the separator
_SEP_LINE = re.compile(r'"?sep=([^"\r\n])"?\r?\n?')  # a first line that Excel understands


def open_delimited(path: Path, default: str) -> TableWithHeader:
    """Open a file with a header. Cells may be quoted with `"`, doubled inside a cell.

    The separator is the one in a first line `sep=;`, else the one on which the header and the rows
    below agree, else `default`. Rows are numbered as in a spreadsheet, including blank lines, from
    1 below the header (0).

    Raises, here or while rows are read, `MalformedRow`, `UndecodableText`, `NulByte`, `EmptyData`,
    `DataTooLarge`.
    """
    layout = detect_dialect(path, default)
    info = ParseInfo(encoding=layout.encoding.name, separator=layout.separator)
    lines = TextLines(path, layout.encoding, line_end=layout.line_end)
    rows = _numbered_rows(lines, layout.separator, layout.skipped)
    return TableWithHeader.from_rows(path.name, info, rows)


class DelimitedDialect(NamedTuple):
    """How the text of a table is to be read."""

    encoding: Encoding
    line_end: str  # see `detect_line_end`
    separator: str
    skipped: int  # lines before the header, which only name the separator


def detect_dialect(path: Path, default: str) -> DelimitedDialect:
    """Return the layout of a file; `default` is its separator if nothing shows another one.

    Raises `UndecodableText`, `NulByte`, `DataTooLarge`.
    """
    # The limit is global to the process and other threads may be reading, so it is never restored.
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    encoding = detect_encoding(path)
    line_end = detect_line_end(path, encoding)
    sep_line = _SEP_LINE.fullmatch(next(iter(TextLines(path, encoding, line_end=line_end)), ""))
    if sep_line:
        return DelimitedDialect(encoding, line_end, sep_line[1], 1)
    separator = _detect_separator(TextLines(path, encoding, line_end=line_end), default)
    return DelimitedDialect(encoding, line_end, separator, 0)


def _numbered_rows(lines: TextLines, separator: str, skipped: int) -> NumberedRows:
    """Yield the header as row 0, then the other rows, all with the same number of cells."""
    records = _parse_records(lines, separator, skipped)
    header = next((cells for cells in records if any(cell.strip() for cell in cells)), None)
    if header is None:
        return
    yield 0, header
    lines.row = 1
    for cells in records:
        if cells:  # [] is a blank line
            if len(cells) != len(header) and any(cell.strip() for cell in cells):
                raise MalformedRow(
                    file=lines.file,
                    row=lines.row,
                    problem=_cell_count_problem(len(cells), len(header)),
                )
            yield lines.row, cells
        lines.row += 1


def _parse_records(lines: TextLines, separator: str, skipped: int = 0) -> Iterator[list[str]]:
    try:
        yield from csv.reader(islice(lines, skipped, None), delimiter=separator, strict=True)
    except csv.Error as error:
        raise _parser_error(lines, str(error)) from error


def read_first_records(path: Path, separator: str, count: int) -> list[list[str]]:
    """Return the first rows of a table up to one that cannot be parsed, blank lines too."""
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    encoding = detect_encoding(path)
    lines = TextLines(path, encoding, line_end=detect_line_end(path, encoding))
    records: list[list[str]] = []
    with suppress(LoraCoreError):
        for cells in islice(_parse_records(lines, separator), count):
            records.append(cells)  # noqa: PERF402 - those before an error are kept
    return records


def _detect_separator(lines: TextLines, default: str) -> str:
    """Return the separator that gives most rows as many cells as the header."""
    shares = {
        candidate: _matching_row_share(lines, candidate)
        for candidate in dict.fromkeys((default, *SEPARATORS))
    }
    best = max(shares, key=lambda candidate: shares[candidate])  # on a tie the first one
    return best if shares[best] >= 0.5 else default


def _matching_row_share(lines: TextLines, separator: str) -> float:
    """Return the share of the first rows with as many cells as the header; 0 for one cell.

    A damaged file is refused later, when it is read.
    """
    counts: list[int] = []
    try:
        for cells in islice(_parse_records(lines, separator), _SNIFFED_ROWS):
            counts += [len(cells)] if any(cells) else []
    except LoraCoreError:
        pass
    if not counts or counts[0] == 1:
        return 0
    return counts[1:].count(counts[0]) / len(counts[1:]) if counts[1:] else 1


def _parser_error(lines: TextLines, message: str) -> LoraCoreError:
    """Translate the message of the csv parser."""
    if "field limit" in message:
        what = f"a cell in row {lines.row} (is a quote left open?)"
        return DataTooLarge(file=lines.file, what=what, limit=f"{MAX_CELL_CHARACTERS:,} characters")
    if "unexpected end" in message:
        problem = "a quote is never closed"
    elif "new-line" in message:
        problem = "some lines end in LF and some in CR; save the file with one kind of line ending"
    else:
        problem = (
            "invalid quoting: text follows the closing quote of a cell; "
            "double a quote inside a cell"
        )
    return MalformedRow(file=lines.file, row=lines.row, problem=problem)


def _cell_count_problem(actual: int, expected: int) -> str:
    advice = "; a cell that contains the separator must be quoted" if actual > expected else ""
    return f"the header has {expected} cells, this row has {actual}{advice}"


# -- JSON Lines -----------------------------------------------------------------------------------

_ARRAY_PROBLEM = "not a JSON object; a file that is one JSON array needs the suffix .json"
_HEAD_OBJECTS = 100  # which show the columns that are read: some objects may lack a field


def select_json_columns(
    file: str, objects: Iterable[tuple[int, dict[str, Any]]], columns: ColumnSelection
) -> NumberedCells:
    """Yield the selected columns of objects with their line numbers, which become row numbers.

    Raises `MalformedRow`, also for a split that only later objects have, `MissingColumn`,
    `DataTooLarge`, and what reading the objects raises.
    """
    objects = iter(objects)
    head = list(islice(objects, _HEAD_OBJECTS))
    if not head:
        return
    selected = (*columns.text_columns, *columns.label_columns, columns.split or SPLIT_COLUMN)
    wanted = set(map(normalize_column_name, selected))
    of_head = dict.fromkeys(name for _, record in head for name in record)
    available = [
        name for name in of_head if name in head[0][1] or normalize_column_name(name) in wanted
    ]
    names = [available[i] for i in columns.find_positions(file, available)]
    no_split_yet = columns.detects_split and SPLIT_COLUMN not in names
    for number, record in chain(head, objects):
        if no_split_yet and SPLIT_COLUMN in record:
            problem = f"a field {SPLIT_COLUMN!r}, which the rows above lack; give it to all of them"
            raise MalformedRow(file=file, row=number, problem=problem)
        yield number, [require_json_field(file, number, record, name) for name in names]


def iter_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects with their line numbers.

    Raises `MalformedRow`, `UndecodableText`, `NulByte`, `DataTooLarge`.
    """
    lines = TextLines(path)
    lines.row = 1
    for line in lines:
        if line.strip():
            yield lines.row, _parse_object(lines, line)
        lines.row += 1


def _parse_object(lines: TextLines, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        problem = _ARRAY_PROBLEM if line.lstrip().startswith("[") else _json_problem(error)
        raise MalformedRow(file=lines.file, row=lines.row, problem=problem) from error
    if not isinstance(record, dict):
        problem = _ARRAY_PROBLEM if isinstance(record, list) else "not a JSON object"
        raise MalformedRow(file=lines.file, row=lines.row, problem=problem)
    return record


def _json_problem(error: Exception) -> str:
    if isinstance(error, _ConstantFound):
        return f"not a JSON object: {error} is not JSON; write null"
    return "not a JSON object"


def require_json_field(file: str, row: int, record: dict[str, Any], name: str) -> Any:
    """Return a field of an object. Raises `MalformedRow` if it is missing."""
    try:
        return record[name]
    except KeyError:
        raise MalformedRow(file=file, row=row, problem=f"no field {name!r}") from None


class _ConstantFound(ValueError):
    """NaN or Infinity, which some programs write for a missing number."""


def _reject_constant(constant: str) -> NoReturn:
    raise _ConstantFound(constant)


# -- JSON arrays ----------------------------------------------------------------------------------

_WHITE_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(parse_constant=_reject_constant)


def iter_json_array(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a file that is one JSON array, numbered from 1.

    The text of the file is in memory, but of the objects only one at a time.

    Raises `MalformedRow`, `UndecodableText`, `NulByte`.
    """
    text = path.read_text(encoding=UTF_8.codec, errors=UTF_8.errors)
    number, position = 1, _skip_space(text, 0)
    if "\0" in text[:2]:
        raise _nul_error(path.name, number, text)
    if not text.startswith("[", position):
        problem = "the file is not a JSON array; JSON Lines need the suffix .jsonl"
        raise MalformedRow(file=path.name, row=1, problem=problem)
    position = _skip_space(text, position + 1)
    is_open = not text.startswith("]", position)
    while is_open:
        record, end = _decode_object(path.name, number, text, position)
        yield number, record
        position = _skip_space(text, end)
        is_open = text.startswith(",", position)
        if is_open:
            number, position = number + 1, _skip_space(text, position + 1)
    if not text.startswith("]", position) or _skip_space(text, position + 1) < len(text):
        problem = "it is followed by neither a comma nor the end of the array and of the file"
        raise MalformedRow(file=path.name, row=number, problem=problem)


def _decode_object(file: str, number: int, text: str, position: int) -> tuple[dict[str, Any], int]:
    """Return the object at a position, and where it ends."""
    try:
        record, end = _DECODER.raw_decode(text, position)
    except (ValueError, RecursionError) as error:
        raise MalformedRow(file=file, row=number, problem=_json_problem(error)) from error
    if not isinstance(record, dict):
        raise MalformedRow(file=file, row=number, problem="not a JSON object")
    try:
        text[position:end].encode()
    except UnicodeEncodeError as error:  # see `Encoding.errors`
        raise UndecodableText(file=file, row=number) from error
    return record, end


def _skip_space(text: str, position: int) -> int:
    found = _WHITE_SPACE.match(text, position)
    return position if found is None else found.end()
