"""Load the splits of a data description: from a sample, a hub dataset, or files."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from pydantic import TypeAdapter, ValidationError

from lora_core.atomic_files import atomic_path, is_disk_full
from lora_core.cache import FOLDER_LIMITS, cache_dir, evict_least_recently_used
from lora_core.data import files
from lora_core.data.arrow import BATCH_ROWS, ArrowCellDecoder, check_column_types
from lora_core.data.file_inspection import enrich_missing_column_error
from lora_core.data.rows import MAX_BYTES, MAX_ROWS, ColumnSelection, TextRow, collect_rows
from lora_core.data.split import (
    Example,
    RowsBySplit,
    Splits,
    collect_and_check_label_names,
    count_leaked,
    draw_splits,
    group_rows_by_split,
    require_train_split,
    stratified_subset,
)
from lora_core.data.windows import check_no_windowed_pairs
from lora_core.errors import LoraCoreError
from lora_core.errors.data import (
    DataNotFound,
    DataTooLarge,
    GatedDataset,
    HubConfigRequired,
    MalformedRow,
    MissingColumn,
    MissingSplit,
    UnknownHubConfig,
    UnsupportedFormat,
)
from lora_core.errors.training import DiskFull, HubUnavailable
from lora_core.hf_hub import (
    HUB_PREFIX,
    HubDataset,
    build_gated_error_detail,
    describe_transient_failure,
    find_hub_token,
    is_gated_error,
    parse_hub_dataset,
)
from lora_core.samples import reviews
from lora_core.specs.chat import PromptFormat
from lora_core.specs.data import DataSpec, Split, parse_sheet_suffix, split_from_name
from lora_core.specs.task import SingleLabelSpec, TaskSpec
from lora_core.tasks.targets import build_label_index, label_to_target

CACHE_VERSION = 1  # increment if the same description of a sample would give other splits
MAX_CACHE_BYTES = FOLDER_LIMITS["splits"]
_SINGLE_LABEL = SingleLabelSpec()
_SPLITS = TypeAdapter(Splits)


def read_source(source: str | Mapping[Split, str], columns: ColumnSelection) -> RowsBySplit:
    """Return the rows of a source by split. Without splits, all rows are in `train`.

    With one source per split, a file belongs to its split as a whole, unless a split column is
    named.

    Raises `DataNotFound`, `MissingSplit`, `InvalidSplitValue`, and what the readers raise.
    """
    if isinstance(source, str):
        if source in reviews.SAMPLES:
            columns.find_positions(source, reviews.COLUMNS)
        rows = read_single_source(source, columns)
        return require_train_split(
            source_display_name(source),
            rows if isinstance(rows, dict) else {Split.TRAIN: rows},
        )
    without_split = replace(columns, detect_split=False)
    return require_train_split(
        source_display_name(source),
        {
            split: _read_split(split, split_source, without_split)
            for split, split_source in source.items()
        },
    )


def source_display_name(source: str | Mapping[Split, str]) -> str:
    """Return the name of a source for error messages: a file name without its folder."""
    if not isinstance(source, str):
        return "The source"
    is_public = source in reviews.SAMPLES or source.startswith(HUB_PREFIX)
    return source if is_public else Path(parse_sheet_suffix(source)[0]).name


def _read_split(split: Split, source: str, columns: ColumnSelection) -> list[TextRow]:
    """Return the rows of a source for one split: all of them, or its own split of this name."""
    rows_by_split = read_single_source(source, columns)
    if isinstance(rows_by_split, list):
        return rows_by_split
    if split not in rows_by_split:
        raise MissingSplit(file=source_display_name(source), split=split.value)
    return rows_by_split[split]


def read_single_source(source: str, columns: ColumnSelection) -> RowsBySplit | list[TextRow]:
    """Return the splits of one source, or all rows if it defines none. Raises what the readers
    raise."""
    if source in reviews.SAMPLES:
        if columns.must_exist_in_samples:
            columns.find_positions(source, reviews.COLUMNS)
        numbered = enumerate(reviews.load_reviews(source), start=1)
        return collect_rows(source, numbered, columns)
    if source.startswith(HUB_PREFIX):
        return read_hub_dataset(source, columns)
    name, sheet = parse_sheet_suffix(source)
    path, columns = Path(name), replace(columns, sheet=sheet)
    try:
        rows = files.read_rows(path, columns)
    except MissingColumn as error:
        raise enrich_missing_column_error(path, columns, error) from error
    except DataNotFound as error:
        reason = f"{error.detail['reason']}; samples are {', '.join(reviews.SAMPLES)}"
        raise DataNotFound(source=path.name, reason=reason) from error
    return group_rows_by_split(path.name, rows) or rows


def load_splits(spec: DataSpec, task: TaskSpec = _SINGLE_LABEL) -> Splits:
    """Return texts and labels in three splits: given splits unchanged, the others drawn from train.

    Given splits keep the order of their file; drawn ones are in hash order. The same description
    and data give the same splits on every machine. Raises `DataError` and, for a sample,
    `SamplePackageMissing` or `SampleFileChecksumMismatch`.

    The splits of a sample are cached on disk: finding its rows takes half a second. Texts of users
    are not, since they would outlive their dataset.
    """
    if _is_sample(spec.source) and task.type == "single_label":
        return _load_sample(spec)
    return _load(spec, task)


def _is_sample(source: str | Mapping[Split, str]) -> bool:
    return isinstance(source, str) and source in reviews.SAMPLES


def _load_sample(spec: DataSpec) -> Splits:
    key = f"{CACHE_VERSION}\0{reviews.FILE.sha256}\0{spec.model_dump_json()}"
    name = hashlib.sha256(key.encode()).hexdigest()
    path = cache_dir() / "splits" / f"{name}.json"
    try:
        splits = _SPLITS.validate_json(path.read_bytes())
        os.utime(path)
    except (FileNotFoundError, ValidationError):
        splits = _load(spec, _SINGLE_LABEL)
        with atomic_path(path) as unfinished:
            unfinished.write_bytes(_SPLITS.dump_json(splits, exclude={"digest"}))
        evict_least_recently_used(path.parent, MAX_CACHE_BYTES)
    return splits


def _load(spec: DataSpec, task: TaskSpec) -> Splits:
    check_no_windowed_pairs(spec)
    columns = ColumnSelection.from_spec(spec, task)
    prompt_format = spec.prompt_format or infer_source_prompt_format(spec.source, columns)
    given_splits = read_source(spec.source, replace(columns, prompt_format=prompt_format))
    name, label_format = source_display_name(spec.source), columns.label_format
    collect_and_check_label_names(name, given_splits, label_format)
    sizes = {Split.VALIDATION: spec.validation_size, Split.TEST: spec.test_size}
    missing = {split: size for split, size in sizes.items() if split not in given_splits}
    splits = dict(given_splits)
    if missing:
        splits |= draw_splits(given_splits[Split.TRAIN], missing, spec.split_seed, task.type)
    if spec.train_size is not None:
        splits[Split.TRAIN] = stratified_subset(
            splits[Split.TRAIN],
            spec.train_size,
            of=len(given_splits[Split.TRAIN]),
            seed=spec.split_seed,
            task=task.type,
        )
    labels = collect_and_check_label_names(name, splits, label_format)
    indices = build_label_index(labels, task.type)

    def example(row: TextRow) -> Example:
        target = label_to_target(row.label, task.type, indices)
        return Example(row.number, row.text, target, row.pair)

    return Splits(
        labels=labels,
        leaked=count_leaked(given_splits),
        drawn=frozenset(missing),
        prompt_format=prompt_format,
        **{split.value: tuple(map(example, splits[split])) for split in Split},
    )


def infer_source_prompt_format(
    source: str | Mapping[Split, str], columns: ColumnSelection
) -> PromptFormat | None:
    """Return the prompt format of the training file, in which all files are read.

    None: it is not a file in chat form. Raises what the reader of `.jsonl` files raises.
    """
    train = source if isinstance(source, str) else source.get(Split.TRAIN, "")
    path = Path(train)
    if path.suffix.lower() != ".jsonl" or not path.is_file():
        return None
    return files.infer_file_prompt_format(path, columns)


# -- Datasets of the hub --------------------------------------------------------------------------

# Only the builders for Parquet, CSV and JSON are allowed. `datasets` 5 runs no code of a dataset,
# and other builders (archives, media, pickles among them) are refused before anything is
# downloaded.
ALLOWED_BUILDERS = ("parquet", "csv", "json")


def read_hub_dataset(source: str, columns: ColumnSelection) -> RowsBySplit:
    """Return the train, validation and test splits of a hub dataset. Other splits are ignored.

    Class names are used if the label column has them. Raises `DataNotFound`, `GatedDataset`,
    `HubConfigRequired`, `UnknownHubConfig`, `UnsupportedFormat`, `MissingColumn`, `MissingText`,
    `MissingLabel`, `MalformedRow`, `DataTooLarge`, `DiskFull`, `HubUnavailable`.
    """
    dataset = parse_hub_dataset(source)
    if dataset is None:
        raise DataNotFound(source=source, reason="this is not the name of a hub dataset")
    builder = _prepare_hub_dataset(source, dataset)
    chosen: dict[Split, str] = {}
    for hub_split in builder.info.splits or ():
        split = split_from_name(hub_split)
        if split is not None and (split not in chosen or hub_split == split.value):
            chosen[split] = hub_split
    return {
        split: _read_hub_split(
            f"{source} [{hub_split}]", builder.as_dataset(split=hub_split), columns
        )
        for split, hub_split in chosen.items()
    }


def _prepare_hub_dataset(source: str, dataset: HubDataset) -> datasets.DatasetBuilder:
    """Download the dataset and prepare it for reading."""
    datasets.disable_progress_bars()
    token = find_hub_token()
    try:
        # the prefix prevents loading a local folder of the same name
        path = f"hf://datasets/{_with_owner(source, dataset.name, token)}"
        builder = _load_builder(source, path, dataset.config, token)
        if builder.info.builder_name not in ALLOWED_BUILDERS:
            reason = f"its format is {builder.info.builder_name!r}"
            raise UnsupportedFormat(file=source, reason=reason)
        builder.download_and_prepare()
    except (LoraCoreError, MemoryError):
        raise
    except Exception as error:  # `datasets` passes on exceptions of many libraries
        raise _hub_error(source, dataset.name, error) from error
    return builder


def _load_builder(
    source: str, path: str, config: str | None, token: str | None
) -> datasets.DatasetBuilder:
    """Raises `HubConfigRequired`, `UnknownHubConfig`, and what `datasets` raises."""
    available: list[str] = []
    if config is not None:  # of a dataset without any, `datasets` accepts every name
        available = datasets.get_dataset_config_names(path, token=token)
        if config not in available:
            raise UnknownHubConfig(source=source, available=", ".join(available))
    try:
        return datasets.load_dataset_builder(path, config, token=token)
    except ValueError:
        available = available or datasets.get_dataset_config_names(path, token=token)
        if config is not None or len(available) == 1:
            raise
        example = f"{source}:{available[0]}"
        raise HubConfigRequired(
            source=source, example=example, available=", ".join(available)
        ) from None


def _with_owner(source: str, name: str, token: str | None) -> str:
    """Return OWNER/NAME. Legacy names without an owner, such as `imdb`, have been moved to one.

    A name without an owner is never loaded: `datasets` treats names such as `csv` as readers of
    local files.
    """
    owned = name if "/" in name else HfApi().dataset_info(name, token=token).id
    if "/" not in owned or owned.startswith("buckets/"):
        raise DataNotFound(source=source, reason="it has no owner on the hub")
    return owned


def _hub_error(source: str, name: str, error: Exception) -> LoraCoreError:
    """Return the error that an exception of `datasets` stands for."""
    if is_disk_full(error) or is_disk_full(error.__cause__):
        return DiskFull(what=f"the dataset {name}")
    if is_gated_error(error):
        return GatedDataset(source=source, **build_gated_error_detail(f"datasets/{name}"))
    if isinstance(error, datasets.exceptions.DatasetNotFoundError | RepositoryNotFoundError):
        reason = "the hub has no such dataset, or it is private"
        return DataNotFound(source=source, reason=reason)
    if (problem := describe_transient_failure(error)) is not None:
        return HubUnavailable(what=f"The dataset {name!r}", trouble=problem)
    if isinstance(error, ConnectionError):
        reason = "HF_HUB_OFFLINE is set and it is not in the local cache under OWNER/NAME"
        return DataNotFound(source=source, reason=reason)
    reason = f"`datasets` cannot read it ({type(error).__name__})"
    return DataNotFound(source=source, reason=reason)


def _read_hub_split(file: str, data: datasets.Dataset, columns: ColumnSelection) -> list[TextRow]:
    if data.num_rows > MAX_ROWS:
        raise DataTooLarge(file=file, what="the number of rows", limit=f"{MAX_ROWS:,}")
    available = data.column_names
    plain = replace(columns, split=None, detect_split=False)
    names = [available[i] for i in plain.find_positions(file, available)]
    table = data.data.table.select(names)
    if table.nbytes > 2 * MAX_BYTES:
        raise DataTooLarge(file=file, what="its size", limit=f"{2 * MAX_BYTES:,} bytes")
    check_column_types(file, table.schema.types, plain)
    # 0 and 1 of label columns, numbers and texts are read as they are.
    formats = columns.label_column_formats
    features = [None] * len(columns.text_columns) + [
        data.features[name] if each.task != "regression" and each.columns is None else None
        for name, each in zip(names[len(columns.text_columns) :], formats, strict=True)
    ]
    decoder = ArrowCellDecoder(file)
    batches = (batch.columns for batch in table.to_batches(max_chunksize=BATCH_ROWS))
    rows = (
        decoder.decode_rows(
            [_with_class_names(file, *each) for each in zip(batch, features, strict=True)]
        )
        for batch in batches
    )
    return collect_rows(file, chain.from_iterable(rows), plain)


def _with_class_names(file: str, labels: pa.Array, feature: Any) -> pa.Array:
    """Return labels, or lists of them, with class names for class ids if the feature has them."""
    if isinstance(feature, datasets.ClassLabel):
        return _class_names(file, labels, feature.names)
    item = getattr(feature, "feature", None)  # of `datasets.List` and `LargeList`
    if isinstance(item, datasets.ClassLabel):
        names = _class_names(file, labels.flatten(), item.names)
        ends = pc.cumulative_sum(pc.fill_null(pc.list_value_length(labels), 0))
        offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends.cast(pa.int32())])
        return pa.ListArray.from_arrays(offsets, names, mask=pc.is_null(labels))
    return labels


def _class_names(file: str, numbers: pa.Array, classes: Sequence[str]) -> pa.Array:
    """Return class names for class ids; null for -1, which marks a hidden label."""
    visible = pc.if_else(pc.less(numbers, 0), None, numbers)
    try:
        return pa.array(classes, pa.string()).take(visible)
    except pa.ArrowIndexError as error:
        problem = f"a label is not one of the {len(classes)} classes of the dataset"
        raise MalformedRow(file=file, row=1, problem=problem) from error
