"""The list of jobs."""

from dataclasses import dataclass
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse

from app.auth.middleware import requires
from app.http.dependencies import DatabaseDep
from app.http.fields import Text
from app.http.pagination import decode, encode
from app.jobs import repository, service
from app.jobs.repository import Filter
from app.jobs.results import curves
from app.jobs.schemas import JobListItem
from app.jobs.tags import spelled
from app.queue.states import JobState
from app.web import display_names, page
from app.web.page import Filled, render
from lora_core.specs.method import MethodName

ROWS = 50
# What the sample button sends: some minutes on two cores.
SAMPLE: dict[str, Any] = {
    "name": "sample",
    "method": {"type": "lora"},
    "data": {
        "source": "rotten-tomatoes",
        "train_size": 4000,
        "validation_size": 1000,
        "test_size": 2000,
    },
    "register_as": "sentiment",
}

router = APIRouter(include_in_schema=False)


class Wanted(page.Wanted):
    """What the list is narrowed to."""

    q: Annotated[Annotated[str, Text(200)] | None, Filled] = None
    state: Annotated[JobState | None, Filled] = None
    method: Annotated[MethodName | None, Filled] = None
    tag: Annotated[Annotated[str, Text(200)] | None, Filled] = None
    cells: bool = False


@dataclass(frozen=True)
class Row:
    """A job as the list shows it."""

    job: JobListItem
    curve: list[float]  # of the training loss, between 0 and 1

    @property
    def name(self) -> str:
        return display_names.name(self.job)

    @property
    def data(self) -> str:
        return display_names.data(self.job.spec)

    @property
    def method(self) -> str:
        return display_names.method(self.job.spec)

    @property
    def seconds(self) -> float | None:
        return display_names.seconds(self.job)


@router.get("/", dependencies=[requires("jobs:read")])
def jobs(
    request: Request, database: DatabaseDep, wanted: Annotated[Wanted, Query()]
) -> HTMLResponse:
    """Jobs, the newest first; at the first visit, what to do."""
    with database.read() as session:
        counts = repository.counts(session, cells=wanted.cells)
        nothing = not (counts or repository.counts(session))
        rows, following = _rows(session, wanted)
    return render(
        request,
        "jobs.html",
        nothing=nothing,
        sample=SAMPLE,
        counts=counts,
        counted=repository.COUNTED,
        rows=rows,
        wanted=wanted,
        next=following,
        states=list(JobState),
        methods=get_args(MethodName),
    )


def _rows(session: Session, wanted: Wanted) -> tuple[list[Row], str | None]:
    tag = spelled(wanted.tag or "") or None  # also one that no job can have, while it is typed
    only = Filter(wanted.state, wanted.method, wanted.q, tag, wanted.cells)
    shown, last = repository.page(session, after=decode(wanted.after), limit=ROWS, only=only)
    drawn = curves.small_curves(session, shown)
    rows = [
        Row(item, _scaled(drawn.get(item.id, []))) for item in service.list_items(session, shown)
    ]
    return rows, encode(last)


def _scaled(values: list[float]) -> list[float]:
    """From the lowest, 0, to the highest, 1."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    return [(value - low) / (high - low) if high > low else 0.5 for value in values]
