"""Arrow columns to rows; what Parquet files and hub data sets share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lora_core.data.limits import MAX_BYTES, MAX_CELL, MAX_ROWS
from lora_core.data.rows import Columns, Numbered
from lora_core.errors.data import (
    BrokenRows,
    DataTooLarge,
    EmptyData,
    UnsupportedFormat,
    WrongEncoding,
)

BATCH = (
    128  # rows turned into Python at a time: at most 128 cells of MAX_CELL are ever decoded at once
)


def is_text(kind: pa.DataType) -> bool:
    """Whether cells of this type are strings."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def check_types(file: str, kinds: Sequence[pa.DataType]) -> None:
    """Text, perhaps label and split must be of a type that is read. Raises `BrokenRows`."""
    if not is_text(kinds[0]):
        raise BrokenRows(file=file, row=1, problem=f"the text column holds {kinds[0]}, not strings")
    if len(kinds) == 1:
        return
    label = kinds[1]
    whole = pa.types.is_integer(label) or pa.types.is_boolean(label)
    if not (is_text(label) or whole or pa.types.is_null(label)):
        problem = f"the label column holds {label}; strings, whole numbers or bools are needed"
        raise BrokenRows(file=file, row=1, problem=problem)
    if len(kinds) > 2 and not is_text(kinds[2]):
        raise BrokenRows(
            file=file, row=1, problem=f"the split column holds {kinds[2]}, not strings"
        )


class ArrowCells:
    """Turns columns of at most `BATCH` rows into Python objects. `row`: how many came before."""

    def __init__(self, file: str) -> None:
        self.row = 0
        self._file = file
        self._bytes = 0

    def rows(self, columns: Sequence[pa.Array]) -> Numbered:
        """The rows of a batch. Raises what `values` raises."""
        values = [self.values(column) for column in columns]
        for cells in zip(*values, strict=True):
            self.row += 1
            yield self.row, cells

    def values(self, column: pa.Array) -> list[object]:
        """Raises `WrongEncoding`, and `DataTooLarge` before a cell becomes a Python object."""
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if is_text(column.type) and len(column):
            self._measure(column)
        try:
            return list(column.to_pylist())
        except UnicodeDecodeError as error:
            raise WrongEncoding(file=self._file, row=self.row + _undecodable(column)) from error

    def _measure(self, column: pa.Array) -> None:
        lengths = pc.binary_length(column)
        longest = pc.max(lengths).as_py() or 0
        if longest > 4 * MAX_CELL:  # a character has at most 4 bytes
            row = self.row + 1 + pc.index(lengths, longest).as_py()
            raise DataTooLarge(
                file=self._file, what=f"a cell in row {row}", limit=f"{MAX_CELL:,} characters"
            )
        self._bytes += pc.sum(lengths).as_py() or 0
        if self._bytes > MAX_BYTES:
            raise DataTooLarge(
                file=self._file, what="the sum of cells", limit=f"{MAX_BYTES:,} bytes"
            )


def _undecodable(column: pa.Array) -> int:
    """Position, from 1, of the first cell that is not UTF-8."""
    for position, cell in enumerate(column, start=1):
        try:
            cell.as_py()
        except UnicodeDecodeError:
            return position
    return 1


# MERGED lora_core.data.arrow
# Parquet: the claims of the footer are checked first, then batches are decoded and counted.

ENCRYPTED = b"PARE"  # last bytes of a file whose footer is encrypted; else b"PAR1"
FOOTER_ENTRIES = 200_000


def cells(path: Path, columns: Columns) -> Numbered:
    """These columns, row group by row group.

    Raises `UnsupportedFormat` for a damaged or encrypted file, `EmptyData`, `MissingColumn`,
    `WrongEncoding`, `BrokenRows`, `DataTooLarge`.
    """
    with opened(path) as parquet:
        schema = parquet.schema_arrow
        positions = columns.find(path.name, schema.names)
        check_types(path.name, [schema.field(i).type for i in positions])
        names = [schema.names[i] for i in positions]
        decoded = ArrowCells(path.name)
        for batch in batches(parquet, names):
            yield from decoded.rows([batch.column(name) for name in names])


def batches(parquet: pq.ParquetFile, names: list[str]) -> Iterator[pa.RecordBatch]:
    """These columns, at most `BATCH` rows at a time, row group by row group."""
    for group in range(parquet.metadata.num_row_groups):
        yield from parquet.iter_batches(
            batch_size=BATCH, row_groups=[group], columns=names, use_threads=False
        )


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A file whose claims were checked. Raises `UnsupportedFormat` for one that is damaged or
    encrypted, here or while it is read, `EmptyData`, `DataTooLarge`.
    """
    with path.open("rb") as end:
        end.seek(-min(4, path.stat().st_size), 2)
        if end.read() == ENCRYPTED:
            raise UnsupportedFormat(file=path.name, reason="it is encrypted")
    try:
        with (
            pa.OSFile(str(path)) as file,
            pq.ParquetFile(
                file,
                pre_buffer=False,
                thrift_container_size_limit=FOOTER_ENTRIES,
                arrow_extensions_enabled=False,
            ) as parquet,
        ):
            _check_claims(path.name, parquet.metadata)
            yield parquet
    except MemoryError:  # pyarrow's own is an ArrowException as well
        raise
    except (pa.ArrowException, OSError) as error:
        reason = "it is damaged, or parts of it are encrypted"
        raise UnsupportedFormat(file=path.name, reason=reason) from error


def _check_claims(file: str, metadata: pq.FileMetaData) -> None:
    """Rows and decoded bytes by the footer: a bomb that does not lie is refused unopened."""
    if metadata.num_rows == 0:
        raise EmptyData(file=file)
    if metadata.num_rows > MAX_ROWS:
        raise DataTooLarge(file=file, what="the number of rows", limit=f"{MAX_ROWS:,}")
    # of whole groups: a look at an encrypted column ends the process, in pyarrow 26 (C++ terminate)
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    if sum(group.total_byte_size for group in groups) > MAX_BYTES:
        raise DataTooLarge(file=file, what="its decoded size", limit=f"{MAX_BYTES:,} bytes")
