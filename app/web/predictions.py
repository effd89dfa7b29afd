"""Prediction runs: a model's answers to a file, from the upload to the download."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse

from app.auth.middleware import requires
from app.http.dependencies import DatabaseDep, SettingsDep
from app.http.fields import Text
from app.http.pagination import decode, encode
from app.jobs import repository as jobs
from app.predictions import repository
from app.predictions.routes import RunId
from app.predictions.schemas import PredictionListItem, PredictionView
from app.web import choices, page
from app.web.formats import short
from app.web.page import Filled, render
from lora_core.specs.data import ENDINGS

ROWS = 50

router = APIRouter(include_in_schema=False, dependencies=[requires("predictions:read")])


class Wanted(page.Wanted):
    """Which runs are listed, and the model that the form begins with."""

    model: Annotated[Annotated[str, Text(200)] | None, Filled] = None


@router.get("/predictions")
def predictions(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    wanted: Annotated[Wanted, Query()],
) -> HTMLResponse:
    """A form that predicts a file, and the runs, the newest first."""
    with database.read() as session:
        models = choices.versions(session)
        runs, last = repository.page(session, after=decode(wanted.after), limit=ROWS)
        places = jobs.positions(session, [run.id for run in runs])
        shown = [PredictionListItem.listed(run, places.get(run.id)) for run in runs]
    return render(
        request,
        "predictions.html",
        models=models,
        chosen=wanted.model,
        runs=shown,
        name=name,
        next=encode(last),
        wanted=wanted,
        endings=ENDINGS,
        most_bytes=settings.max_upload_bytes,
    )


@router.get("/predictions/{run_id}")
def prediction(request: Request, run_id: RunId, database: DatabaseDep) -> HTMLResponse:
    """One run: how far it is, and its results to download."""
    with database.read() as session:
        run = repository.get(session, run_id)
        shown = PredictionView.of(run, jobs.positions(session, [run_id]).get(run_id))
    predicted = shown.summary.predicted if shown.summary else {}
    return render(
        request,
        "prediction.html",
        run=shown,
        name=name(shown),
        labels=sorted(predicted.items(), key=lambda each: -each[1]),
    )


def name(run: PredictionListItem) -> str:
    """As its maker named it, or the end of its id."""
    return run.name or f"run {short(run.id)}"
