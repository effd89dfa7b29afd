"""Routes of datasets: upload, preview, list, download, rows, check, delete."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, status
from fastapi.responses import FileResponse
from pydantic import ValidationError

from app.auth.middleware import require_scope
from app.datasets import repository, service
from app.datasets.multipart_upload import receive_upload, temporary_upload_dir
from app.datasets.schemas import (
    UPLOAD_FORM,
    DatasetListItem,
    DatasetRef,
    DatasetRows,
    DatasetRowView,
    DatasetView,
    FilePreview,
    UploadFields,
)
from app.datasets.views import dataset_list_item, dataset_view
from app.http.dependencies import DatabaseDep, ExecutorDep, SettingsDep, StoreDep
from app.http.error_responses import FormValidationError
from app.http.fields import file_response_openapi
from app.http.pagination import Page, PageCursor, PageLimit, decode_cursor, split_page
from app.idempotency.header import IdempotencyDep

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

RowLimit = Annotated[int, Query(ge=1, le=100, description="Maximum number of rows.")]
AfterRow = Annotated[int, Query(ge=0, description="Return rows after this row number.")]

_READ = [require_scope("datasets:read")]
_WRITE = [require_scope("datasets:write")]


@router.post(
    "", dependencies=_WRITE, status_code=status.HTTP_201_CREATED, openapi_extra=UPLOAD_FORM,
    responses={200: {"model": DatasetView, "description": "The file is already stored"}},
)  # fmt: skip
async def upload_dataset(  # noqa: PLR0913 - FastAPI dependencies
    request: Request,
    response: Response,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    build_idempotent_request: IdempotencyDep,
    executor: ExecutorDep,
) -> DatasetView:
    """Upload a file. It is validated row by row before any job may use it.

    If the same file is uploaded again with the same name, the existing version is returned with
    status 200.
    """
    # The body is parsed here, not by FastAPI: it is streamed to disk, and only if the API key has
    # the scope.
    async with temporary_upload_dir(settings) as directory:
        upload = await receive_upload(
            request, path=directory / "file", limit=settings.max_upload_bytes
        )
        work = partial(
            service.create_dataset,
            database,
            store,
            settings=settings,
            upload=upload,
            fields=_parse_fields(upload.fields),
            call=build_idempotent_request([upload.sha256, upload.filename, upload.fields]),
        )
        dataset, is_new = await executor.run(work)
    if not is_new:
        response.status_code = status.HTTP_200_OK
    return dataset_view(dataset)


@router.post("/preview", dependencies=_WRITE, openapi_extra=UPLOAD_FORM)
async def preview_file(
    request: Request, settings: SettingsDep, executor: ExecutorDep
) -> FilePreview:
    """Preview the columns and first rows of a file. Nothing is stored; no columns need be given."""
    async with temporary_upload_dir(settings) as directory:
        upload = await receive_upload(
            request, path=directory / "file", limit=settings.max_upload_bytes
        )
        work = partial(service.preview_file, upload, _parse_fields(upload.fields), settings)
        return FilePreview.model_validate(await executor.run(work))


@router.get("", dependencies=_READ)
def list_datasets(
    database: DatabaseDep, limit: PageLimit = 20, after: PageCursor = None
) -> Page[DatasetListItem]:
    """List datasets, the newest first, without the fields that grow with the number of labels."""
    with database.read() as session:
        rows, following = split_page(
            repository.list_datasets(session, after=decode_cursor(after), limit=limit + 1), limit
        )
    return Page(data=[dataset_list_item(row) for row in rows], next=following)


@router.get("/{ref}", dependencies=_READ)
def get_dataset(ref: DatasetRef, database: DatabaseDep) -> DatasetView:
    """Get a dataset by `name` (its newest version), `name:2` or id."""
    with database.read() as session:
        return dataset_view(repository.resolve_dataset(session, ref))


@router.get(
    "/{ref}/content",
    dependencies=_READ,
    response_class=FileResponse,
    responses=file_response_openapi("application/octet-stream"),
)
def download_dataset(
    ref: DatasetRef, settings: SettingsDep, database: DatabaseDep, store: StoreDep
) -> FileResponse:
    """Download the file as it was uploaded."""
    with database.read() as session:
        dataset = repository.resolve_dataset(session, ref)
    return FileResponse(
        service.fetch_dataset_file(store, settings=settings, dataset=dataset),
        media_type="application/octet-stream",
        filename=dataset.filename,
    )


@router.get("/{ref}/rows", dependencies=_READ)
async def list_dataset_rows(  # noqa: PLR0913 - FastAPI dependencies
    ref: DatasetRef,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    executor: ExecutorDep,
    limit: RowLimit = 20,
    after: AfterRow = 0,
) -> DatasetRows:
    """List rows as training reads them; long texts are truncated."""
    work = partial(
        service.list_rows, database, store, settings=settings, ref=ref, after=after, limit=limit + 1
    )
    _, raw_rows = await executor.run_dataset_read(work)
    rows = [DatasetRowView(**row) for row in raw_rows]
    following = rows[limit - 1].row if len(rows) > limit else None
    return DatasetRows(data=rows[:limit], next=following)


@router.post("/{ref}/check", dependencies=_WRITE)
async def rediagnose_dataset(
    ref: DatasetRef,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    executor: ExecutorDep,
) -> DatasetView:
    """Diagnose a dataset again, for instance if an older version stored it without a diagnosis."""
    work = partial(service.rediagnose_dataset, database, store, settings=settings, ref=ref)
    return dataset_view(await executor.run(work))


@router.delete("/{ref}", dependencies=_WRITE, status_code=status.HTTP_204_NO_CONTENT)
def delete_dataset(
    ref: DatasetRef, settings: SettingsDep, database: DatabaseDep, store: StoreDep
) -> None:
    """Delete a dataset that no queued or running job uses, by `name:2`, `name` or id."""
    with database.write() as session:
        service.delete_dataset(session, store, settings=settings, ref=ref)


def _parse_fields(fields: dict[str, str]) -> UploadFields:
    try:
        return UploadFields.model_validate({name: value for name, value in fields.items() if value})
    except ValidationError as error:
        raise FormValidationError(error, UploadFields) from error
