"""Arrow columns (hub datasets) and Parquet files.

The sizes in a Parquet footer are checked before anything is decoded; batches are counted while they
are decoded.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lora_core.data.label_readers import LabelFormat
from lora_core.data.rows import (
    MAX_BYTES,
    MAX_CELL_CHARACTERS,
    MAX_ROWS,
    ColumnSelection,
    NumberedCells,
)
from lora_core.errors.data import (
    DataTooLarge,
    EmptyData,
    MalformedRow,
    UndecodableText,
    UnsupportedFormat,
)

# Rows decoded to Python objects at a time, at most 128 cells of MAX_CELL_CHARACTERS.
BATCH_ROWS = 128


def is_string_type(arrow_type: pa.DataType) -> bool:
    """Return whether cells of this type are strings."""
    if pa.types.is_dictionary(arrow_type):
        return is_string_type(arrow_type.value_type)
    return bool(
        pa.types.is_string(arrow_type)
        or pa.types.is_large_string(arrow_type)
        or pa.types.is_string_view(arrow_type)
    )


def check_column_types(file: str, types: Sequence[pa.DataType], columns: ColumnSelection) -> None:
    """Check the types of text (or two), labels and split, the last two if present.

    Raises `MalformedRow`.
    """
    for text, name in zip(types, ("text", "text pair")[: len(columns.text_columns)], strict=False):
        if not is_string_type(text):
            problem = f"the {name} column has type {text}, not string"
            raise MalformedRow(file=file, row=1, problem=problem)
    names, others = columns.label_columns, types[len(columns.text_columns) :]
    for name, label, label_format in zip(names, others, columns.label_column_formats, strict=False):
        if (expected := _expected_label_type(label, label_format)) is not None:
            problem = f"the label column {name!r} has type {label}, not {expected}"
            if pa.types.is_floating(label) and label_format.task == "single_label":
                problem += "; convert it to integers or strings, or use --task regression"
            raise MalformedRow(file=file, row=1, problem=problem)
    for split in others[len(names) :]:
        if not is_string_type(split):
            problem = f"the split column has type {split}, not string"
            raise MalformedRow(file=file, row=1, problem=problem)


def _expected_label_type(label: pa.DataType, label_format: LabelFormat) -> str | None:
    """Return which types a label column may have; None if it has one of them."""
    in_one_cell = label_format.task == "multi_label" and label_format.columns is None
    item = label.value_type if in_one_cell and is_list_type(label) else label
    is_name = is_string_type(item) or pa.types.is_integer(item) or pa.types.is_boolean(item)
    is_number = is_name or pa.types.is_floating(item) or pa.types.is_decimal(item)
    if pa.types.is_null(item):
        return None
    if in_one_cell:
        is_set = is_string_type(label) or (is_name and is_list_type(label))
        return None if is_set else "a list of strings, integers or bools, or string"
    if label_format.task == "single_label":
        return None if is_name else "string, integer or bool"
    return None if is_number else "integer, float, bool or string"


def is_list_type(arrow_type: pa.DataType) -> bool:
    """Return whether cells of this type are lists."""
    return bool(pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type))


class ArrowCellDecoder:
    """Decodes columns of at most `BATCH_ROWS` rows. `row`: number of rows decoded so far."""

    def __init__(self, file: str) -> None:
        self.row = 0
        self._file = file
        self._bytes = 0

    def decode_rows(self, columns: Sequence[pa.Array]) -> NumberedCells:
        """Yield the rows of a batch with their numbers. Raises what `decode_column` raises."""
        values = [self.decode_column(column) for column in columns]
        for cells in zip(*values, strict=True):
            self.row += 1
            yield self.row, cells

    def decode_column(self, column: pa.Array) -> list[object]:
        """Return the cells. Raises `UndecodableText`, and `DataTooLarge` before decoding a cell."""
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        column = _without_views(column)
        if is_list_type(column.type):
            self._check_size(column.flatten(), column.value_parent_indices())
        else:
            self._check_size(column)
        try:
            return list(column.to_pylist())
        except UnicodeDecodeError as error:
            raise UndecodableText(
                file=self._file, row=self.row + _first_undecodable(column)
            ) from error

    def _check_size(self, strings: pa.Array, rows: pa.Array | None = None) -> None:
        """Check the length of strings. `rows`: the row of each in this batch, from 0."""
        if not is_string_type(strings.type) or not len(strings):
            return
        if pa.types.is_dictionary(strings.type):
            strings = strings.dictionary_decode()
        lengths = pc.binary_length(strings)
        longest = pc.max(lengths).as_py() or 0
        if longest > 4 * MAX_CELL_CHARACTERS:  # a character has at most 4 bytes
            position = pc.index(lengths, longest).as_py()
            row = self.row + 1 + (position if rows is None else rows[position].as_py())
            raise DataTooLarge(
                file=self._file,
                what=f"a cell in row {row}",
                limit=f"{MAX_CELL_CHARACTERS:,} characters",
            )
        self._bytes += pc.sum(lengths).as_py() or 0
        if self._bytes > MAX_BYTES:
            raise DataTooLarge(
                file=self._file, what="the sum of cells", limit=f"{MAX_BYTES:,} bytes"
            )


def _without_views(column: pa.Array) -> pa.Array:
    """Return strings, or lists of them, in a type whose lengths pyarrow can compute."""
    if pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    if is_list_type(column.type) and pa.types.is_string_view(column.type.value_type):
        return column.cast(pa.large_list(pa.large_string()))
    return column


def _first_undecodable(column: pa.Array) -> int:
    """Return the position, from 1, of the first cell that is not valid UTF-8."""
    for position, cell in enumerate(column, start=1):
        try:
            cell.as_py()
        except UnicodeDecodeError:
            return position
    return 1


# -- Parquet -------------------------------------------------------------------------------------

ENCRYPTED_MAGIC = b"PARE"  # last bytes of a file with an encrypted footer; else b"PAR1"
_MAX_FOOTER_ENTRIES = 200_000


def iter_parquet_rows(path: Path, columns: ColumnSelection) -> NumberedCells:
    """Yield the selected columns, row group by row group.

    Raises `UnsupportedFormat` for a damaged or encrypted file, `EmptyData`, `MissingColumn`,
    `UndecodableText`, `MalformedRow`, `DataTooLarge`.
    """
    with open_parquet(path) as parquet:
        schema = parquet.schema_arrow
        positions = columns.find_positions(path.name, schema.names)
        check_column_types(path.name, [schema.field(i).type for i in positions], columns)
        names = [schema.names[i] for i in positions]
        decoder = ArrowCellDecoder(path.name)
        for batch in iter_batches(parquet, names):
            yield from decoder.decode_rows([batch.column(name) for name in names])


def iter_batches(parquet: pq.ParquetFile, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the columns in batches of at most `BATCH_ROWS` rows, row group by row group."""
    for group in range(parquet.metadata.num_row_groups):
        yield from parquet.iter_batches(
            batch_size=BATCH_ROWS, row_groups=[group], columns=names, use_threads=False
        )


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a file and check the sizes in its footer.

    Raises `UnsupportedFormat` for a damaged or encrypted file, here or while it is read,
    `EmptyData`, `DataTooLarge`.
    """
    with path.open("rb") as end:
        end.seek(-min(4, path.stat().st_size), 2)
        if end.read() == ENCRYPTED_MAGIC:
            raise UnsupportedFormat(file=path.name, reason="it is encrypted")
    try:
        with (
            pa.OSFile(str(path)) as file,
            pq.ParquetFile(
                file,
                pre_buffer=False,
                thrift_container_size_limit=_MAX_FOOTER_ENTRIES,
                arrow_extensions_enabled=False,
            ) as parquet,
        ):
            _check_footer(path.name, parquet.metadata)
            yield parquet
    except MemoryError:  # pyarrow's memory error is also an ArrowException
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: a column's name
        reason = "it is damaged, or parts of it are encrypted"
        raise UnsupportedFormat(file=path.name, reason=reason) from error


def _check_footer(file: str, metadata: pq.FileMetaData) -> None:
    """Check rows and decoded bytes as the footer states them, before decoding anything."""
    if metadata.num_rows == 0:
        raise EmptyData(file=file)
    if metadata.num_rows > MAX_ROWS:
        raise DataTooLarge(file=file, what="the number of rows", limit=f"{MAX_ROWS:,}")
    # sizes of whole groups: reading the metadata of an encrypted column aborts the process in
    # pyarrow 26 (C++ terminate)
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    if sum(group.total_byte_size for group in groups) > MAX_BYTES:
        raise DataTooLarge(file=file, what="its decoded size", limit=f"{MAX_BYTES:,} bytes")
