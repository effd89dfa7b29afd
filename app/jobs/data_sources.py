"""From `data.source` to data that a job may read, and what is known of it before it is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from app.datasets import repository as datasets
from app.datasets.errors import DatasetNotFound
from app.datasets.tables import Dataset
from app.jobs.errors import ColumnNotChecked, ColumnsDiffer, NoLabels
from app.settings import Settings
from lora_core.data.split import Known, check_room
from lora_core.errors.data import DataNotFound, MissingColumn, MissingSplit, OneClass
from lora_core.hub import PREFIX
from lora_core.samples import reviews
from lora_core.specs.data import DataSpec, Split

ALL = "all"  # key of a source that is not given part by part

# What is assumed of a hub data set, which is not read before the job runs: the size of IMDB.
_HUB_ROWS = {Split.TRAIN.value: 25_000, Split.TEST.value: 25_000}
_HUB_CHARACTERS = 1300.0
_CHARACTERS_PER_TOKEN = 4.4  # English film reviews, WordPiece of 30,522 pieces


@dataclass(frozen=True)
class Source:
    """One source. `rows` are by part if it names parts, else under `ALL`."""

    name: str
    rows: Mapping[str, int]
    mean_tokens: float
    label_count: int | None  # None: unknown
    content: str  # names its bytes; of a hub data set, whose commit is not known, itself
    upload: Dataset | None = None


@dataclass(frozen=True)
class Data:
    """Resolved data: `spec.source` means the same for ever, `rows` counts each part of it."""

    spec: DataSpec
    dataset_ids: dict[str, str]
    rows: Mapping[str, int]
    mean_tokens: float
    label_count: int | None
    content: Mapping[str, str]  # as `dataset_ids`: what names the bytes of each source


def resolve(session: Session, data: DataSpec, *, settings: Settings, max_length: int) -> Data:
    """Raises `NoLabels`, `ColumnNotChecked`, `ColumnsDiffer` and the kinds of
    `lora_core.errors.data.DataError`.

    A column that the job leaves out is the one that the upload was checked for.
    """
    if isinstance(data.source, str):
        sources = {ALL: _find(session, data.source, settings, max_length)}
    else:
        if Split.TRAIN not in data.source:
            raise MissingSplit(file="data.source", split=Split.TRAIN.value)
        sources = {
            part.value: _find(session, name, settings, max_length)
            for part, name in data.source.items()
        }
    uploads = [source for source in sources.values() if source.upload is not None]
    columns = {what: _column(data, uploads, what) for what in ("text", "label", "split")}
    trained = sources.get(ALL) or sources[Split.TRAIN.value]
    if trained.upload is not None and trained.upload.overview["label_count"] < 2:
        raise OneClass(file=trained.name, label="".join(trained.upload.overview["labels"]))
    names = {key: source.name for key, source in sources.items()}
    changes = {f"{what}_column": column for what, column in columns.items()}
    source = names.get(ALL) or {Split(part): name for part, name in names.items()}
    found = Data(
        spec=data.model_copy(update={"source": source, **changes}),
        dataset_ids={
            key: str(source.upload.id) for key, source in sources.items() if source.upload
        },
        rows=_rows(sources),
        mean_tokens=trained.mean_tokens,
        label_count=trained.label_count,
        content={key: source.content for key, source in sources.items()},
    )
    _check_sizes(found, trained)
    return found


def hold(session: Session, dataset_ids: Mapping[str, str]) -> None:
    """Keep uploads until the job that reads them is stored. Raises `DataNotFound`."""
    for dataset_id in dataset_ids.values():
        if not datasets.hold(session, UUID(dataset_id)):
            raise DataNotFound(source=dataset_id, reason="it was deleted at this moment")


def _find(session: Session, name: str, settings: Settings, max_length: int) -> Source:
    if name in reviews.SAMPLES:
        sample = reviews.facts(name)
        tokens = sample.mean_tokens(max_length)
        content = f"{reviews.FILE.sha256} {name}"
        return Source(name, {ALL: sample.rows}, tokens, len(sample.labels), content)
    if name.startswith(PREFIX):
        if name.removeprefix(PREFIX) not in settings.hub_datasets:
            allowed = ", ".join(settings.hub_datasets) or "none"
            reason = (
                f"the hub data sets of this installation are {allowed} (LORAWORKS_HUB_DATASETS)"
            )
            raise DataNotFound(source=name, reason=reason)
        return Source(name, _HUB_ROWS, _tokens(_HUB_CHARACTERS, max_length), None, name)
    try:
        upload = datasets.resolve(session, name)
    except DatasetNotFound as error:
        samples = ", ".join(reviews.SAMPLES)
        reason = f"it is no uploaded data set, no sample ({samples}) and no hub:NAME"
        raise DataNotFound(source=name[:100], reason=reason) from error
    ref = f"{upload.name}:{upload.version}"
    if upload.label_column is None:
        raise NoLabels(ref=ref, at="data.source")
    return Source(
        name=ref,
        rows=upload.overview.get("splits") or {ALL: upload.rows},
        mean_tokens=_tokens(upload.overview["mean_characters"], max_length),
        label_count=upload.overview["label_count"],
        content=_content(upload),
        upload=upload,
    )


def _content(upload: Dataset) -> str:
    """Names the bytes and, of a workbook, the sheet that is read."""
    sheet = upload.overview.get("sheet")
    return f"{upload.sha256}{upload.suffix}" + (f"#{sheet}" if sheet else "")


def _tokens(characters: float, max_length: int) -> float:
    """Mean tokens of a text, [CLS] and [SEP] included. Lengths vary, so the limit cuts early."""
    return min(characters / _CHARACTERS_PER_TOKEN + 2, 0.85 * max_length)


def _column(data: DataSpec, uploads: list[Source], what: str) -> str | None:
    """The column that all uploads were checked for, unless the job names one."""
    field_name = f"{what}_column"
    named: str | None = getattr(data, field_name)
    source, there = data.source, reviews.COLUMNS
    if isinstance(source, str) and source in reviews.SAMPLES and named not in (None, *there):
        raise MissingColumn(file=source, column=named, available=", ".join(there))
    checked = {
        source.name: source.upload.overview[field_name] for source in uploads if source.upload
    }
    if field_name in data.model_fields_set and named is not None:
        for ref, column in checked.items():
            if column != named:
                raise ColumnNotChecked(
                    ref=ref, what=what, column=named, checked=column, at=f"data.{field_name}"
                )
        return named
    if len(set(checked.values())) > 1:
        columns = ", ".join(f"{column!r} in {ref}" for ref, column in checked.items())
        raise ColumnsDiffer(what=what, columns=columns, at="data.source")
    return next(iter(checked.values()), named)


def _rows(sources: Mapping[str, Source]) -> dict[str, int]:
    """Rows by part, or all of them under `ALL` while nothing is divided."""
    if ALL in sources:
        return dict(sources[ALL].rows)
    return {
        part: source.rows.get(part, source.rows.get(ALL, 0)) for part, source in sources.items()
    }


def _check_sizes(data: Data, trained: Source) -> None:
    """Refuse parts that the rows cannot give. A hub data set is not known before it is read."""
    if trained.label_count is None:
        return
    whole = ALL in data.rows
    profile = trained.upload.overview if trained.upload else {}
    known = Known(
        rows=data.rows[ALL if whole else Split.TRAIN.value],
        labels=trained.label_count,
        # Of the whole file: where it names its parts, how many there are of train is not known.
        duplicates=profile.get("duplicates", 0) if whole else 0,
        conflicting=profile.get("conflicting_duplicates", 0),
    )
    check_room(data.spec, [part for part in Split if part.value not in data.rows], known)
