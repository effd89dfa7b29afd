"""Sweeps: plan, start, watch, pause, stop, resume, retry, extend, promote, delete."""

from functools import partial
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response, status

from app.auth.middleware import requires
from app.http.dependencies import DatabaseDep, QueueDep, SettingsDep, StoreDep
from app.http.fields import id_or
from app.http.pagination import After, Limit, Page, cut, decode
from app.idempotency import service as idempotency
from app.idempotency.header import KeyedDep
from app.jobs import base_models
from app.jobs.schemas import JobView
from app.sweeps import export, planning, repository, results, service
from app.sweeps.errors import SweepNotFound
from app.sweeps.promote import promote as make_model
from app.sweeps.schemas import (
    CellView,
    SweepCreate,
    SweepExtend,
    SweepListItem,
    SweepPlan,
    SweepPromote,
    SweepView,
)
from app.sweeps.states import SweepState
from app.sweeps.tables import Sweep

router = APIRouter(prefix=SweepView.prefix, tags=["sweeps"])

READ = [requires("jobs:read")]
WRITE = [requires("jobs:write")]
PROMOTE = [requires("jobs:write"), requires("models:admin")]
FORMATS = {"csv": "text/csv", "txt": "text/plain"}
WRITERS = {"csv": export.as_csv, "txt": export.as_results_txt}

DESCRIPTION = (Sweep.job, Sweep.space, Sweep.pinned)

SweepId = Annotated[UUID, id_or(lambda text: SweepNotFound(sweep_id=text))]
Format = Annotated[
    Literal["csv", "txt"], Query(description="txt: the results.txt of LoRA from scratch.")
]


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=WRITE,
    responses={200: {"model": SweepPlan, "description": "The plan; nothing was stored."}},
)
def create(  # noqa: PLR0913 - what a start touches
    body: SweepCreate,
    response: Response,
    keyed: KeyedDep,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    queue: QueueDep,
    dry_run: Annotated[bool, Query(description="Answer the plan alone.")] = False,
) -> SweepView | SweepPlan:
    """Start a sweep: one job in many settings. Or say what it would take."""
    call = keyed.call(body.model_dump(mode="json", exclude_unset=True))
    if not dry_run:
        with database.read() as session:
            idempotency.recall(session, call)
    find = partial(base_models.find, database=database, store=store, settings=settings)
    laid = planning.lay_out(body, find)
    if dry_run:
        response.status_code = status.HTTP_200_OK
        with database.read() as session:
            return planning.plan(session, body=body, laid=laid, settings=settings)
    sweep = service.start(database, body=body, laid=laid, settings=settings, queue=queue, call=call)
    response.headers["Location"] = sweep.location
    return sweep


@router.get("", dependencies=READ)
def read_page(
    database: DatabaseDep, limit: Limit = 20, after: After = None, state: SweepState | None = None
) -> Page[SweepListItem]:
    """Sweeps, the newest first, without their descriptions and verdicts."""
    with database.read() as session:
        sweeps = repository.page(
            session, after=decode(after), limit=limit + 1, state=state, without=DESCRIPTION
        )
        shown, following = cut(sweeps, limit)
        return Page(data=service.list_items(session, shown), next=following)


@router.get("/{sweep_id}", dependencies=READ)
def read(sweep_id: SweepId, database: DatabaseDep) -> SweepView:
    """One sweep, and who leads."""
    with database.read() as session:
        sweep = repository.get(session, sweep_id)
        verdict = results.verdict_view(results.board(session, sweep))
        return service.view_of(session, sweep, verdict=verdict)


@router.get("/{sweep_id}/cells", dependencies=READ)
def read_cells(sweep_id: SweepId, database: DatabaseDep) -> list[CellView]:
    """Every cell with its figures, by number."""
    with database.read() as session:
        sweep = repository.get(session, sweep_id)
        reused = repository.reused(session, sweep_id)
        return results.cell_views(results.board(session, sweep), reused)


@router.get(
    "/{sweep_id}/results",
    dependencies=READ,
    response_class=Response,
    responses={200: {"content": {kind: {} for kind in FORMATS.values()}}},
)
def read_results(sweep_id: SweepId, database: DatabaseDep, format: Format = "csv") -> Response:
    """The cells as a file, also while the sweep runs."""
    with database.read() as session:
        board = results.board(session, repository.get(session, sweep_id))
    return Response(
        WRITERS[format](board),
        media_type=FORMATS[format],
        headers={"Content-Disposition": f'attachment; filename="{sweep_id}.{format}"'},
    )


@router.post("/{sweep_id}/pause", dependencies=WRITE)
def pause(sweep_id: SweepId, database: DatabaseDep) -> SweepView:
    """Give out no more cells; those that run go on to their ends."""
    with database.write() as session:
        service.pause(session, sweep_id=sweep_id)
    return read(sweep_id, database)


@router.post("/{sweep_id}/stop", dependencies=WRITE)
def stop(sweep_id: SweepId, database: DatabaseDep) -> SweepView:
    """Give out no more cells, and stop those that run; they can be gone on with."""
    with database.write() as session:
        service.stop(session, sweep_id=sweep_id)
    return read(sweep_id, database)


@router.post("/{sweep_id}/resume", dependencies=WRITE)
def resume(
    sweep_id: SweepId, database: DatabaseDep, settings: SettingsDep, queue: QueueDep
) -> SweepView:
    """Go on after a pause or a stop."""
    with database.write() as session:
        service.resume(session, sweep_id=sweep_id, settings=settings, queue=queue)
    return read(sweep_id, database)


@router.post("/{sweep_id}/retry", dependencies=WRITE)
def retry(
    sweep_id: SweepId, database: DatabaseDep, settings: SettingsDep, queue: QueueDep
) -> SweepView:
    """Run failed and cancelled cells again, and no others."""
    with database.write() as session:
        service.retry(session, sweep_id=sweep_id, settings=settings, queue=queue)
    return read(sweep_id, database)


@router.post("/{sweep_id}/extend", dependencies=WRITE)
def extend(
    sweep_id: SweepId,
    body: SweepExtend,
    database: DatabaseDep,
    store: StoreDep,
    settings: SettingsDep,
    queue: QueueDep,
) -> SweepView:
    """Add cells, and run them."""
    find = partial(base_models.find, database=database, store=store, settings=settings)
    laid = service.more(database, sweep_id=sweep_id, body=body, find=find)
    service.extend(database, sweep_id=sweep_id, laid=laid, settings=settings, queue=queue)
    return read(sweep_id, database)


@router.post("/{sweep_id}/promote", status_code=status.HTTP_202_ACCEPTED, dependencies=PROMOTE)
def promote(  # noqa: PLR0913 - what a submit touches
    sweep_id: SweepId,
    body: SweepPromote,
    response: Response,
    keyed: KeyedDep,
    settings: SettingsDep,
    database: DatabaseDep,
    queue: QueueDep,
) -> JobView:
    """Make the model of the winner, or of another cell, and put it into production.

    The job that does it goes on from the checkpoint of the cell; its last transaction moves the
    alias.
    """
    call = keyed.call(body.model_dump(mode="json"))
    with database.write() as session:
        job = make_model(
            session, sweep_id=sweep_id, body=body, settings=settings, queue=queue, call=call
        )
    response.headers["Location"] = job.location
    return job


@router.delete("/{sweep_id}", status_code=status.HTTP_204_NO_CONTENT, dependencies=WRITE)
def delete(sweep_id: SweepId, database: DatabaseDep, store: StoreDep) -> None:
    """Delete a sweep that does not run, and the jobs of its cells that no other one uses."""
    service.delete(database, sweep_id=sweep_id, store=store)
