"""The list of jobs."""

from dataclasses import dataclass
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.http.dependencies import DatabaseDep
from app.http.fields import CleanText
from app.http.pagination import decode_cursor, encode_cursor
from app.jobs import repository, service
from app.jobs.repository import JobFilter
from app.jobs.results import curves
from app.jobs.schemas import JobListItem
from app.jobs.tags import normalize
from app.queue.states import JobState
from app.web import display_names
from app.web.page import BlankAsNone, ListQuery, render
from lora_core.specs.method import MethodName

PAGE_SIZE = 50
# What "Run the sample job" submits. It takes a few minutes on two cores.
SAMPLE_JOB: dict[str, Any] = {
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


class JobListQuery(ListQuery):
    """The filters of the list of jobs."""

    q: Annotated[Annotated[str, CleanText(200)] | None, BlankAsNone] = None
    state: Annotated[JobState | None, BlankAsNone] = None
    method: Annotated[MethodName | None, BlankAsNone] = None
    tag: Annotated[Annotated[str, CleanText(200)] | None, BlankAsNone] = None
    cells: bool = False  # also list the trials of sweeps


@dataclass(frozen=True)
class JobRow:
    """A row of the list."""

    job: JobListItem
    loss_curve: list[float]  # training loss, scaled to 0 (lowest) to 1 (highest)

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


@router.get("/", dependencies=[require_scope("jobs:read")])
def jobs_page(
    request: Request, database: DatabaseDep, query: Annotated[JobListQuery, Query()]
) -> HTMLResponse:
    """List jobs, newest first. Without any job, show how to start one."""
    with database.read() as session:
        counts = repository.count_by_state(session, include_trials=query.cells)
        no_jobs = not (counts or repository.count_by_state(session))
        rows, next_cursor = _rows(session, query)
    return render(
        request,
        "jobs.html",
        no_jobs=no_jobs,
        sample_job=SAMPLE_JOB,
        counts=counts,
        max_count=repository.MAX_COUNTED,
        rows=rows,
        query=query,
        next=next_cursor,
        states=list(JobState),
        methods=get_args(MethodName),
    )


def _rows(session: Session, query: JobListQuery) -> tuple[list[JobRow], str | None]:
    # A partly typed tag that is not a valid tag matches no job, instead of failing.
    tag = normalize(query.tag or "") or None
    only = JobFilter(query.state, query.method, query.q, tag, query.cells)
    jobs, last = repository.list_page(
        session, after=decode_cursor(query.after), limit=PAGE_SIZE, job_filter=only
    )
    loss_curves = curves.loss_sparklines(session, jobs)
    rows = [
        JobRow(item, _min_max_scaled(loss_curves.get(item.id, [])))
        for item in service.list_items(session, jobs)
    ]
    return rows, encode_cursor(last)


def _min_max_scaled(values: list[float]) -> list[float]:
    """Scale to 0 (lowest) to 1 (highest); a constant curve becomes 0.5."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    return [(value - low) / (high - low) if high > low else 0.5 for value in values]
