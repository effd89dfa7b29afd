"""Load the splits of a data description: from a sample, a hub data set, or files."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from lora_core.data import files, hub
from lora_core.data.columns import suggest_columns
from lora_core.data.labels import check_labels
from lora_core.data.records import Example, Splits
from lora_core.data.rows import ColumnSelection, TextRow
from lora_core.data.split import (
    RowsBySplit,
    count_leaked,
    draw_splits,
    require_train,
    split_by_column,
    stratified_subset,
)
from lora_core.errors.data import DataNotFound, MissingColumn, MissingSplit
from lora_core.hub import HUB_PREFIX
from lora_core.samples import reviews
from lora_core.specs.data import DataSpec, Split, split_sheet


def read_source(source: str | Mapping[Split, str], columns: ColumnSelection) -> RowsBySplit:
    """Return the rows of a source by split. Without splits, all rows are in `train`.

    With one source per split, a file belongs to its split as a whole, unless a split column is
    named.

    Raises `DataNotFound`, `MissingSplit`, `UnknownSplit`, and what the readers raise.
    """
    if isinstance(source, str):
        if source in reviews.SAMPLES:
            columns.find_positions(source, reviews.COLUMNS)
        rows = read_single_source(source, columns)
        return require_train(
            display_name(source),
            rows if isinstance(rows, dict) else {Split.TRAIN: rows},
        )
    without_split = replace(columns, detect_split=False)
    return require_train(
        display_name(source),
        {
            split: _read_split(split, split_source, without_split)
            for split, split_source in source.items()
        },
    )


def display_name(source: str | Mapping[Split, str]) -> str:
    """Return the name of a source for error messages: a file name without its folder."""
    if not isinstance(source, str):
        return "The source"
    is_public = source in reviews.SAMPLES or source.startswith(HUB_PREFIX)
    return source if is_public else Path(split_sheet(source)[0]).name


def _read_split(split: Split, source: str, columns: ColumnSelection) -> list[TextRow]:
    """Return the rows of a source for one split: all of them, or its own split of this name."""
    rows_by_split = read_single_source(source, columns)
    if isinstance(rows_by_split, list):
        return rows_by_split
    if split not in rows_by_split:
        raise MissingSplit(file=display_name(source), split=split.value)
    return rows_by_split[split]


def read_single_source(source: str, columns: ColumnSelection) -> RowsBySplit | list[TextRow]:
    """Return the splits of one source, or all rows if it defines none. Raises what the readers
    raise."""
    if source in reviews.SAMPLES:
        return [
            TextRow(number, text, label)
            for number, (text, label) in enumerate(reviews.load_reviews(source), start=1)
        ]
    if source.startswith(HUB_PREFIX):
        return hub.read_hub_dataset(source.removeprefix(HUB_PREFIX), columns)
    name, sheet = split_sheet(source)
    path, columns = Path(name), replace(columns, sheet=sheet)
    try:
        rows = files.read_rows(path, columns)
    except MissingColumn as error:
        raise suggest_columns(path, columns, error) from error
    except DataNotFound as error:
        reason = f"{error.detail['reason']}; samples are {', '.join(reviews.SAMPLES)}"
        raise DataNotFound(source=path.name, reason=reason) from error
    return split_by_column(path.name, rows) or rows


def file_stamps(source: str | Mapping[Split, str]) -> tuple[object, ...]:
    """Return size, modification time and inode of each file, which change when it is rewritten."""
    stamps: list[object] = []
    for name in [source] if isinstance(source, str) else source.values():
        try:
            stat = Path(split_sheet(name)[0]).stat()
        except OSError:  # not a file, or not readable
            continue
        stamps.append((name, stat.st_size, stat.st_mtime_ns, stat.st_ino))
    return tuple(stamps)


def load_splits(spec: DataSpec) -> Splits:
    """Return texts and labels in three splits: given splits unchanged, the others drawn from train.

    Given splits keep the order of their file; drawn ones are in hash order. The same description
    and data give the same splits on every machine. Raises `DataError` and, for a sample,
    `SampleMissing` or `SampleChanged`.

    The last result is cached, because consecutive trials of a sweep use the same data.
    """
    return _load_cached(spec.model_dump_json(), file_stamps(spec.source))


@lru_cache(maxsize=1)
def _load_cached(description: str, _: tuple[object, ...]) -> Splits:
    spec = DataSpec.model_validate_json(description)
    given_splits = read_source(
        spec.source, ColumnSelection(spec.text_column, spec.label_column, spec.split_column)
    )
    check_labels(display_name(spec.source), given_splits)
    sizes = {Split.VALIDATION: spec.validation_size, Split.TEST: spec.test_size}
    missing = {split: size for split, size in sizes.items() if split not in given_splits}
    splits = dict(given_splits)
    if missing:
        splits |= draw_splits(given_splits[Split.TRAIN], missing, spec.split_seed)
    if spec.train_size is not None:
        splits[Split.TRAIN] = stratified_subset(
            splits[Split.TRAIN],
            spec.train_size,
            of=len(given_splits[Split.TRAIN]),
            seed=spec.split_seed,
        )
    labels = check_labels(display_name(spec.source), splits)
    indices = {label: i for i, label in enumerate(labels)}
    return Splits(
        labels=labels,
        leaked=count_leaked(given_splits),
        drawn=frozenset(missing),
        **{
            split.value: tuple(
                Example(row.number, row.text, indices[row.label]) for row in splits[split]
            )
            for split in Split
        },
    )
