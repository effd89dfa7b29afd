"""Routes of files in the OpenAI API: datasets, and the metrics of jobs as CSV."""

from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.auth.middleware import check_scope, require_scope
from app.datasets import service as datasets
from app.datasets.multipart_upload import receive_upload, temporary_upload_dir
from app.fine_tuning_apis.errors import FileNotFound
from app.fine_tuning_apis.repository import list_loss_and_accuracy_points
from app.http.dependencies import CallerDep, DatabaseDep, ExecutorDep, SettingsDep, StoreDep
from app.http.error_responses import OPENAI_ERROR_RESPONSES, FormValidationError
from app.http.fields import CleanText, file_response_openapi
from app.idempotency.header import IdempotencyDep
from app.openai import ids, repository, service, views
from app.openai.errors import InvalidAfterId, ResultFileNotDeletable
from app.openai.repository import OpenAIJobWithRequest, Order
from app.openai.schemas import (
    FILE_FORM,
    FileUpload,
    OpenAIFile,
    OpenAIFileDeleted,
    OpenAIFileList,
)
from app.openai.url_parameters import AfterId, FileIdParam
from app.queue.enums import JobState

router = APIRouter(prefix="/openai/v1/files", tags=["openai"], responses=OPENAI_ERROR_RESPONSES)

MAX_PAGE = 100  # files; a client that asks for more pages on

_READ = [require_scope("datasets:read")]
_WRITE = [require_scope("datasets:write")]
FileLimit = Annotated[int, Query(ge=1, le=10_000, description="A page has at most 100.")]


@router.post("", dependencies=_WRITE, openapi_extra=FILE_FORM)
async def create_openai_file(
    request: Request,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    build_idempotent_request: IdempotencyDep,
    executor: ExecutorDep,
) -> OpenAIFile:
    """Upload a file. It is stored as a dataset; the same file again is the same dataset."""
    async with temporary_upload_dir(settings) as directory:
        upload = await receive_upload(
            request, path=directory / "file", limit=settings.max_upload_bytes
        )
        _check_form(upload.fields)
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
def list_openai_files(
    database: DatabaseDep,
    caller: CallerDep,
    purpose: Annotated[
        Annotated[str, CleanText(64)] | None,
        Query(description="`fine-tune` or `fine-tune-results`; other purposes have no files."),
    ] = None,
    limit: FileLimit = 10_000,
    order: Annotated[Order, Query(description="By the time of creation.")] = "desc",
    after: AfterId = None,
) -> OpenAIFileList:
    """List uploaded files and, with the scope `jobs:read`, the files of results."""
    limit = min(limit, MAX_PAGE)
    start = _parse_after(after)
    with database.read() as session:
        found: list[tuple[UUID, OpenAIFile]] = []
        if purpose in (None, "fine-tune"):
            rows = repository.list_labeled_datasets(
                session, after=start, limit=limit + 1, order=order
            )
            found += [(row.id, views.dataset_file_view(row)) for row in rows]
        if purpose in (None, "fine-tune-results") and "jobs:read" in caller.scopes:
            tunings = repository.list_succeeded_jobs(
                session, after=start, limit=limit + 1, order=order
            )
            points = list_loss_and_accuracy_points(session, [each.job.id for each in tunings])
            found += [
                (each.job.id, views.result_file_view(each, points[each.job.id])) for each in tunings
            ]
    found.sort(key=lambda item: item[0], reverse=order == "desc")
    data = [file for _, file in found[:limit]]
    return OpenAIFileList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=len(found) > limit,
    )


@router.get("/{file_id}", dependencies=_READ)
def get_openai_file(file_id: FileIdParam, database: DatabaseDep, caller: CallerDep) -> OpenAIFile:
    """Get a file."""
    with database.read() as session:
        if ids.parse_result_file_id(file_id) is None:
            return views.dataset_file_view(service.get_openai_file_dataset(session, file_id))
        check_scope(caller, "jobs:read")
        tuning = _get_result(session, file_id)
        points = list_loss_and_accuracy_points(session, [tuning.job.id])
        return views.result_file_view(tuning, points[tuning.job.id])


@router.get(
    "/{file_id}/content",
    dependencies=_READ,
    response_class=Response,
    responses=file_response_openapi("application/octet-stream", "text/csv"),
)
def download_openai_file(
    file_id: FileIdParam,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    caller: CallerDep,
) -> Response:
    """Download a file as it was uploaded, or the metrics of a job as CSV."""
    with database.read() as session:
        if ids.parse_result_file_id(file_id) is not None:
            check_scope(caller, "jobs:read")
            tuning = _get_result(session, file_id)
            points = list_loss_and_accuracy_points(session, [tuning.job.id])
            csv = views.build_step_metrics_csv(tuning.measured, points[tuning.job.id])
            return Response(csv, media_type="text/csv")
        dataset = service.get_openai_file_dataset(session, file_id)
    return FileResponse(
        datasets.fetch_dataset_file(store, settings=settings, dataset=dataset),
        media_type="application/octet-stream",
        filename=dataset.filename,
    )


@router.delete("/{file_id}", dependencies=_WRITE)
def delete_openai_file(
    file_id: FileIdParam, settings: SettingsDep, database: DatabaseDep, store: StoreDep
) -> OpenAIFileDeleted:
    """Delete a file that no queued or running job uses."""
    if ids.parse_result_file_id(file_id) is not None:
        raise ResultFileNotDeletable(file_id=repr(file_id[:64]))
    with database.read() as session:
        dataset = service.get_openai_file_dataset(session, file_id)
    with database.write() as session:
        datasets.delete_dataset(session, store, settings=settings, ref=str(dataset.id))
    return OpenAIFileDeleted(id=file_id)


def _check_form(fields: dict[str, str]) -> None:
    try:
        FileUpload.model_validate(fields)
    except ValidationError as error:
        raise FormValidationError(error, FileUpload) from error


def _parse_after(after: str | None) -> UUID | None:
    if after is None:
        return None
    parsed = ids.parse_file_id(after) or ids.parse_result_file_id(after)
    if parsed is None:
        raise InvalidAfterId(after=after, at="after")
    return parsed


def _get_result(session: Session, file_id: FileIdParam) -> OpenAIJobWithRequest:
    job_id = ids.parse_result_file_id(file_id)
    tuning = None if job_id is None else repository.find_job(session, job_id)
    if tuning is None or tuning.job.state != JobState.SUCCEEDED:
        raise FileNotFound(file_id=repr(file_id[:64]))
    return tuning
