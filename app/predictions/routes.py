"""Prediction runs: create, watch, cancel, read the results, delete."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response, status
from fastapi.responses import StreamingResponse

from app.auth.middleware import requires
from app.http.dependencies import DatabaseDep, QueueDep, SettingsDep, StoreDep
from app.http.fields import id_or
from app.http.pagination import After, Limit, Page, decode, encode
from app.idempotency import service as idempotency
from app.idempotency.header import KeyedDep
from app.jobs import repository as jobs
from app.predictions import repository, service
from app.predictions.errors import PredictionNotFound
from app.predictions.results import MEDIA_TYPES, Format, as_csv, as_lines
from app.predictions.schemas import PredictionCreate, PredictionListItem, PredictionView
from app.queue.states import JobState
from lora_core.specs.predict import RESULTS

router = APIRouter(prefix=PredictionView.prefix, tags=["predictions"])

READ = [requires("predictions:read")]
WRITE = [requires("predictions:write")]

RunId = Annotated[UUID, id_or(lambda text: PredictionNotFound(run_id=text))]


@router.post("", status_code=status.HTTP_202_ACCEPTED, dependencies=WRITE)
def create(
    body: PredictionCreate,
    response: Response,
    keyed: KeyedDep,
    settings: SettingsDep,
    database: DatabaseDep,
    queue: QueueDep,
) -> PredictionView:
    """Queue a run: the model's answer to every row of an uploaded file."""
    call = keyed.call(body.model_dump(mode="json", exclude_unset=True))
    with database.read() as session:
        idempotency.recall(session, call)
    with database.write() as session:
        run = service.submit(session, body=body, settings=settings, queue=queue, call=call)
    response.headers["Location"] = run.location
    return run


@router.get("", dependencies=READ)
def read_page(
    database: DatabaseDep, limit: Limit = 20, after: After = None, state: JobState | None = None
) -> Page[PredictionListItem]:
    """Prediction runs, the newest first, without what came out."""
    with database.read() as session:
        runs, last = repository.page(session, after=decode(after), limit=limit, state=state)
        places = jobs.positions(session, [run.id for run in runs])
    data = [PredictionListItem.listed(run, places.get(run.id)) for run in runs]
    return Page(data=data, next=encode(last))


@router.get("/{run_id}", dependencies=READ)
def read(run_id: RunId, database: DatabaseDep) -> PredictionView:
    """One prediction run."""
    with database.read() as session:
        run = repository.get(session, run_id)
        return PredictionView.of(run, jobs.positions(session, [run_id]).get(run_id))


@router.post(
    "/{run_id}/cancel",
    dependencies=WRITE,
    responses={202: {"model": PredictionView, "description": "It runs and was asked to stop."}},
)
def cancel(run_id: RunId, response: Response, database: DatabaseDep) -> PredictionView:
    """Cancel a run. One that has ended stays as it is."""
    with database.write() as session:
        run = service.cancel(session, run_id=run_id)
    if run.state == JobState.RUNNING:
        response.status_code = status.HTTP_202_ACCEPTED
    return PredictionView.of(run, None)


@router.get(
    "/{run_id}/results",
    dependencies=READ,
    response_class=StreamingResponse,
    responses={200: {"content": {kind: {} for kind in ("application/jsonl", "text/csv")}}},
)
def read_results(
    run_id: RunId,
    database: DatabaseDep,
    store: StoreDep,
    format: Format = "jsonl",
    spreadsheet: Annotated[
        bool,
        Query(description="In CSV, put an apostrophe before cells that would be run as formulas."),
    ] = False,
) -> StreamingResponse:
    """The rows of the file with label, score, and the score of every label; in its order."""
    directory, facts = service.results(database, store, run_id=run_id)
    file = (directory / RESULTS).open("rb")  # what is open is read to its end, though it be deleted
    if format == "jsonl":
        pieces = as_lines(file)
    else:
        pieces = as_csv(
            file, columns=facts["columns"], labels=facts["labels"], spreadsheet=spreadsheet
        )
    return StreamingResponse(
        pieces,
        media_type=MEDIA_TYPES[format],
        headers={"Content-Disposition": f'attachment; filename="{run_id}.{format}"'},
    )


@router.delete("/{run_id}", status_code=status.HTTP_204_NO_CONTENT, dependencies=WRITE)
def delete(run_id: RunId, database: DatabaseDep, store: StoreDep) -> None:
    """Delete a run that has ended, and its results."""
    with database.write() as session:
        service.delete(session, run_id=run_id, store=store)
