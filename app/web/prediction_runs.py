"""Prediction runs: classify every row of a file, from upload to download."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.http.dependencies import CallerDep, DatabaseDep, SettingsDep
from app.http.fields import CleanText
from app.http.pagination import decode_cursor, encode_cursor
from app.jobs import repository as jobs
from app.predictions import repository
from app.predictions.routes import RunId
from app.predictions.schemas import PredictionRunListItem
from app.predictions.views import run_list_item, run_view
from app.web import form_options
from app.web.formats import id_suffix
from app.web.page import BlankAsNone, ListPageQuery, render_template
from lora_core.specs.data import SUFFIXES

PAGE_SIZE = 50

router = APIRouter(include_in_schema=False, dependencies=[require_scope("predictions:read")])


class PredictionRunListQuery(ListPageQuery):
    """The query string of the list; `model` is preselected in the form."""

    model: Annotated[Annotated[str, CleanText(200)] | None, BlankAsNone] = None


@router.get("/predictions")
def prediction_runs_page(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    caller: CallerDep,
    query: Annotated[PredictionRunListQuery, Query()],
) -> HTMLResponse:
    """Show the form that starts a run, and the runs, newest first."""
    with database.read() as session:
        options = form_options.model_options(session, caller, query.model)
        runs, last = repository.list_runs(
            session, after=decode_cursor(query.after), limit=PAGE_SIZE
        )
        positions = jobs.queue_positions(session, [run.id for run in runs])
        items = [run_list_item(run, positions.get(run.id)) for run in runs]
    return render_template(
        request,
        "predictions.html",
        model_options=options,
        lists_models="models:read" in caller.scopes,
        selected=query.model,
        runs=items,
        prediction_run_name=prediction_run_name,
        next=encode_cursor(last),
        query=query,
        file_extensions=SUFFIXES,
        max_upload_bytes=settings.max_upload_bytes,
    )


@router.get("/predictions/{run_id}")
def prediction_run_page(request: Request, run_id: RunId, database: DatabaseDep) -> HTMLResponse:
    """Show a run: its progress, and its results to download."""
    with database.read() as session:
        row = repository.get_run(session, run_id)
        run = run_view(row, jobs.queue_positions(session, [run_id]).get(run_id))
    predicted = run.summary.predicted if run.summary else {}
    return render_template(
        request,
        "prediction.html",
        run=run,
        name=prediction_run_name(run),
        label_counts=sorted(predicted.items(), key=lambda item: -item[1]),
    )


def prediction_run_name(run: PredictionRunListItem) -> str:
    """Return the run's name, or a name made from the end of its id."""
    return run.name or f"run {id_suffix(run.id)}"
