"""Routes of prediction runs: create, list, cancel, download the results, delete."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response, status
from fastapi.responses import StreamingResponse

from app.auth.middleware import require_scope
from app.http.dependencies import DatabaseDep, NotifierDep, SettingsDep, StoreDep
from app.http.fields import file_response_openapi, uuid_or_not_found_validator
from app.http.pagination import Page, PageCursor, PageLimit, decode_cursor, encode_cursor
from app.idempotency import service as idempotency
from app.idempotency.header import IdempotencyDep
from app.jobs import repository as jobs
from app.predictions import repository, service
from app.predictions.errors import PredictionRunNotFound
from app.predictions.schemas import PredictionRunCreate, PredictionRunListItem, PredictionRunView
from app.predictions.service import (
    EXTENSIONS,
    MEDIA_TYPES,
    ResultsFormat,
    stream_results_as_csv,
    stream_results_as_jsonl,
)
from app.predictions.views import run_list_item, run_view
from app.queue.enums import JobState
from lora_core.specs.predict import RESULTS_FILE

router = APIRouter(prefix=PredictionRunView.prefix, tags=["predictions"])

REQUIRE_READ = [require_scope("predictions:read")]
REQUIRE_WRITE = [require_scope("predictions:write")]

RunId = Annotated[
    UUID, uuid_or_not_found_validator(lambda text: PredictionRunNotFound(run_id=text))
]


@router.post("", status_code=status.HTTP_202_ACCEPTED, dependencies=REQUIRE_WRITE)
def create_prediction_run(
    body: PredictionRunCreate,
    response: Response,
    build_idempotent_request: IdempotencyDep,
    settings: SettingsDep,
    database: DatabaseDep,
    notifier: NotifierDep,
) -> PredictionRunView:
    """Create a prediction run: predictions for every row of an uploaded file."""
    call = build_idempotent_request(body.model_dump(mode="json", exclude_unset=True))
    with database.read() as session:
        idempotency.raise_if_replayed(session, call)
    with database.write() as session:
        run = service.create_run(
            session, body=body, settings=settings, notifier=notifier, call=call
        )
    response.headers["Location"] = run.location
    return run


@router.get("", dependencies=REQUIRE_READ)
def list_prediction_runs(
    database: DatabaseDep,
    limit: PageLimit = 20,
    after: PageCursor = None,
    state: Annotated[JobState | None, Query(description="Only runs in this state.")] = None,
) -> Page[PredictionRunListItem]:
    """List prediction runs, the newest first, without their summaries."""
    with database.read() as session:
        runs, next_after = repository.list_runs(
            session, after=decode_cursor(after), limit=limit, state=state
        )
        positions = jobs.queue_positions(session, [run.id for run in runs])
    data = [run_list_item(run, positions.get(run.id)) for run in runs]
    return Page(data=data, next=encode_cursor(next_after))


@router.get("/{run_id}", dependencies=REQUIRE_READ)
def get_prediction_run(run_id: RunId, database: DatabaseDep) -> PredictionRunView:
    """Get a prediction run."""
    with database.read() as session:
        run = repository.get_run(session, run_id)
        return run_view(run, jobs.queue_positions(session, [run_id]).get(run_id))


@router.post(
    "/{run_id}/cancel",
    dependencies=REQUIRE_WRITE,
    responses={
        202: {
            "model": PredictionRunView,
            "description": "The run is running; a stop was requested.",
        }
    },
)
def cancel_prediction_run(
    run_id: RunId, response: Response, database: DatabaseDep
) -> PredictionRunView:
    """Cancel a prediction run. A finished run stays as it is."""
    with database.write() as session:
        run = service.cancel_run(session, run_id=run_id)
    if run.state == JobState.RUNNING:
        response.status_code = status.HTTP_202_ACCEPTED
    return run_view(run, None)


@router.get(
    "/{run_id}/results",
    dependencies=REQUIRE_READ,
    response_class=StreamingResponse,
    responses=file_response_openapi("application/jsonl", "text/csv", "application/json"),
)
def download_predictions(
    run_id: RunId,
    database: DatabaseDep,
    store: StoreDep,
    format: Annotated[ResultsFormat, Query(description="Format of the file.")] = "jsonl",
    spreadsheet: Annotated[
        bool,
        Query(description="In CSV, put an apostrophe before cells that a spreadsheet would run."),
    ] = False,
) -> StreamingResponse:
    """Download the rows of the file, in order, with what is predicted and all scores.

    That is `predicted_label` and `predicted_score`, or `predicted_labels`, with the score of each
    label; or `predicted_value`, `predicted_low` and `predicted_high`. For Label Studio, each row is
    a task whose predictions are the labels.
    """
    results = service.get_verified_results(database, store, run_id=run_id)
    project = (
        service.build_label_studio_project(results.manifest, results.spec, run_id=run_id)
        if format == "label-studio"
        else None
    )
    file = (results.directory / RESULTS_FILE).open(
        "rb"
    )  # an open file stays readable even if it is deleted
    if project is not None:
        chunks = project.stream_tasks_as_json(file)
    elif format == "jsonl":
        chunks = stream_results_as_jsonl(file)
    else:
        chunks = stream_results_as_csv(file, results.manifest, spreadsheet=spreadsheet)
    return StreamingResponse(
        chunks,
        media_type=MEDIA_TYPES[format],
        headers={"Content-Disposition": f'attachment; filename="{run_id}.{EXTENSIONS[format]}"'},
    )


@router.get(
    "/{run_id}/labeling-config",
    dependencies=REQUIRE_READ,
    response_class=Response,
    responses=file_response_openapi("text/xml"),
)
def get_label_studio_config(run_id: RunId, database: DatabaseDep, store: StoreDep) -> Response:
    """Get the labeling configuration of a Label Studio project for the results."""
    project = service.get_label_studio_project(database, store, run_id=run_id)
    return Response(project.labeling_config(), media_type="text/xml")


@router.delete("/{run_id}", status_code=status.HTTP_204_NO_CONTENT, dependencies=REQUIRE_WRITE)
def delete_prediction_run(run_id: RunId, database: DatabaseDep, store: StoreDep) -> None:
    """Delete a finished prediction run and its results."""
    with database.write() as session:
        service.delete_run(session, run_id=run_id, store=store)
