"""The labeled rows that a command reads: of a sample, a file, a hub dataset, or an uploaded one."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.errors import UsageError
from lora_core.data.label_readers import LabelFormat, TargetColumns, list_target_columns
from lora_core.data.rows import ColumnSelection, TextRow
from lora_core.errors.data import MissingSplit
from lora_core.specs.data import SUFFIXES, DataSpec, Split, parse_sheet_suffix
from lora_core.specs.task import SeveralTargetsSpec, TaskType

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.datasets.schemas import DatasetView


@dataclass(frozen=True)
class LabeledRows:
    """Labeled rows and the split they belong to; None: all rows of the source."""

    rows: list[TextRow]
    split: Split | None


def read_labeled_rows(
    client: "Client",
    data: str,
    columns: ColumnSelection,
    split: Split | None,
    target: str | None = None,
    tasks: Mapping[str, TaskType] | None = None,
) -> LabeledRows:
    """Return the rows that `data` denotes: a sample, a file, a hub dataset, or an uploaded one.

    Without `split`, return the test split if the data has splits or is a sample, else all rows.
    Missing splits are drawn as a training with default settings draws them. An uploaded dataset is
    read as it was checked, and of several targets only `target`; `tasks` are those of all targets
    of the model. Raises a `DataError`, `RequestRejected` for an unknown name, and `UsageError` for
    a dataset without labels, of another task, or checked with other columns, and if splits cannot
    be drawn because the columns of the other targets are unknown.
    """
    from lora_core.data.split import project_rows_to_target
    from lora_core.hf_hub import HUB_PREFIX
    from lora_core.samples import reviews

    sample = data in reviews.SAMPLES
    if sample or data.startswith(HUB_PREFIX) or looks_like_file(data):
        return _select_split(data, columns, split, sample=sample, target=target)
    dataset = client.get_dataset(data)
    if dataset.label_column is None:
        message = f"{dataset.ref} has no labels: it was uploaded with purpose=predict"
        raise UsageError(message, "no_labels")
    all_targets: LabelFormat | None = None  # training drew its splits by all of them
    if target is not None and target in (dataset.targets or {}):
        targets = list_target_columns(
            SeveralTargetsSpec.model_validate({"targets": dataset.targets})
        )
        if {each.name: each.label_format.task for each in targets} == tasks:
            all_targets = LabelFormat("several_targets", targets=targets)
        dataset = _select_target(dataset, next(each for each in targets if each.name == target))
    _check_selection(dataset, columns, ColumnSelection(label=target or "label"))
    label_format = columns.label_format
    if label_format.separator is None and label_format.columns is None:
        names = dataset.label_columns
        label_format = all_targets or replace(
            label_format,
            separator=dataset.label_separator,
            columns=None if names is None else tuple(names),
        )
    dataset_columns = replace(
        columns,
        text=dataset.text_column,
        pair=dataset.text_pair_column,
        label=dataset.label_column,
        split=dataset.split_column,
        label_format=label_format,
    )
    with tempfile.TemporaryDirectory(prefix="loraworks-") as work:
        source = download_dataset_source(client, dataset, Path(work))
        labeled = _select_split(source, dataset_columns, split, sample=False, target=target)
    if target is not None and label_format.targets:
        return replace(labeled, rows=project_rows_to_target(labeled.rows, target))
    return labeled


def _select_target(dataset: "DatasetView", target: TargetColumns) -> "DatasetView":
    """Return a dataset as if it had been checked with this one of its targets only."""
    return dataset.model_copy(
        update={
            "task": target.label_format.task,
            "label_column": target.columns[0],
            "label_separator": target.label_format.separator,
            "label_columns": target.label_format.columns,
        }
    )


def _check_selection(
    dataset: "DatasetView", columns: ColumnSelection, default: ColumnSelection
) -> None:
    """Raise `UsageError` if a dataset has another task than the model, or other columns than named.

    Names may also be read as sets of labels or as numbers. A default counts as not named.
    """
    task = columns.label_format.task
    if dataset.task not in ("single_label", task):
        raise UsageError(
            f"{dataset.ref} was uploaded for the task {dataset.task}, and the model has the task "
            f"{task}. Name a model of that task, or upload the file again with --task {task}.",
            "task_mismatch",
        )
    for role in ("text", "pair", "label", "split"):
        named, name = getattr(columns, role), {"pair": "text_pair"}.get(role, role)
        checked = getattr(dataset, f"{name}_column")
        if named not in (getattr(default, role), checked):
            option = f"--{name.replace('_', '-')}-column"
            raise UsageError(
                f"{dataset.ref} was checked with the {name} column {checked!r}, not {named!r}. "
                f"Leave out {option}, or upload the file again with {option} {named}.",
                "column_not_checked",
            )


def download_dataset_source(client: "Client", dataset: "DatasetView", folder: Path) -> str:
    """Download the file of a dataset to a folder, and return it as the source of a spec."""
    file = folder / Path(dataset.filename).name
    with client.download_dataset(dataset.ref) as chunks, file.open("xb") as opened:
        opened.writelines(chunks)
    return f"{file}#{dataset.sheet}" if dataset.sheet else str(file)


def looks_like_file(data: str) -> bool:
    """Return whether `data` is a file rather than the name of a dataset."""
    file, _ = parse_sheet_suffix(data)
    return "/" in data or file.lower().endswith(SUFFIXES) or Path(file).is_file()


def _select_split(
    source: str, columns: ColumnSelection, split: Split | None, *, sample: bool, target: str | None
) -> LabeledRows:
    from lora_core.data import load
    from lora_core.data.split import draw_splits

    rows = load.read_single_source(source, columns)
    selected_split = split or Split.TEST
    if isinstance(rows, dict):
        if selected_split not in rows:
            raise MissingSplit(file=load.source_display_name(source), split=selected_split)
        return LabeledRows(rows[selected_split], selected_split)
    if split is None and not sample:
        return LabeledRows(rows, None)
    if target is not None and not columns.label_format.targets:
        raise UsageError(
            f"the {selected_split} split cannot be drawn as in training: that depends on all "
            f"targets of the model, and only the column of {target} is known. Upload the file with "
            "the --targets of the training, and name the dataset.",
            "unknown_targets",
        )
    defaults = DataSpec()
    sizes = {Split.VALIDATION: defaults.validation_size, Split.TEST: defaults.test_size}
    splits = draw_splits(rows, sizes, defaults.split_seed, columns.label_format.task)
    return LabeledRows(splits[selected_split], selected_split)
