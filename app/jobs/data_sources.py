"""Resolve `data.source` to data that a job may read, with what is known before it is read."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.datasets import repository as datasets
from app.datasets.errors import DatasetNotFound
from app.datasets.tables import Dataset
from app.jobs.errors import (
    ColumnNotAsUploaded,
    DatasetColumnsDiffer,
    DatasetHasNoLabels,
    DatasetTaskMismatch,
)
from app.settings import Settings
from lora_core.cost_model import estimate_mean_tokens
from lora_core.data.label_readers import LabelFormat, build_targets_spec, list_target_columns
from lora_core.data.rows import ColumnSelection
from lora_core.data.split import DatasetCounts, check_split_sizes
from lora_core.data.windows import check_no_windowed_pairs, max_tokens_read, mean_tokens_computed
from lora_core.errors.data import DataNotFound, MissingSplit, SingleClass
from lora_core.hf_hub import HUB_PREFIX, is_allowed_repository, parse_hub_dataset
from lora_core.samples import reviews
from lora_core.specs.chat import PromptFormat
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.task import (
    MultiLabelSpec,
    RegressionSpec,
    SeveralTargetsSpec,
    SingleLabelSpec,
    TaskSpec,
)

ALL_ROWS = "all"  # key of a source that is not divided into splits

# Assumed for a hub dataset, which is not read before the job runs: the size of IMDB.
_HUB_ROWS = {Split.TRAIN.value: 25_000, Split.TEST.value: 25_000}
_HUB_CHARACTERS = 1300.0


@dataclass(frozen=True)
class ResolvedSource:
    """One resolved source. `rows` are per split if it has splits, else under `ALL_ROWS`."""

    name: str
    rows: Mapping[str, int]
    mean_tokens: float
    label_count: int | None  # None: unknown
    # Identifies the bytes. A hub dataset, whose commit is unknown, is identified by its name.
    fingerprint: str
    upload: Dataset | None = None


@dataclass(frozen=True)
class ResolvedData:
    """Resolved data: `spec.source` has a permanent meaning, and `rows` counts each split."""

    spec: DataSpec
    dataset_ids: dict[str, str]
    rows: Mapping[str, int]
    mean_tokens: float
    label_count: int | None
    fingerprints: Mapping[str, str]  # of the bytes of each source; keys as in `dataset_ids`

    @property
    def likely_label_count(self) -> int:
        """The number of labels; two if it is unknown, as with a hub dataset before the run."""
        return self.label_count or 2


def resolve_data(
    session: Session, data: DataSpec, task: TaskSpec, *, settings: Settings, max_length: int
) -> ResolvedData:
    """Resolve the sources and columns of a job.

    A column that the job leaves out is the one that the upload was checked with; with one source
    per split, a split column only if the upload named it. So are the separator and the columns of
    labels, and the format of prompts, which are those of the training data for all splits.

    Raises `DatasetHasNoLabels`, `DatasetTaskMismatch`, `ColumnNotAsUploaded`,
    `DatasetColumnsDiffer`, `PairsInWindowsUnsupported` and the subclasses of
    `lora_core.errors.data.DataError`.
    """
    limit = max_tokens_read(max_length, data.long_texts)
    if isinstance(data.source, str):
        sources = {ALL_ROWS: _resolve_source(session, data.source, settings, limit)}
    else:
        if Split.TRAIN not in data.source:
            raise MissingSplit(file="data.source", split=Split.TRAIN.value)
        sources = {
            split.value: _resolve_source(session, name, settings, limit)
            for split, name in data.source.items()
        }
    uploads = [source for source in sources.values() if source.upload is not None]
    columns = {
        role: _resolve_column(data, sources.values(), role)
        for role in ("text", "text_pair", "label", "split")
        if role != "label" or task.type != "several_targets"  # each target has its own columns
    }
    train = sources.get(ALL_ROWS) or sources[Split.TRAIN.value]
    for source in uploads:
        _check_task(source, task)
    label_count = _label_count(train, task)
    if task.type == "single_label" and train.upload is not None and label_count == 1:
        raise SingleClass(file=train.name, label="".join(train.upload.overview["labels"]))
    names = {key: source.name for key, source in sources.items()}
    changes: dict[str, Any] = {f"{role}_column": column for role, column in columns.items()}
    if task.type == "multi_label" and train.upload is not None:
        changes |= _label_set_fields(data, train.upload.label_format)
    source_names = names.get(ALL_ROWS) or {Split(split): name for split, name in names.items()}
    prompt_format = data.prompt_format
    if prompt_format is None and train.upload is not None:
        stored = train.upload.overview.get("prompt_format")
        prompt_format = stored and PromptFormat.model_validate(stored)
    spec = data.model_copy(
        update={"source": source_names, "prompt_format": prompt_format, **changes}
    )
    _check_sample_columns(spec, task, names.values())
    resolved = ResolvedData(
        spec=spec,
        dataset_ids={
            key: str(source.upload.id) for key, source in sources.items() if source.upload
        },
        rows=_rows_per_split(sources, by_column=columns["split"] is not None),
        mean_tokens=mean_tokens_computed(train.mean_tokens, data, max_length),
        label_count=label_count,
        fingerprints={key: source.fingerprint for key, source in sources.items()},
    )
    check_no_windowed_pairs(resolved.spec)
    _check_sizes(resolved, train, task)
    return resolved


def task_of_upload(session: Session, data: DataSpec) -> TaskSpec:
    """Return the task that the training data was uploaded for; `single_label` if it is no upload.

    It has the defaults of such a task.
    """
    name = data.source if isinstance(data.source, str) else data.source.get(Split.TRAIN, "")
    if name in reviews.SAMPLES or name.startswith(HUB_PREFIX):
        return SingleLabelSpec()
    try:
        checked = datasets.resolve_dataset(session, name).label_format
    except DatasetNotFound:  # `resolve_data` raises an error that says what there is
        return SingleLabelSpec()
    match checked.task:
        case "multi_label":
            return MultiLabelSpec()
        case "regression":
            return RegressionSpec()
        case "single_label":
            return SingleLabelSpec(ordered=checked.ordered)
        case "several_targets":
            return SeveralTargetsSpec.model_validate(
                {"targets": build_targets_spec(checked.targets)}
            )


def _check_task(source: ResolvedSource, task: TaskSpec) -> None:
    """Raise `DatasetTaskMismatch` if the upload has label sets or numbers, the job others.

    Names may also be read as sets or numbers.
    """
    if source.upload is not None:
        checked = source.upload.label_format.task
        if checked not in ("single_label", task.type):
            raise DatasetTaskMismatch(
                ref=source.name, checked=checked, task=task.type, at="task.type"
            )


def _label_count(train: ResolvedSource, task: TaskSpec) -> int | None:
    """Return the number of outputs of a model; None if it is not known before the run."""
    if task.type == "regression":
        return 1
    if train.upload is not None and train.upload.label_format.task != task.type:
        return None
    if isinstance(task, SeveralTargetsSpec):
        targets = list_target_columns(task)
        if train.upload is None or train.upload.label_format.targets != targets:
            return None
        numbers = [each for each in targets if each.label_format.task == "regression"]
        return None if train.label_count is None else train.label_count + len(numbers)
    return train.label_count


def _label_set_fields(data: DataSpec, checked: LabelFormat) -> dict[str, Any]:
    """Return how the upload was read, unless the job says how to read it."""
    if data.label_separator is not None or data.label_columns is not None:
        return {}
    return {"label_separator": checked.separator, "label_columns": checked.columns}


def lock_datasets_against_deletion(session: Session, dataset_ids: Mapping[str, str]) -> None:
    """Lock uploads against deletion until the job is stored. Raises `DataNotFound`."""
    for dataset_id in dataset_ids.values():
        if not datasets.lock_against_deletion(session, UUID(dataset_id)):
            deleted = session.get_one(Dataset, UUID(dataset_id))  # the row is kept
            ref = f"{deleted.name}:{deleted.version}"
            raise DataNotFound(source=ref, reason="it has been deleted")


def _resolve_source(
    session: Session, name: str, settings: Settings, max_length: int
) -> ResolvedSource:
    if name in reviews.SAMPLES:
        reviews.check_available()
        sample = reviews.SAMPLES[name]
        tokens = sample.mean_tokens(max_length)
        fingerprint = f"{reviews.FILE.sha256} {name}"
        return ResolvedSource(
            name, {ALL_ROWS: sample.rows}, tokens, len(sample.labels), fingerprint
        )
    if name.startswith(HUB_PREFIX):
        dataset = parse_hub_dataset(name)
        if dataset is None or not is_allowed_repository(dataset.name, settings.hub_datasets):
            allowed = ", ".join(settings.hub_datasets) or "none"
            reason = f"hub datasets allowed here: {allowed} (LORAWORKS_HUB_DATASETS)"
            raise DataNotFound(source=name, reason=reason)
        return ResolvedSource(
            name, _HUB_ROWS, estimate_mean_tokens(_HUB_CHARACTERS, max_length), None, name
        )
    try:
        upload = datasets.resolve_dataset(session, name)
    except DatasetNotFound as error:
        samples = ", ".join(reviews.SAMPLES)
        reason = f"it is not an uploaded dataset, a sample ({samples}) or hub:NAME"
        raise DataNotFound(source=name[:100], reason=reason) from error
    ref = f"{upload.name}:{upload.version}"
    if upload.label_column is None:
        raise DatasetHasNoLabels(ref=ref, at="data.source")
    return ResolvedSource(
        name=ref,
        rows=upload.overview.get("splits") or {ALL_ROWS: upload.rows},
        mean_tokens=estimate_mean_tokens(upload.overview["mean_characters"], max_length),
        label_count=upload.overview["label_count"],
        fingerprint=_upload_fingerprint(upload),
        upload=upload,
    )


def _upload_fingerprint(upload: Dataset) -> str:
    """Return an identifier of the bytes and, for a workbook, of the sheet that is read."""
    sheet = upload.overview.get("sheet")
    return f"{upload.sha256}{upload.suffix}" + (f"#{sheet}" if sheet else "")


def _resolve_column(data: DataSpec, sources: Collection[ResolvedSource], role: str) -> str | None:
    """Return the column that the job names, else the one that all uploads were checked with.

    A hub dataset, whose columns are unknown, is never read by the name of another source's column.
    """
    field_name = f"{role}_column"
    named: str | None = getattr(data, field_name)
    checked = {
        source.name: source.upload.overview.get(field_name) if source.upload else named
        for source in sources
        if source.upload or (source.name.startswith(HUB_PREFIX) and role != "split")
    }
    if field_name in data.model_fields_set and named is not None:
        for ref, column in checked.items():
            if column != named:
                raise ColumnNotAsUploaded(
                    ref=ref, what=role, column=named, checked=column, at=f"data.{field_name}"
                )
        return named
    if role == "split" and not isinstance(data.source, str):  # read only if it is named, as locally
        if field_name in data.model_fields_set:
            return None
        checked = {
            each.name: checked[each.name] if each.upload.split_column else None
            for each in sources
            if each.upload
        }
    if len(set(checked.values())) > 1:
        columns = ", ".join(f"{column!r} in {ref}" for ref, column in checked.items())
        raise DatasetColumnsDiffer(what=role, columns=columns, at="data.source")
    return next(iter(checked.values()), named)


def _check_sample_columns(data: DataSpec, task: TaskSpec, names: Collection[str]) -> None:
    """Raise `MissingColumn` or `SameTextPairColumn` as reading a sample in the job would."""
    columns = ColumnSelection.from_spec(data, task)
    if isinstance(data.source, str) or columns.must_exist_in_samples:
        for sample in reviews.SAMPLES.keys() & set(names):
            columns.find_positions(sample, reviews.COLUMNS)


def _rows_per_split(sources: Mapping[str, ResolvedSource], *, by_column: bool) -> dict[str, int]:
    """Return the rows of each split, or all of them under `ALL_ROWS` if there are no splits.

    With one upload per split, a split is all of its upload, or with `by_column` the rows that have
    its name in the split column. Raises `MissingSplit`.
    """
    if ALL_ROWS in sources:
        return dict(sources[ALL_ROWS].rows)
    rows = {}
    for split, source in sources.items():
        if source.upload is not None and not by_column:
            rows[split] = source.upload.rows
        elif source.upload is not None and split not in source.rows:
            raise MissingSplit(file=source.name, split=split)
        else:
            rows[split] = source.rows.get(split, source.rows.get(ALL_ROWS, 0))
    return rows


def _check_sizes(data: ResolvedData, train: ResolvedSource, task: TaskSpec) -> None:
    """Reject splits larger than the rows allow. A hub dataset is not known before it is read."""
    if train.label_count is None:
        return
    undivided = ALL_ROWS in data.rows
    overview = train.upload.overview if train.upload else {}
    size = DatasetCounts(
        rows=data.rows[ALL_ROWS if undivided else Split.TRAIN.value],
        # One text may have all labels, or a number of any range.
        labels=train.label_count if task.type == "single_label" else 1,
        # Counted over the whole file: with splits, the number in `train` is unknown.
        duplicates=overview.get("duplicates", 0) if undivided else 0,
        conflicting_duplicates=overview.get("conflicting_duplicates", 0),
    )
    drawn = [split for split in Split if split.value not in data.rows]
    check_split_sizes(data.spec, drawn, size)
