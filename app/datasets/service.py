"""Add and remove data sets."""

import hashlib
import re
import unicodedata
from pathlib import Path, PurePath
from typing import Any

from sqlalchemy.orm import Session

from app.database.base import new_id
from app.database.engines import Database
from app.database.locks import take_turns
from app.datasets import files, repository
from app.datasets.errors import DatasetDamaged, DatasetInUse, KeyBytesUsed, NameNeeded
from app.datasets.inspection import Columns, Inspection
from app.datasets.schemas import DatasetFields, DatasetView
from app.datasets.tables import Dataset
from app.datasets.upload import Upload
from app.idempotency import service as idempotency
from app.idempotency.service import Call
from app.settings import Settings
from app.storage.store import Store
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.errors.data import DataTooLarge
from lora_core.specs.data import ending_of

TO_PREDICT = "-to-predict"


def add(
    database: Database,
    store: Store,
    *,
    settings: Settings,
    upload: Upload,
    fields: DatasetFields,
    call: Call,
) -> tuple[Dataset, bool]:
    """Check an upload and keep it as the next version of its name; returns (data set, is it new).

    The same bytes under the same name, read in the same way, are not kept twice: the version that
    is there is returned. Raises what is wrong with the file, `KeyBytesUsed`, and what
    `idempotency.begin` raises; nothing is kept then.
    """
    file, columns = _parsable(upload), fields.columns
    name, title = _named(upload.filename, fields)
    dataset = Dataset(
        id=new_id(),
        created_by=call.caller_id,
        name=name,
        title=title,
        filename=upload.filename,
        suffix=file.suffix,
        sha256=upload.sha256,
        bytes=upload.bytes,
        text_column=columns.text,
        label_column=columns.label,
        split_column=columns.split,
        sheet=columns.sheet,
    )
    with database.read() as session:
        idempotency.recall(session, call)
        if there := repository.same(session, dataset):
            return there, False
        _check_quota(session, dataset, settings)

    dataset.profile = Inspection(file, upload.filename, columns, settings).profile()
    dataset.rows = dataset.profile["rows"]
    if dataset.rows > settings.max_rows:
        limit = f"{settings.max_rows:,}"
        raise DataTooLarge(file=upload.filename, what="the number of rows", limit=limit)

    store.put_file(file, files.key(dataset))  # before the transaction: nobody waits for the store
    unwanted = True
    try:
        with database.write() as session:
            idempotency.begin(session, call)
            take_turns(session, f"data sets of {dataset.created_by}")
            take_turns(session, f"data set {dataset.name}")
            if there := repository.same(session, dataset):  # it came while this one was checked
                return there, False
            _check_quota(session, dataset, settings)  # once more: so did others, perhaps
            repository.add(session, dataset)
            idempotency.keep(session, call, status=201, body=DatasetView.of(dataset))
            unwanted = False  # a commit that breaks may have been made; the sweep will know
            session.commit()
    finally:
        if unwanted:
            store.discard(files.key(dataset))
    return dataset, True


def look(upload: Upload, fields: DatasetFields, settings: Settings) -> dict[str, Any]:
    """The columns of a file, and its first rows. Raises what is wrong with it."""
    return Inspection(_parsable(upload), upload.filename, fields.columns, settings).look()


def _parsable(upload: Upload) -> Path:
    """The file under its ending, by which the parser goes. Raises `UnsupportedFormat`."""
    return upload.path.rename(upload.path.with_suffix(ending_of(upload.filename)))


def _check_quota(session: Session, dataset: Dataset, settings: Settings) -> None:
    used = repository.bytes_of(session, dataset.created_by)
    if used + dataset.bytes > settings.key_upload_bytes:
        raise KeyBytesUsed(used=f"{used:,}", limit=f"{settings.key_upload_bytes:,}")


def content(store: Store, *, settings: Settings, dataset: Dataset) -> Path:
    """The file, to read only. Raises `DatasetDamaged`, and what a store raises."""
    try:
        return files.find(settings, store, dataset)
    except ArtifactCorrupt as error:
        problem = error.detail["problem"]
        raise DatasetDamaged(ref=f"{dataset.name}:{dataset.version}", problem=problem) from error


def check(database: Database, store: Store, *, settings: Settings, ref: str) -> Dataset:
    """Diagnose a data set anew. Raises what `content` and `Inspection.diagnosis` raise."""
    with database.read() as session:
        dataset = repository.resolve(session, ref)
    diagnosis = _inspection(store, settings, dataset).diagnosis()
    with database.write() as session:
        dataset = repository.get(session, dataset.id, alone=True)
        dataset.profile = {**dataset.profile, "diagnosis": diagnosis}
        session.commit()
    return dataset


def rows(
    database: Database, store: Store, *, settings: Settings, ref: str, after: int, limit: int
) -> tuple[Dataset, list[dict[str, Any]]]:
    """A data set, and rows with numbers above `after`.

    Raises what `content` and `Inspection.rows` raise.
    """
    with database.read() as session:
        dataset = repository.resolve(session, ref)
    return dataset, _inspection(store, settings, dataset).rows(after=after, limit=limit)


def _inspection(store: Store, settings: Settings, dataset: Dataset) -> Inspection:
    file = content(store, settings=settings, dataset=dataset)
    columns = Columns(
        dataset.text_column,
        dataset.label_column,
        dataset.split_column,
        dataset.overview.get("sheet"),
    )
    return Inspection(file, dataset.filename, columns, settings)


def delete(database: Database, store: Store, *, settings: Settings, ref: str) -> None:
    """Remove the file; the row stays for the record. Raises `DatasetInUse`, `DatasetNotFound`."""
    with database.write() as session:
        found = repository.resolve(session, ref)
        dataset = repository.get(session, found.id, alone=True)  # submits come before or after
        if count := repository.readers(session, dataset.id):
            raise DatasetInUse(ref=f"{dataset.name}:{dataset.version}", count=count)
        repository.mark_deleted(session, dataset)
        session.commit()
    files.discard(settings, store, dataset)


def _named(filename: str, fields: DatasetFields) -> tuple[str, str | None]:
    """(name, title) of a data set; no title where the name says as much. Raises `NameNeeded`.

    A file without labels gets another name than one with them, or the newest `my-reviews` could
    not be trained on.
    """
    if fields.name is not None:
        name = slug(fields.name, 64)
        if not name:
            raise NameNeeded(filename=fields.name)
        return name, fields.name if fields.name != name else None
    ending = TO_PREDICT if fields.purpose == "predict" else ""
    stem = PurePath(filename).stem
    name = slug(stem, 64 - len(ending))
    if not name:
        raise NameNeeded(filename=filename)
    return name + ending, None


def slug(title: str, most: int) -> str:
    """What addresses take: `Größe (Mai)` → `grosse-mai`; `` where nothing can be made of it.

    A title in another script than the Latin one becomes `data-` and a digest, always the same.
    """
    folded = unicodedata.normalize("NFKD", title.casefold())
    plain = folded.encode("ascii", "ignore").decode()
    found = re.sub(r"[^a-z0-9]+", "-", plain)[:most].strip("-")
    if not found and any(character.isalnum() for character in folded):
        return f"data-{hashlib.sha256(folded.encode()).hexdigest()[:8]}"
    return found
