"""The paired test of two jobs, in plain words."""

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse

from app.auth.middleware import requires
from app.charts.fields import text
from app.http.dependencies import DatabaseDep
from app.jobs import repository
from app.jobs.repository import Filter
from app.jobs.results import comparison
from app.jobs.results.comparison import CHANCE, ComparedJob, PartView
from app.jobs.results.misclassified import Part
from app.jobs.routes import MOST_COMPARED, JobId
from app.jobs.schemas import JobView
from app.web import display_names
from app.web.page import render


def sentence(name: str, first: str, on: PartView | None, part: Part) -> str:
    """How a job did beside the first one, how sure that is, or why it cannot be told."""
    if on is None:
        return f"{name} keeps no answers to {part} texts."
    if on.unpaired == "first_has_none":
        return f"{first} keeps no answers to {part} texts, so there is nothing to test against."
    pair = on.against_first
    if pair is None:
        return (
            f"{name} and {first} answered other {part} texts, so no text can be paired. Their "
            "intervals still tell how sure each accuracy is."
        )
    points = 100 * pair.difference
    more = f"{abs(points):.1f} points {'better' if points > 0 else 'worse'} than"
    if points == 0:
        more = "exactly as good as"
    return (
        f"{name} is {more} {first} on {on.texts:,} {part} texts (95 % interval "
        f"{signed(100 * pair.low)} to {signed(100 * pair.high)}). It alone is right on "
        f"{pair.only_this:,} of them, {first} alone on {pair.only_first:,}. {_verdict(pair.p)}"
    )


def _verdict(p: float) -> str:
    """What the exact McNemar test says."""
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    if p < CHANCE:
        return f"Chance hardly explains that ({shown})."
    return f"Chance alone could explain that ({shown}): they cannot be told apart."


def signed(points: float) -> str:
    """`+1.5`; what is zero when rounded has no minus."""
    return f"{round(points, 1) + 0.0:+.1f}".replace("-", "\N{MINUS SIGN}")


# MERGED app.web.compare
# Jobs side by side: curves over one another, accuracy, the paired test, settings that differ.

OFFERED = 50  # of the newest jobs, to be added

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Column:
    """One of the jobs."""

    job: JobView
    name: str
    on: PartView | None  # how it answered the part that is looked at
    found: str | None  # beside the first, in words
    without: str  # addresses: of the others, and with this one first
    as_first: str

    @property
    def method(self) -> str:
        return display_names.method(self.job.spec)

    @property
    def difference(self) -> str | None:
        """Its accuracy less that of the first, in points."""
        pair = self.on and self.on.against_first
        return signed(100 * pair.difference) if pair else None


@router.get("/compare", dependencies=[requires("jobs:read")])
def compare(
    request: Request,
    database: DatabaseDep,
    job: Annotated[list[JobId], Query(max_length=MOST_COMPARED)] = [],  # noqa: B006
    part: Part = "test",
) -> HTMLResponse:
    """Those jobs; without any, what to do."""
    with database.read() as session:
        found = comparison.read(session, job) if job else None
        newest = repository.page(session, after=None, limit=OFFERED, only=Filter())
        offered = [each for each in newest.jobs if each.id not in job]
    jobs = found.jobs if found else []
    columns = [_column(each, jobs, job, part) for each in jobs]
    return render(
        request,
        "compare.html",
        columns=columns,
        part=part,
        query=_query(job),
        settings={
            name: [text(value) for value in values]
            for name, values in (found.settings if found else {}).items()
        },
        shown=[_shown(column) for column in columns],
        offered=[
            (each, display_names.name(each), display_names.method(each.spec)) for each in offered
        ],
        room=MOST_COMPARED - len(job),
    )


def _column(
    compared: ComparedJob, jobs: list[ComparedJob], order: list[UUID], part: Part
) -> Column:
    job, first = compared.job, jobs[0]
    rest = [each for each in order if each != job.id]
    on: PartView | None = getattr(compared, part)
    return Column(
        job=job,
        name=display_names.name(job),
        on=on,
        found=None
        if compared is first
        else sentence(display_names.name(job), display_names.name(first.job), on, part),
        without=_query(rest),
        as_first=_query([job.id, *rest]),
    )


def _shown(column: Column) -> dict[str, Any]:
    """What the pictures are drawn from."""
    on = column.on
    return {
        "id": str(column.job.id),
        "name": column.name,
        "ended": column.job.state.final,
        "accuracy": on and [on.accuracy, on.low, on.high],
    }


def _query(jobs: list[UUID]) -> str:
    return urlencode([("job", str(each)) for each in jobs])
