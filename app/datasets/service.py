"""Operations on datasets: create, preview, diagnose, read rows, delete."""

import hashlib
import re
import unicodedata
from collections.abc import Set
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from sqlalchemy.orm import Session

from app.database.base import new_id
from app.database.engines import Database, acquire_transaction_lock, call_after_commit
from app.datasets import files, repository
from app.datasets.errors import (
    DatasetDamaged,
    DatasetInUse,
    DatasetNameRequired,
    TextForgottenMeanwhile,
    UploadQuotaExceeded,
)
from app.datasets.files import FileInspector, SelectedColumns
from app.datasets.multipart_upload import Upload
from app.datasets.schemas import UploadFields
from app.datasets.tables import Dataset
from app.datasets.views import dataset_view
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentRequest
from app.privacy import repository as privacy
from app.settings import Settings
from app.storage.store import Store
from lora_core.data.label_readers import LabelFormat
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.errors.data import DataTooLarge
from lora_core.specs.data import parse_file_suffix
from lora_core.specs.task import TaskType

_PREDICT_SUFFIX = "-to-predict"


def create_dataset(  # noqa: PLR0913 - a file, how to read it, and who asks
    database: Database,
    store: Store,
    *,
    settings: Settings,
    upload: Upload,
    fields: UploadFields,
    call: IdempotentRequest,
    forgotten: Set[str] | None = None,
) -> tuple[Dataset, bool]:
    """Validate an upload and store it as the next version of its name.

    `forgotten` are the hashes of all forgotten texts when the service itself read the texts of the
    file, None if a caller sent them.

    Returns (dataset, whether it is new): the same bytes with the same name, format and columns
    are not stored twice, the existing version is returned. Raises the errors in the file,
    `UploadQuotaExceeded`, `TextForgottenMeanwhile`, and what `idempotency.reserve` raises; nothing
    is stored then.
    """
    file, columns = _with_original_suffix(upload), _columns(fields)
    name, title = _name_and_title(upload.filename, fields)
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
        text_pair_column=columns.text_pair,
        label_column=columns.label,
        split_column=columns.split,
        sheet=columns.sheet,
    )
    with database.read() as session:
        idempotency.raise_if_replayed(session, call)
        existing = repository.find_identical(session, dataset, columns.label_format)
        if existing is None:
            check_quota(session, dataset, settings)
    if existing is not None:
        if call.key is not None:
            with database.write() as session:
                idempotency.reserve(session, call)
                view = dataset_view(existing)
                idempotency.save_response(session, call, status=200, body=view)
        return existing, False

    validate_and_set_profile(dataset, FileInspector(file, upload.filename, columns, settings))
    # Before the transaction, so that other writers do not wait for the store.
    store.move_file_into_store(file, files.store_key(dataset))
    delete_file = True
    try:
        with database.write() as session:
            idempotency.reserve(session, call)
            if forgotten is not None:
                privacy.lock_text_storage(session)
                if privacy.list_forgotten_hashes(session) != forgotten:
                    raise TextForgottenMeanwhile(name=dataset.name)
            acquire_transaction_lock(session, f"datasets of {dataset.created_by}")
            acquire_transaction_lock(session, f"dataset {dataset.name}")
            # Both checks again: other uploads may have been stored in the meantime.
            existing = repository.find_identical(session, dataset, columns.label_format)
            if existing is None:
                check_quota(session, dataset, settings)
                repository.add_dataset_version(session, dataset)
            view = dataset_view(existing or dataset)
            idempotency.save_response(session, call, status=200 if existing else 201, body=view)
            # A commit that fails may still have succeeded; garbage collection then decides.
            delete_file = existing is not None
    finally:
        if delete_file:
            store.delete_best_effort(files.store_key(dataset))
    return existing or dataset, existing is None


def validate_and_set_profile(dataset: Dataset, inspector: FileInspector) -> None:
    """Validate the file of a new dataset, and set its profile.

    Raises what `FileInspector.profile` raises, and `DataTooLarge`.
    """
    dataset.profile = inspector.profile()
    dataset.rows = dataset.profile["rows"]
    if dataset.rows > inspector.settings.max_rows:
        limit = f"{inspector.settings.max_rows:,}"
        raise DataTooLarge(file=inspector.filename, what="the number of rows", limit=limit)


def preview_file(upload: Upload, fields: UploadFields, settings: Settings) -> dict[str, Any]:
    """Return the columns of a file and its first rows. Raises the errors in the file."""
    file = _with_original_suffix(upload)
    return FileInspector(file, upload.filename, _columns(fields), settings).detect_columns()


def detect_target_tasks(upload: Upload, settings: Settings) -> dict[str, TaskType]:
    """Return the labels of lines that have an object of them; empty for other files.

    Raises the errors in the file.
    """
    targets: dict[str, TaskType] = preview_file(upload, UploadFields(), settings).get("targets", {})
    return targets


def _columns(fields: UploadFields) -> SelectedColumns:
    labeled = fields.purpose == "train"
    return SelectedColumns(
        fields.text_column,
        fields.label_column if labeled else None,
        fields.split_column if labeled else None,
        fields.sheet,
        fields.text_pair_column,
        fields.label_format if labeled else LabelFormat(),
    )


def _with_original_suffix(upload: Upload) -> Path:
    """Rename the file to its original suffix, which selects the parser, unless it has it already.

    Raises `UnsupportedFormat`.
    """
    renamed = upload.path.with_suffix(parse_file_suffix(upload.filename))
    return renamed if renamed.exists() else upload.path.rename(renamed)


def check_quota(session: Session, dataset: Dataset, settings: Settings) -> None:
    """Raise `UploadQuotaExceeded` if the caller may not store another dataset of this size."""
    used = repository.total_dataset_bytes_of_caller(session, dataset.created_by)
    if used + dataset.bytes > settings.max_upload_bytes_per_key:
        raise UploadQuotaExceeded(used=f"{used:,}", limit=f"{settings.max_upload_bytes_per_key:,}")


def fetch_dataset_file(store: Store, *, settings: Settings, dataset: Dataset) -> Path:
    """Return the file, read-only. Raises `DatasetDamaged`, and the errors of a store."""
    try:
        return files.fetch_file(settings, store, dataset)
    except ArtifactCorrupt as error:
        problem = error.detail["problem"]
        raise DatasetDamaged(ref=f"{dataset.name}:{dataset.version}", problem=problem) from error


def rediagnose_dataset(
    database: Database, store: Store, *, settings: Settings, ref: str
) -> Dataset:
    """Diagnose a dataset again.

    Raises what `fetch_dataset_file` and `FileInspector.diagnose` raise.
    """
    with database.read() as session:
        dataset = repository.resolve_dataset(session, ref)
    diagnosis = build_file_inspector(store, settings, dataset).diagnose()
    with database.write() as session:
        dataset = repository.get_dataset(session, dataset.id, for_update=True)
        dataset.profile = {**dataset.profile, "diagnosis": diagnosis}
    return dataset


def list_rows(
    database: Database, store: Store, *, settings: Settings, ref: str, after: int, limit: int
) -> tuple[Dataset, list[dict[str, Any]]]:
    """Return a dataset, and up to `limit` rows with numbers above `after`.

    Raises what `fetch_dataset_file` and `FileInspector.rows` raise.
    """
    with database.read() as session:
        dataset = repository.resolve_dataset(session, ref)
    return dataset, build_file_inspector(store, settings, dataset).rows(after=after, limit=limit)


def find_rows_by_text(
    store: Store, *, settings: Settings, dataset: Dataset, wanted: Path
) -> dict[str, Any]:
    """Return how many rows have the text in a JSON file, and their first numbers.

    Raises what `fetch_dataset_file` and `FileInspector.find` raise.
    """
    return build_file_inspector(store, settings, dataset).find(wanted)


def extract_texts_to_jsonl(
    store: Store, *, settings: Settings, dataset: Dataset, target: Path
) -> None:
    """Write the whole texts of a dataset to a new file.

    Raises what `fetch_dataset_file` and `FileInspector.extract_texts_to_jsonl` raise.
    """
    build_file_inspector(store, settings, dataset).extract_texts_to_jsonl(target)


def build_file_inspector(store: Store, settings: Settings, dataset: Dataset) -> FileInspector:
    """Return what inspects the file of a dataset. Raises what `fetch_dataset_file` raises."""
    file = fetch_dataset_file(store, settings=settings, dataset=dataset)
    columns = SelectedColumns(
        dataset.text_column,
        dataset.label_column,
        dataset.split_column,
        dataset.overview.get("sheet"),
        dataset.text_pair_column,
        dataset.label_format,
    )
    return FileInspector(file, dataset.filename, columns, settings)


def delete_dataset(session: Session, store: Store, *, settings: Settings, ref: str) -> None:
    """Mark the row as deleted, and delete the file after the commit.

    Raises `DatasetInUse`, `DatasetNotFound`.
    """
    resolved = repository.resolve_dataset(session, ref)
    # The lock excludes jobs that are being submitted for this dataset.
    dataset = repository.get_dataset(session, resolved.id, for_update=True)
    if count := repository.count_active_jobs(session, dataset.id):
        raise DatasetInUse(ref=f"{dataset.name}:{dataset.version}", count=count)
    repository.soft_delete_dataset(session, dataset)
    call_after_commit(session, partial(files.delete_file, settings, store, dataset))


def _name_and_title(filename: str, fields: UploadFields) -> tuple[str, str | None]:
    """Return the name and the title of a dataset; the title is None if it equals the name.

    By default, a file without labels gets a suffix. Otherwise the newest version of `my-reviews`
    could not be used for training. Raises `DatasetNameRequired`.
    """
    if fields.name is not None:
        name = slugify(fields.name, 64)
        if not name:
            raise DatasetNameRequired(filename=fields.name)
        return name, fields.name if fields.name != name else None
    suffix = _PREDICT_SUFFIX if fields.purpose == "predict" else ""
    name = slugify(PurePath(filename).stem, 64 - len(suffix))
    if not name:
        raise DatasetNameRequired(filename=filename)
    return name + suffix, None


def slugify(title: str, max_length: int) -> str:
    """Convert a title to a URL-safe name: `Größe (Mai)` → `grosse-mai`.

    If letters or digits have no ASCII form, a digest of the title follows what has one, or `data`.
    A title without letters and digits becomes an empty string.
    """
    folded = unicodedata.normalize("NFKD", title.casefold())
    name = re.sub(r"[^a-z0-9]+", "-", folded.encode("ascii", "ignore").decode()).strip("-")
    if any(character.isalnum() and not character.isascii() for character in folded):
        digest = hashlib.sha256(folded.encode()).hexdigest()[:8]
        kept = name[: max_length - len(digest) - 1].rstrip("-")
        return f"{kept or 'data'}-{digest}"
    return name[:max_length].rstrip("-")
