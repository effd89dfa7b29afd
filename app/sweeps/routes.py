"""Routes of sweeps: plan, start, list, pause, stop, resume, retry, extend, promote, delete."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response, status

from app.auth.middleware import require_scope
from app.http.dependencies import DatabaseDep, NotifierDep, SettingsDep, StoreDep
from app.http.fields import file_response_openapi, uuid_or_not_found_validator
from app.http.pagination import Page, PageCursor, PageLimit, decode_cursor, split_page
from app.idempotency import service as idempotency
from app.idempotency.header import IdempotencyDep
from app.jobs.pretrained_bases import build_base_resolver
from app.jobs.schemas import JobView
from app.sweeps import planning, repository, results, service
from app.sweeps.errors import SweepNotFound
from app.sweeps.schemas import (
    SweepCreate,
    SweepExtend,
    SweepListItem,
    SweepPlan,
    SweepPromote,
    SweepView,
    TrialView,
)
from app.sweeps.states import SweepState
from app.sweeps.tables import Sweep
from app.sweeps.views import sweep_list_items, sweep_result_view, sweep_view, trial_views

router = APIRouter(prefix=SweepView.prefix, tags=["sweeps"])

REQUIRE_READ = [require_scope("jobs:read")]
REQUIRE_WRITE = [require_scope("jobs:write")]
REQUIRE_PROMOTE = [require_scope("jobs:write"), require_scope("models:admin")]
MEDIA_TYPES = {"csv": "text/csv", "txt": "text/plain"}
_EXPORTERS = {"csv": results.to_csv, "txt": results.to_lora_results_txt}

_DEFERRED_COLUMNS = (Sweep.job, Sweep.space, Sweep.resolved_inputs)

SweepId = Annotated[UUID, uuid_or_not_found_validator(lambda text: SweepNotFound(sweep_id=text))]
SweepResultsFormat = Annotated[
    Literal["csv", "txt"], Query(description="txt: the results.txt format of LoRA from scratch.")
]


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=REQUIRE_WRITE,
    response_model=SweepView,
    responses={200: {"model": SweepPlan, "description": "Plan of a dry run; nothing was stored."}},
)
def create_sweep(  # noqa: PLR0913 - FastAPI dependencies
    body: SweepCreate,
    response: Response,
    build_idempotent_request: IdempotencyDep,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    notifier: NotifierDep,
    dry_run: Annotated[bool, Query(description="Only return the plan.")] = False,
) -> SweepView | Response:
    """Start a sweep, or with `dry_run` return its plan."""
    call = build_idempotent_request(body.model_dump(mode="json", exclude_unset=True))
    if not dry_run:
        with database.read() as session:
            idempotency.raise_if_replayed(session, call)
    find_base = build_base_resolver(database, store, settings)
    plan = planning.plan_trials(body, find_base)
    if dry_run:
        with database.read() as session:
            outline = planning.preview_sweep(session, body=body, plan=plan, settings=settings)
        return Response(outline.model_dump_json(), media_type="application/json")
    sweep = service.create_sweep(
        database, body=body, plan=plan, settings=settings, notifier=notifier, call=call
    )
    response.headers["Location"] = sweep.location
    return sweep


@router.get("", dependencies=REQUIRE_READ)
def list_sweeps(
    database: DatabaseDep,
    limit: PageLimit = 20,
    after: PageCursor = None,
    state: Annotated[SweepState | None, Query(description="Only sweeps in this state.")] = None,
) -> Page[SweepListItem]:
    """List sweeps, the newest first, without their job descriptions and winners."""
    with database.read() as session:
        sweeps = repository.list_sweeps(
            session,
            after=decode_cursor(after),
            limit=limit + 1,
            state=state,
            without=_DEFERRED_COLUMNS,
        )
        shown, following = split_page(sweeps, limit)
        return Page(data=sweep_list_items(session, shown), next=following)


@router.get("/{sweep_id}", dependencies=REQUIRE_READ)
def get_sweep(sweep_id: SweepId, database: DatabaseDep) -> SweepView:
    """Get a sweep and its winner so far."""
    with database.read() as session:
        sweep = repository.get_sweep(session, sweep_id)
        result = sweep_result_view(results.read_cached_snapshot(session, sweep))
        return sweep_view(session, sweep, result=result)


@router.get("/{sweep_id}/trials", dependencies=REQUIRE_READ)
def list_trials(sweep_id: SweepId, database: DatabaseDep) -> list[TrialView]:
    """List all trials of a sweep with their metrics, by number."""
    with database.read() as session:
        sweep = repository.get_sweep(session, sweep_id)
        reused_flags = repository.list_reused_flags(session, sweep_id)
        return trial_views(results.read_cached_snapshot(session, sweep), reused_flags)


@router.get(
    "/{sweep_id}/results",
    dependencies=REQUIRE_READ,
    response_class=Response,
    responses=file_response_openapi(*MEDIA_TYPES.values()),
)
def download_sweep_results(
    sweep_id: SweepId, database: DatabaseDep, format: SweepResultsFormat = "csv"
) -> Response:
    """Download the trials as a file, also while the sweep runs."""
    with database.read() as session:
        snapshot = results.read_cached_snapshot(session, repository.get_sweep(session, sweep_id))
    return Response(
        _EXPORTERS[format](snapshot),
        media_type=MEDIA_TYPES[format],
        headers={"Content-Disposition": f'attachment; filename="{sweep_id}.{format}"'},
    )


@router.post("/{sweep_id}/pause", dependencies=REQUIRE_WRITE)
def pause_sweep(sweep_id: SweepId, database: DatabaseDep) -> SweepView:
    """Pause a sweep: no more trials start, and running trials continue to their end."""
    with database.write() as session:
        service.pause_sweep(session, sweep_id=sweep_id)
    return get_sweep(sweep_id, database)


@router.post("/{sweep_id}/stop", dependencies=REQUIRE_WRITE)
def stop_sweep(sweep_id: SweepId, database: DatabaseDep) -> SweepView:
    """Stop a sweep and its running trials, which can be resumed from their checkpoints."""
    with database.write() as session:
        service.stop_sweep(session, sweep_id=sweep_id)
    return get_sweep(sweep_id, database)


@router.post("/{sweep_id}/resume", dependencies=REQUIRE_WRITE)
def resume_sweep(
    sweep_id: SweepId, database: DatabaseDep, settings: SettingsDep, notifier: NotifierDep
) -> SweepView:
    """Resume a paused or stopped sweep."""
    service.resume_sweep(database, sweep_id=sweep_id, settings=settings, notifier=notifier)
    return get_sweep(sweep_id, database)


@router.post("/{sweep_id}/retry", dependencies=REQUIRE_WRITE)
def retry_sweep(
    sweep_id: SweepId, database: DatabaseDep, settings: SettingsDep, notifier: NotifierDep
) -> SweepView:
    """Run only the failed and cancelled trials again. Resume a paused or stopped sweep first."""
    service.retry_sweep(database, sweep_id=sweep_id, settings=settings, notifier=notifier)
    return get_sweep(sweep_id, database)


@router.post("/{sweep_id}/extend", dependencies=REQUIRE_WRITE)
def extend_sweep(
    sweep_id: SweepId,
    body: SweepExtend,
    database: DatabaseDep,
    store: StoreDep,
    settings: SettingsDep,
    notifier: NotifierDep,
) -> SweepView:
    """Add trials to a sweep, and run them."""
    find_base = build_base_resolver(database, store, settings)
    plan = service.plan_sweep_extension(database, sweep_id=sweep_id, body=body, find_base=find_base)
    service.extend_sweep(
        database, sweep_id=sweep_id, plan=plan, settings=settings, notifier=notifier
    )
    return get_sweep(sweep_id, database)


@router.post(
    "/{sweep_id}/promote", status_code=status.HTTP_202_ACCEPTED, dependencies=REQUIRE_PROMOTE
)
def promote_trial(  # noqa: PLR0913 - FastAPI dependencies
    sweep_id: SweepId,
    body: SweepPromote,
    response: Response,
    build_idempotent_request: IdempotencyDep,
    settings: SettingsDep,
    database: DatabaseDep,
    notifier: NotifierDep,
) -> JobView:
    """Make a model version from the winner or another trial, and promote it.

    The job resumes from the checkpoint of the trial. Its last transaction moves the alias.
    """
    call = build_idempotent_request(body.model_dump(mode="json"))
    with database.write() as session:
        job = service.enqueue_trial_registration(
            session, sweep_id=sweep_id, body=body, settings=settings, notifier=notifier, call=call
        )
    response.headers["Location"] = job.location
    return job


@router.delete("/{sweep_id}", status_code=status.HTTP_204_NO_CONTENT, dependencies=REQUIRE_WRITE)
def delete_sweep(sweep_id: SweepId, database: DatabaseDep, store: StoreDep) -> None:
    """Delete a sweep that is not running, and the jobs of its trials that no other sweep uses."""
    service.delete_sweep(database, sweep_id=sweep_id, store=store)
