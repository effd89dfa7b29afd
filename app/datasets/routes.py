"""Upload, list and delete data sets."""

import shutil
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, status
from fastapi.responses import FileResponse
from pydantic import ValidationError

from app.auth.middleware import requires
from app.datasets import files, repository, service
from app.datasets.schemas import (
    UPLOAD_FORM,
    ColumnsView,
    DatasetFields,
    DatasetListItem,
    DatasetRef,
    DatasetView,
    RowsView,
    RowView,
)
from app.datasets.upload import receive
from app.http.dependencies import DatabaseDep, SettingsDep, StoreDep, WorkDep
from app.http.error_responses import WrongForm
from app.http.pagination import After, Limit, Page, cut, decode
from app.idempotency.header import KeyedDep

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

RowLimit = Annotated[int, Query(ge=1, le=100, description="Most rows.")]
AfterRow = Annotated[int, Query(ge=0, description="Number of the row before the first.")]

_READ = [requires("datasets:read")]
_WRITE = [requires("datasets:write")]


@router.post(
    "", dependencies=_WRITE, status_code=status.HTTP_201_CREATED, openapi_extra=UPLOAD_FORM,
    responses={200: {"model": DatasetView, "description": "The same file is there already"}},
)  # fmt: skip
async def upload_dataset(  # noqa: PLR0913 - what an upload touches
    request: Request,
    response: Response,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    keyed: KeyedDep,
    at_work: WorkDep,
) -> DatasetView:
    """Upload a file. It is checked row by row before any job may use it.

    The same file again under the same name gives the version that is there, with status 200.
    """
    # Read by hand: the file goes straight to its disk, and nothing is read without the scope.
    folder = files.incoming(settings)
    try:
        upload = await receive(request, path=folder / "file", limit=settings.max_upload_bytes)
        work = partial(
            service.add,
            database,
            store,
            settings=settings,
            upload=upload,
            fields=_fields(upload.fields),
            call=keyed.call([upload.sha256, upload.filename, upload.fields]),
        )
        dataset, is_new = await at_work.check(work)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not is_new:
        response.status_code = status.HTTP_200_OK
    return DatasetView.of(dataset)


@router.post("/preview", dependencies=_WRITE, openapi_extra=UPLOAD_FORM)
async def preview_file(request: Request, settings: SettingsDep, at_work: WorkDep) -> ColumnsView:
    """Which columns a file has, and its first rows. Nothing is kept; columns need not be named."""
    folder = files.incoming(settings)
    try:
        upload = await receive(request, path=folder / "file", limit=settings.max_upload_bytes)
        work = partial(service.look, upload, _fields(upload.fields), settings)
        return ColumnsView.model_validate(await at_work.check(work))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@router.get("", dependencies=_READ)
def list_datasets(
    database: DatabaseDep, limit: Limit = 20, after: After = None
) -> Page[DatasetListItem]:
    """Data sets, the newest first, without what grows with the number of labels."""
    with database.read() as session:
        rows, following = cut(repository.page(session, after=decode(after), limit=limit + 1), limit)
    return Page(data=[DatasetListItem.of(row) for row in rows], next=following)


@router.get("/{ref}", dependencies=_READ)
def read_dataset(ref: DatasetRef, database: DatabaseDep) -> DatasetView:
    """One data set, by `name` (its newest version), `name:2` or id."""
    with database.read() as session:
        return DatasetView.of(repository.resolve(session, ref))


@router.get("/{ref}/content", dependencies=_READ, response_class=FileResponse)
def read_content(
    ref: DatasetRef, settings: SettingsDep, database: DatabaseDep, store: StoreDep
) -> FileResponse:
    """The file as it was uploaded."""
    with database.read() as session:
        dataset = repository.resolve(session, ref)
    return FileResponse(
        service.content(store, settings=settings, dataset=dataset),
        media_type="application/octet-stream",
        filename=dataset.filename,
    )


@router.get("/{ref}/rows", dependencies=_READ)
async def read_rows(  # noqa: PLR0913 - what it reads, and from where
    ref: DatasetRef,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    at_work: WorkDep,
    limit: RowLimit = 20,
    after: AfterRow = 0,
) -> RowsView:
    """Some rows as training reads them, long texts cut."""
    work = partial(
        service.rows, database, store, settings=settings, ref=ref, after=after, limit=limit + 1
    )
    _, found = await at_work.read(work)
    rows = [RowView(**row) for row in found]
    following = rows[limit - 1].row if len(rows) > limit else None
    return RowsView(data=rows[:limit], next=following)


@router.post("/{ref}/check", dependencies=_WRITE)
async def check_dataset(
    ref: DatasetRef, settings: SettingsDep, database: DatabaseDep, store: StoreDep, at_work: WorkDep
) -> DatasetView:
    """Diagnose it again: for uploads of a version before, which have no diagnosis."""
    work = partial(service.check, database, store, settings=settings, ref=ref)
    return DatasetView.of(await at_work.check(work))


@router.delete("/{ref}", dependencies=_WRITE, status_code=status.HTTP_204_NO_CONTENT)
def delete_dataset(
    ref: DatasetRef, settings: SettingsDep, database: DatabaseDep, store: StoreDep
) -> None:
    """Delete a data set that no queued or running job reads, by `name:2`, `name` or id."""
    service.delete(database, store, settings=settings, ref=ref)


def _fields(sent: dict[str, str]) -> DatasetFields:
    try:
        return DatasetFields.model_validate({name: value for name, value in sent.items() if value})
    except ValidationError as error:
        raise WrongForm(error, DatasetFields) from error
