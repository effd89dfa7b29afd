"""Parquet: the claims of the footer are checked first, then batches are decoded and counted."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lora_core.data.arrow import BATCH, ArrowCells, check_types
from lora_core.data.limits import MAX_BYTES, MAX_ROWS
from lora_core.data.rows import Columns, Numbered
from lora_core.errors.data import DataTooLarge, EmptyData, UnsupportedFormat

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
