"""The files of the fine-tuning APIs, which are datasets here."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar
from uuid import UUID

from sqlalchemy.orm import Session

from app.database.engines import Database
from app.datasets import repository as datasets
from app.datasets.errors import DatasetNotFound
from app.datasets.multipart_upload import Upload
from app.datasets.schemas import UploadFields
from app.datasets.service import create_dataset
from app.datasets.tables import Dataset
from app.fine_tuning_apis.errors import FileNotFound
from app.http.fields import ResponseModel
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentRequest
from app.settings import Settings
from app.storage.store import Store

_View = TypeVar("_View", bound=ResponseModel)


def ensure_extension(upload: Upload) -> Upload:
    """Return an upload whose name has an extension. SDKs call bytes `upload` or the like."""
    if "." in upload.filename:
        return upload
    return replace(upload, filename=f"{upload.filename[:249]}.jsonl")  # the column has 255


def create_file(  # noqa: PLR0913 - what storing a file touches
    database: Database,
    store: Store,
    *,
    settings: Settings,
    upload: Upload,
    fields: UploadFields,
    view_of: Callable[[Dataset], _View],
    call: IdempotentRequest,
) -> _View:
    """Store a file as a dataset. Raises what `app.datasets.service.create_dataset` raises."""
    with database.read() as session:
        idempotency.raise_if_replayed(session, call)
    dataset, _ = create_dataset(
        database,
        store,
        settings=settings,
        upload=upload,
        fields=fields,
        call=replace(call, key=None),  # the response to store is the one below
    )
    file = view_of(dataset)
    # A retry of a request that was lost before this transaction finds the same dataset.
    with database.write() as session:
        idempotency.reserve(session, call)
        idempotency.save_response(session, call, status=200, body=file)
    return file


def get_file_dataset(
    session: Session, dataset_id: UUID | None, *, file_id: str, **detail: str
) -> Dataset:
    """Return the dataset of an uploaded file. Raises `FileNotFound` with the `detail`."""
    try:
        dataset = None if dataset_id is None else datasets.get_dataset(session, dataset_id)
    except DatasetNotFound:
        dataset = None
    if dataset is None or dataset.label_column is None:
        raise FileNotFound(file_id=repr(file_id[:64]), **detail)
    return dataset
