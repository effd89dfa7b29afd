"""Parquet: the claims of the footer are checked first, then batches are decoded and counted."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lora_core.data.arrow import BATCH, ArrowRows, check_types
from lora_core.data.limits import MAX_BYTES, MAX_ROWS
from lora_core.data.rows import Columns, Row
from lora_core.errors import DataTooLarge, EmptyData, UnsupportedFormat

ENCRYPTED = b"PARE"  # last bytes of a file whose footer is encrypted; else b"PAR1"
FOOTER_ENTRIES = 200_000


def read(path: Path, columns: Columns) -> list[Row]:
    """All rows, row group by row group.

    Raises `UnsupportedFormat` for a damaged or encrypted file, `EmptyData`, `EmptyText`,
    `MissingLabel`, `MissingColumn`, `WrongEncoding`, `NulByte`, `BrokenRows`, `DataTooLarge`.
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
            return _read(path.name, parquet, columns)
    except MemoryError:  # pyarrow's own is an ArrowException as well
        raise
    except (pa.ArrowException, OSError) as error:
        reason = "it is damaged, or parts of it are encrypted"
        raise UnsupportedFormat(file=path.name, reason=reason) from error


def _read(file: str, parquet: pq.ParquetFile, columns: Columns) -> list[Row]:
    schema = parquet.schema_arrow
    positions = columns.find(file, schema.names)
    check_types(file, [schema.field(i).type for i in positions])
    names = [schema.names[i] for i in positions]
    _check_claims(file, parquet.metadata)
    rows = ArrowRows(file)
    for group in range(parquet.metadata.num_row_groups):
        for batch in parquet.iter_batches(
            batch_size=BATCH, row_groups=[group], columns=names, use_threads=False
        ):
            rows.add([batch.column(name) for name in names])
    return rows.collector.rows()


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
