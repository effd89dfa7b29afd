"""Routes of classifier jobs and of their models in the Mistral API."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from app.auth.middleware import check_scope, require_scope
from app.http.dependencies import CallerDep, DatabaseDep, NotifierDep, SettingsDep, StoreDep
from app.http.error_responses import MISTRAL_ERROR_RESPONSES
from app.http.fields import CleanText
from app.idempotency.header import IdempotencyDep
from app.jobs import service as jobs
from app.mistral import repository, service, views
from app.mistral.repository import MistralJobFilter
from app.mistral.schemas import (
    MistralFineTunedModel,
    MistralJobCreate,
    MistralJobDetails,
    MistralJobList,
    MistralJobView,
    MistralModelArchiveState,
    MistralModelUpdate,
    MistralStatusFilter,
)
from app.mistral.url_parameters import PageNumber, PageSize

router = APIRouter(
    prefix="/mistral/v1/fine_tuning", tags=["mistral"], responses=MISTRAL_ERROR_RESPONSES
)

_READ = [require_scope("jobs:read")]
_WRITE = [require_scope("jobs:write")]
_ADMIN = [require_scope("models:admin")]
MistralJobId = Annotated[
    str, Field(description="The id of a job.", json_schema_extra={"format": "uuid"})
]
FineTunedModelId = Annotated[
    str,
    Field(
        description="`ft:classifier:…`, the `fine_tuned_model` of a job.",
        json_schema_extra={"maxLength": 1024},  # of the names there are; others give 404
    ),
]
_Text = Annotated[str, CleanText(512)] | None


@router.post("/jobs", dependencies=_WRITE)
def create_mistral_job(  # noqa: PLR0913 - what creating a job touches
    body: MistralJobCreate,
    caller: CallerDep,
    build_idempotent_request: IdempotencyDep,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    notifier: NotifierDep,
) -> MistralJobView:
    """Create a classifier job. Its model is registered, which requires `models:admin` as well."""
    check_scope(caller, "models:admin")
    return service.create_job(
        database,
        store,
        settings=settings,
        notifier=notifier,
        body=body,
        call=build_idempotent_request(body.model_dump(mode="json", exclude_unset=True)),
    )


@router.get("/jobs", dependencies=_READ)
def list_mistral_jobs(  # noqa: PLR0913 - the parameters of the SDK
    database: DatabaseDep,
    caller: CallerDep,
    page: PageNumber = 0,
    page_size: PageSize = 100,
    model: Annotated[_Text, Query(description="As it was asked for, or as it is trained.")] = None,
    created_after: Annotated[datetime | None, Query(description="In UTC by default.")] = None,
    created_before: Annotated[datetime | None, Query(description="In UTC by default.")] = None,
    created_by_me: Annotated[bool, Query(description="Jobs of this API key only.")] = False,
    status: Annotated[
        MistralStatusFilter | None, Query(description="No job is `STARTED` or `VALIDATING`.")
    ] = None,
    suffix: Annotated[_Text, Query(description="As it was asked for.")] = None,
    wandb_project: Annotated[_Text, Query(description="No job has one.")] = None,
    wandb_name: Annotated[_Text, Query(description="No job has one.")] = None,
) -> MistralJobList:
    """List the jobs that were created through this API, the newest first."""
    if wandb_project is not None or wandb_name is not None:
        return MistralJobList(data=[], total=0)
    wanted = MistralJobFilter(
        model=model,
        suffix=suffix,
        status=status,
        created_after=_seconds(created_after),
        created_before=_seconds(created_before),
        created_by=caller.id if created_by_me else None,
    )
    with database.read() as session:
        rows = repository.list_jobs(session, wanted, offset=page * page_size, limit=page_size)
        data = [views.job_view(row) for row in rows]
        return MistralJobList(data=data, total=repository.count_jobs(session, wanted))


def _seconds(time: datetime | None) -> float | None:
    """Return the seconds since 1970; a time without an offset is in UTC."""
    if time is None:
        return None
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()


@router.get("/jobs/{job_id}", dependencies=_READ)
def get_mistral_job(job_id: MistralJobId, database: DatabaseDep) -> MistralJobDetails:
    """Get a job with its targets, its newest events and its evaluations."""
    with database.read() as session:
        return service.get_job_details(session, service.get_job(session, job_id))


@router.post("/jobs/{job_id}/cancel", dependencies=_WRITE)
def cancel_mistral_job(job_id: MistralJobId, database: DatabaseDep) -> MistralJobDetails:
    """Cancel a job. One that is running stops soon; a finished one stays as it is."""
    with database.write() as session:
        row = service.get_job(session, job_id)
        jobs.cancel_job(session, job_id=row.job.id)
        session.refresh(row.job)
        return service.get_job_details(session, row)


@router.post("/jobs/{job_id}/start", dependencies=_WRITE)
def start_mistral_job(
    job_id: MistralJobId, database: DatabaseDep, notifier: NotifierDep
) -> MistralJobDetails:
    """Start a job that was created with `auto_start: false`, or resume one that was paused.

    One that waits for a worker or runs stays as it is.
    """
    with database.write() as session:
        row = service.get_job(session, job_id)
        jobs.resume_job(session, job_id=row.job.id, notifier=notifier)
        session.refresh(row.job)
        return service.get_job_details(session, row)


@router.patch("/models/{model_id}", dependencies=_ADMIN)
def update_mistral_model(
    model_id: FineTunedModelId, body: MistralModelUpdate, database: DatabaseDep
) -> MistralFineTunedModel:
    """Change the name and the description of the model of a job. It is called as before."""
    with database.write() as session:
        model = service.get_fine_tuned_model(session, model_id)
        asked = model.row.asked
        if body.name is not None:
            asked.model_name = body.name
        if body.description is not None:
            asked.model_description = body.description or None
        if fields := body.model_dump(exclude_none=True):
            service.audit_model_update(session, model, fields)
        return views.fine_tuned_model_view(model)


@router.post("/models/{model_id}/archive", dependencies=_ADMIN)
def archive_mistral_model(
    model_id: FineTunedModelId, database: DatabaseDep
) -> MistralModelArchiveState:
    """Mark the model of a job as archived. It answers all the same."""
    return _set_archived(model_id, database, archived=True)


@router.delete("/models/{model_id}/archive", dependencies=_ADMIN)
def unarchive_mistral_model(
    model_id: FineTunedModelId, database: DatabaseDep
) -> MistralModelArchiveState:
    """Remove the mark of an archived model."""
    return _set_archived(model_id, database, archived=False)


def _set_archived(
    model_id: str, database: DatabaseDep, *, archived: bool
) -> MistralModelArchiveState:
    with database.write() as session:
        model = service.get_fine_tuned_model(session, model_id)
        model.row.asked.archived = archived
        service.audit_model_update(session, model, ["archived"])
    return MistralModelArchiveState(id=model_id, archived=archived)
