"""Read a data set from the hub with `datasets`.

Only the builders for Parquet, CSV and JSON are allowed. `datasets` 5 runs no code of a data set,
and other builders (archives, media, pickles among them) are refused before anything is downloaded.
"""

from collections.abc import Sequence
from itertools import chain

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from lora_core.atomic_files import is_disk_full
from lora_core.data.arrow import BATCH_ROWS, ArrowDecoder, check_column_types
from lora_core.data.limits import MAX_BYTES, MAX_ROWS
from lora_core.data.rows import ColumnSelection, TextRow, collect_rows
from lora_core.data.split import RowsBySplit, parse_split_name
from lora_core.errors import LoraCoreError
from lora_core.errors.data import DataNotFound, DataTooLarge, InvalidRow, UnsupportedFormat
from lora_core.errors.training import DiskFull, HubUnavailable
from lora_core.hub import HUB_PREFIX, is_hub_name, transient_failure
from lora_core.specs.data import Split

ALLOWED_BUILDERS = ("parquet", "csv", "json")


def read_hub_dataset(name: str, columns: ColumnSelection) -> RowsBySplit:
    """Return the train, validation and test splits of a hub data set. Other splits are ignored.

    Class names are used if the label column has them. Raises `DataNotFound`, `UnsupportedFormat`,
    `MissingColumn`, `MissingText`, `MissingLabel`, `InvalidRow`, `DataTooLarge`, `DiskFull`,
    `HubUnavailable`.
    """
    source = f"{HUB_PREFIX}{name}"
    if not is_hub_name(name):
        raise DataNotFound(source=source, reason="this is not the name of a hub data set")
    builder = _prepare(source, name)
    chosen: dict[Split, str] = {}
    for hub_split in builder.info.splits or ():
        split = parse_split_name(hub_split)
        if split is not None and (split not in chosen or hub_split == split.value):
            chosen[split] = hub_split
    return {
        split: _read_split(f"{source} [{hub_split}]", builder.as_dataset(split=hub_split), columns)
        for split, hub_split in chosen.items()
    }


def _prepare(source: str, name: str) -> datasets.DatasetBuilder:
    """Download the data set and prepare it for reading."""
    datasets.disable_progress_bars()
    try:
        # the prefix prevents loading a local folder of the same name
        builder = datasets.load_dataset_builder(f"hf://datasets/{_with_owner(name)}")
        if builder.info.builder_name not in ALLOWED_BUILDERS:
            reason = f"its format is {builder.info.builder_name!r}"
            raise UnsupportedFormat(file=source, reason=reason)
        builder.download_and_prepare()
    except (LoraCoreError, MemoryError):
        raise
    except (datasets.exceptions.DatasetNotFoundError, RepositoryNotFoundError) as error:
        reason = "the hub has no such data set, or it is private or gated"
        raise DataNotFound(source=source, reason=reason) from error
    except Exception as error:  # `datasets` passes on exceptions of many libraries
        if is_disk_full(error) or is_disk_full(error.__cause__):
            raise DiskFull(what=f"the data set {name}") from error
        if (problem := transient_failure(error)) is not None:
            raise HubUnavailable(what=f"The data set {name!r}", trouble=problem) from error
        if isinstance(error, ConnectionError):
            reason = "HF_HUB_OFFLINE is set and it is not in the local cache under OWNER/NAME"
            raise DataNotFound(source=source, reason=reason) from error
        reason = f"`datasets` cannot read it ({type(error).__name__})"
        raise DataNotFound(source=source, reason=reason) from error
    return builder


def _with_owner(name: str) -> str:
    """Return OWNER/NAME. Legacy names without an owner, such as `imdb`, have been moved to one.

    A name without an owner is never loaded: `datasets` treats names such as `csv` as readers of
    local files.
    """
    owned = name if "/" in name else HfApi().dataset_info(name).id
    if "/" not in owned or owned.startswith("buckets/"):
        raise DataNotFound(source=f"{HUB_PREFIX}{name}", reason="it has no owner on the hub")
    return owned


def _read_split(file: str, data: datasets.Dataset, columns: ColumnSelection) -> list[TextRow]:
    if data.num_rows > MAX_ROWS:
        raise DataTooLarge(file=file, what="the number of rows", limit=f"{MAX_ROWS:,}")
    available = data.column_names
    plain = ColumnSelection(columns.text, columns.label, detect_split=False)
    names = [available[i] for i in plain.find_positions(file, available)]
    table = data.data.table.select(names)
    if table.nbytes > 2 * MAX_BYTES:
        raise DataTooLarge(file=file, what="its size", limit=f"{2 * MAX_BYTES:,} bytes")
    check_column_types(file, table.schema.types)
    feature = data.features[names[1]]
    classes = feature.names if isinstance(feature, datasets.ClassLabel) else None
    decoder = ArrowDecoder(file)
    batches = (batch.columns for batch in table.to_batches(max_chunksize=BATCH_ROWS))
    rows = (
        decoder.decode_rows(
            [text, label if classes is None else _class_names(file, label, classes)]
        )
        for text, label in batches
    )
    return collect_rows(file, chain.from_iterable(rows))


def _class_names(file: str, numbers: pa.Array, classes: Sequence[str]) -> pa.Array:
    """Return class names for class ids; null for -1, which marks a hidden label."""
    visible = pc.if_else(pc.less(numbers, 0), None, numbers)
    try:
        return pa.array(classes, pa.string()).take(visible)
    except pa.ArrowIndexError as error:
        problem = f"a label is not one of the {len(classes)} classes of the data set"
        raise InvalidRow(file=file, row=1, problem=problem) from error
