"""Routes of fine-tuning jobs in the OpenAI API."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import TypeAdapter, ValidationError

from app.auth.middleware import check_scope, require_scope
from app.http.dependencies import CallerDep, DatabaseDep, NotifierDep, SettingsDep, StoreDep
from app.http.error_responses import OPENAI_ERROR_RESPONSES
from app.http.fields import CleanText, Metadata
from app.idempotency.header import IdempotencyDep
from app.jobs import service as jobs
from app.jobs.repository import list_newest_events
from app.openai import ids, repository, service, views
from app.openai.errors import InvalidAfterId, InvalidMetadataFilter
from app.openai.schemas import (
    FineTuningCheckpointList,
    FineTuningEventList,
    FineTuningJob,
    FineTuningJobCreate,
    FineTuningJobList,
)
from app.openai.url_parameters import AfterId, JobIdParam
from app.queue.enums import JobState

router = APIRouter(
    prefix="/openai/v1/fine_tuning/jobs", tags=["openai"], responses=OPENAI_ERROR_RESPONSES
)

_READ = [require_scope("jobs:read")]
_WRITE = [require_scope("jobs:write")]
_METADATA: TypeAdapter[Metadata] = TypeAdapter(Metadata)
ItemLimit = Annotated[int, Query(ge=1, le=100, description="Maximum number of items on a page.")]


@router.post("", dependencies=_WRITE)
def create_fine_tuning_job(  # noqa: PLR0913 - what creating a job touches
    body: FineTuningJobCreate,
    caller: CallerDep,
    build_idempotent_request: IdempotencyDep,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    notifier: NotifierDep,
) -> FineTuningJob:
    """Create a fine-tuning job. Its model is registered, which requires `models:admin` as well."""
    check_scope(caller, "models:admin")
    return service.create_job(
        database,
        store,
        settings=settings,
        notifier=notifier,
        body=body,
        call=build_idempotent_request(body.model_dump(mode="json", exclude_unset=True)),
    )


@router.get("", dependencies=_READ)
def list_fine_tuning_jobs(
    request: Request,
    database: DatabaseDep,
    limit: ItemLimit = 20,
    after: AfterId = None,
    metadata: Annotated[
        Annotated[str, CleanText(64)] | None,
        Query(description="`null`: without metadata. `metadata[key]=value`: with this pair."),
    ] = None,
) -> FineTuningJobList:
    """List the jobs that were created through this API, the newest first."""
    pairs = _metadata_filter(request, metadata)
    start = None if after is None else ids.parse_job_id(after)
    if after is not None and start is None:
        raise InvalidAfterId(after=after, at="after")
    with database.read() as session:
        found = repository.list_jobs(session, after=start, limit=limit + 1, metadata=pairs)
        data = [views.fine_tuning_job_view(each) for each in found[:limit]]
    return FineTuningJobList(data=data, has_more=len(found) > limit)


@router.get("/{fine_tuning_job_id}", dependencies=_READ)
def get_fine_tuning_job(fine_tuning_job_id: JobIdParam, database: DatabaseDep) -> FineTuningJob:
    """Get a fine-tuning job."""
    with database.read() as session:
        return views.fine_tuning_job_view(service.get_job(session, fine_tuning_job_id))


@router.post("/{fine_tuning_job_id}/cancel", dependencies=_WRITE)
def cancel_fine_tuning_job(fine_tuning_job_id: JobIdParam, database: DatabaseDep) -> FineTuningJob:
    """Cancel a job. One that is running stops soon; a finished one stays as it is."""
    with database.write() as session:
        tuning = service.get_job(session, fine_tuning_job_id)
        jobs.cancel_job(session, job_id=tuning.job.id)
        session.refresh(tuning.job)
        return views.fine_tuning_job_view(tuning)


@router.post("/{fine_tuning_job_id}/pause", dependencies=_WRITE)
def pause_fine_tuning_job(fine_tuning_job_id: JobIdParam, database: DatabaseDep) -> FineTuningJob:
    """Pause a job: it is `queued` until it is resumed. One that is running saves a checkpoint."""
    with database.write() as session:
        tuning = service.get_job(session, fine_tuning_job_id)
        jobs.pause_job(session, job_id=tuning.job.id)
        session.refresh(tuning.job)
        return views.fine_tuning_job_view(tuning)


@router.post("/{fine_tuning_job_id}/resume", dependencies=_WRITE)
def resume_fine_tuning_job(
    fine_tuning_job_id: JobIdParam, database: DatabaseDep, notifier: NotifierDep
) -> FineTuningJob:
    """Resume a paused job from its last checkpoint. A queued or running job is left unchanged."""
    with database.write() as session:
        tuning = service.get_job(session, fine_tuning_job_id)
        jobs.resume_job(session, job_id=tuning.job.id, notifier=notifier)
        session.refresh(tuning.job)
        return views.fine_tuning_job_view(tuning)


@router.get("/{fine_tuning_job_id}/events", dependencies=_READ)
def list_fine_tuning_events(
    fine_tuning_job_id: JobIdParam,
    database: DatabaseDep,
    limit: ItemLimit = 20,
    after: AfterId = None,
) -> FineTuningEventList:
    """List the events of a job, the newest first."""
    with database.read() as session:
        job_id = service.get_job(session, fine_tuning_job_id).job.id
        before = None if after is None else ids.parse_event_seq(after, job_id)
        if after is not None and before is None:
            raise InvalidAfterId(after=after, at="after")
        events = list_newest_events(session, job_id, before=before, limit=limit + 1)
        data = [views.fine_tuning_event_view(each) for each in events[:limit]]
    return FineTuningEventList(data=data, has_more=len(events) > limit)


@router.get("/{fine_tuning_job_id}/checkpoints", dependencies=_READ)
def list_fine_tuning_checkpoints(
    fine_tuning_job_id: JobIdParam,
    database: DatabaseDep,
    limit: ItemLimit = 10,  # noqa: ARG001 - there is at most one
    after: AfterId = None,
) -> FineTuningCheckpointList:
    """List the model that a job kept, with its metrics. Before the job has succeeded, none."""
    with database.read() as session:
        tuning = service.get_job(session, fine_tuning_job_id)
        kept = ids.checkpoint_id(tuning.job.id)
        if after not in (None, kept):
            raise InvalidAfterId(after=after, at="after")
        if tuning.job.state != JobState.SUCCEEDED or after == kept:
            return FineTuningCheckpointList(data=[], first_id=None, last_id=None)
        checkpoint = views.fine_tuning_checkpoint_view(tuning)
    return FineTuningCheckpointList(data=[checkpoint], first_id=kept, last_id=kept)


def _metadata_filter(request: Request, metadata: str | None) -> dict[str, str] | None:
    """Return the pairs that jobs must have; None for jobs without metadata."""
    pairs = {
        name[len("metadata[") : -1]: value
        for name, value in request.query_params.multi_items()
        if name.startswith("metadata[") and name.endswith("]")
    }
    if metadata not in (None, "null") or (metadata and pairs):
        raise InvalidMetadataFilter(at="metadata")
    try:
        return None if metadata == "null" else _METADATA.validate_python(pairs)
    except ValidationError as error:
        raise InvalidMetadataFilter(at="metadata") from error
