"""Routes of files in the Mistral API, which are datasets here."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from pydantic import Field, ValidationError

from app.auth.middleware import require_scope
from app.datasets import service as datasets
from app.datasets.multipart_upload import receive_upload, temporary_upload_dir
from app.http.dependencies import DatabaseDep, ExecutorDep, SettingsDep, StoreDep
from app.http.error_responses import MISTRAL_ERROR_RESPONSES, FormValidationError
from app.http.fields import CleanText, file_response_openapi
from app.idempotency.header import IdempotencyDep
from app.mistral import repository, service, views
from app.mistral.schemas import (
    MISTRAL_FILE_FORM,
    MistralFile,
    MistralFileDeleted,
    MistralFileDetails,
    MistralFileList,
    MistralFileUpload,
)
from app.mistral.url_parameters import PageNumber, PageSize

router = APIRouter(prefix="/mistral/v1/files", tags=["mistral"], responses=MISTRAL_ERROR_RESPONSES)

_READ = [require_scope("datasets:read")]
_WRITE = [require_scope("datasets:write")]
MistralFileId = Annotated[
    str,
    Field(description="The id of a dataset.", json_schema_extra={"format": "uuid"}),
]

_Names = Annotated[list[Annotated[str, CleanText(64)]], Field(max_length=16)] | None


@router.post("", dependencies=_WRITE, openapi_extra=MISTRAL_FILE_FORM)
async def create_mistral_file(
    request: Request,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    build_idempotent_request: IdempotencyDep,
    executor: ExecutorDep,
) -> MistralFile:
    """Upload a file. It is stored as a dataset; the same file again is the same dataset."""
    async with temporary_upload_dir(settings) as directory:
        upload = await receive_upload(
            request, path=directory / "file", limit=settings.max_upload_bytes
        )
        try:
            MistralFileUpload.model_validate(upload.fields)
        except ValidationError as error:
            raise FormValidationError(error, MistralFileUpload) from error
        work = partial(
            service.create_file,
            database,
            store,
            settings=settings,
            upload=upload,
            call=build_idempotent_request([upload.sha256, upload.filename, upload.fields]),
        )
        return await executor.run(work)


@router.get("", dependencies=_READ)
def list_mistral_files(  # noqa: PLR0913 - the parameters of the SDK
    database: DatabaseDep,
    page: PageNumber = 0,
    page_size: PageSize = 100,
    include_total: Annotated[bool, Query(description="Whether to count all files.")] = True,
    sample_type: Annotated[_Names, Query(description="All files are `instruct`.")] = None,
    source: Annotated[_Names, Query(description="All files are an `upload`.")] = None,
    search: Annotated[
        Annotated[str, CleanText(256)] | None, Query(description="A part of the file name.")
    ] = None,
    purpose: Annotated[
        Annotated[str, CleanText(64)] | None, Query(description="All files are for `fine-tune`.")
    ] = None,
) -> MistralFileList:
    """List files with labels, the newest first. All are uploads for fine-tuning."""
    others = (
        (sample_type is not None and "instruct" not in sample_type)
        or (source is not None and "upload" not in source)
        or purpose not in (None, "fine-tune")
    )
    if others:
        return MistralFileList(data=[], total=0 if include_total else None)
    with database.read() as session:
        rows = repository.list_labeled_datasets(
            session, search=search, offset=page * page_size, limit=page_size
        )
        total = repository.count_labeled_datasets(session, search=search) if include_total else None
        return MistralFileList(data=[views.file_view(row) for row in rows], total=total)


@router.get("/{file_id}", dependencies=_READ)
def get_mistral_file(file_id: MistralFileId, database: DatabaseDep) -> MistralFileDetails:
    """Get a file."""
    with database.read() as session:
        return views.file_details_view(service.get_mistral_file_dataset(session, file_id))


@router.get(
    "/{file_id}/content",
    dependencies=_READ,
    response_class=FileResponse,
    responses=file_response_openapi("application/octet-stream"),
)
def download_mistral_file(
    file_id: MistralFileId, settings: SettingsDep, database: DatabaseDep, store: StoreDep
) -> FileResponse:
    """Download a file as it was uploaded."""
    with database.read() as session:
        dataset = service.get_mistral_file_dataset(session, file_id)
    return FileResponse(
        datasets.fetch_dataset_file(store, settings=settings, dataset=dataset),
        media_type="application/octet-stream",
        filename=dataset.filename,
    )


@router.delete("/{file_id}", dependencies=_WRITE)
def delete_mistral_file(
    file_id: MistralFileId, settings: SettingsDep, database: DatabaseDep, store: StoreDep
) -> MistralFileDeleted:
    """Delete a file that no queued or running job uses."""
    with database.read() as session:
        dataset = service.get_mistral_file_dataset(session, file_id)
    with database.write() as session:
        datasets.delete_dataset(session, store, settings=settings, ref=str(dataset.id))
    return MistralFileDeleted(id=file_id)
