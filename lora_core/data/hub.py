"""A data set from the hub, through `datasets`.

Only plain data is read: builders for Parquet, CSV and JSON. `datasets` 5 runs no code of a data
set, and other builders (archives, media, pickles among them) are refused before anything is
downloaded.
"""

from collections.abc import Sequence
from itertools import chain

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from lora_core.atomic_files import is_no_room
from lora_core.data.arrow import BATCH, ArrowCells, check_types
from lora_core.data.limits import MAX_BYTES, MAX_ROWS
from lora_core.data.rows import Columns, Row, collect
from lora_core.data.split import Parts, named
from lora_core.errors import LoraCoreError
from lora_core.errors.data import BrokenRows, DataNotFound, DataTooLarge, UnsupportedFormat
from lora_core.errors.training import DiskFull, HubUnavailable
from lora_core.hub import PREFIX, is_hub_name, trouble
from lora_core.specs.data import Split

BUILDERS = ("parquet", "csv", "json")


def read(name: str, columns: Columns) -> Parts:
    """The parts of a hub data set: its own splits train, validation and test; others are ignored.

    Class names are used when the label column has them. Raises `DataNotFound`, `UnsupportedFormat`,
    `MissingColumn`, `EmptyText`, `MissingLabel`, `BrokenRows`, `DataTooLarge`, `DiskFull`,
    `HubUnavailable`.
    """
    source = f"{PREFIX}{name}"
    if not is_hub_name(name):
        raise DataNotFound(source=source, reason="this is not the name of a hub data set")
    builder = _prepared(source, name)
    chosen: dict[Split, str] = {}
    for split in builder.info.splits or ():
        part = named(split)
        if part is not None and (part not in chosen or split == part.value):
            chosen[part] = split
    return {
        part: _rows(f"{source} [{split}]", builder.as_dataset(split=split), columns)
        for part, split in chosen.items()
    }


def _prepared(source: str, name: str) -> datasets.DatasetBuilder:
    """The data set, downloaded and ready to be read."""
    datasets.disable_progress_bars()
    try:
        # with the prefix, a folder of that name on this machine is never taken instead
        builder = datasets.load_dataset_builder(f"hf://datasets/{_with_owner(name)}")
        if builder.info.builder_name not in BUILDERS:
            reason = f"its files are of the kind {builder.info.builder_name!r}"
            raise UnsupportedFormat(file=source, reason=reason)
        builder.download_and_prepare()
    except (LoraCoreError, MemoryError):
        raise
    except (datasets.exceptions.DatasetNotFoundError, RepositoryNotFoundError) as error:
        reason = "the hub has no such data set, or it is private or gated"
        raise DataNotFound(source=source, reason=reason) from error
    except Exception as error:  # whatever the libraries below `datasets` raise
        if is_no_room(error) or is_no_room(error.__cause__):
            raise DiskFull(what=f"the data set {name}") from error
        if (wrong := trouble(error)) is not None:
            raise HubUnavailable(what=f"The data set {name!r}", trouble=wrong) from error
        if isinstance(error, ConnectionError):
            reason = "HF_HUB_OFFLINE is set and it is not in the local cache under OWNER/NAME"
            raise DataNotFound(source=source, reason=reason) from error
        reason = f"`datasets` cannot read it ({type(error).__name__})"
        raise DataNotFound(source=source, reason=reason) from error
    return builder


def _with_owner(name: str) -> str:
    """OWNER/NAME; old names without an owner, such as `imdb`, have moved to one.

    Never without: `datasets` takes names such as `csv` for readers of files in the working
    directory.
    """
    owned = name if "/" in name else HfApi().dataset_info(name).id
    if "/" not in owned or owned.startswith("buckets/"):
        raise DataNotFound(source=f"{PREFIX}{name}", reason="it has no owner on the hub")
    return owned


def _rows(file: str, data: datasets.Dataset, columns: Columns) -> list[Row]:
    if data.num_rows > MAX_ROWS:
        raise DataTooLarge(file=file, what="the number of rows", limit=f"{MAX_ROWS:,}")
    available = data.column_names
    plain = Columns(columns.text, columns.label, look_for_split=False)
    names = [available[i] for i in plain.find(file, available)]
    table = data.data.table.select(names)
    if table.nbytes > 2 * MAX_BYTES:
        raise DataTooLarge(file=file, what="its size", limit=f"{2 * MAX_BYTES:,} bytes")
    check_types(file, table.schema.types)
    feature = data.features[names[1]]
    classes = feature.names if isinstance(feature, datasets.ClassLabel) else None
    decoded = ArrowCells(file)
    batches = (batch.columns for batch in table.to_batches(max_chunksize=BATCH))
    rows = (
        decoded.rows([text, label if classes is None else _names(file, label, classes)])
        for text, label in batches
    )
    return collect(file, chain.from_iterable(rows))


def _names(file: str, numbers: pa.Array, classes: Sequence[str]) -> pa.Array:
    """Class names for class numbers; null for -1, which stands for a label that is kept secret."""
    known = pc.if_else(pc.less(numbers, 0), None, numbers)
    try:
        return pa.array(classes, pa.string()).take(known)
    except pa.ArrowIndexError as error:
        problem = f"a label is not one of the {len(classes)} classes of the data set"
        raise BrokenRows(file=file, row=1, problem=problem) from error
