"""Job comparison: curves, accuracy, the paired test in words, and settings that differ."""

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.charts.fields import display_value
from app.http.dependencies import DatabaseDep
from app.jobs import repository
from app.jobs.repository import JobFilter
from app.jobs.results import comparison
from app.jobs.results.comparison import SIGNIFICANCE_LEVEL
from app.jobs.results.misclassified import EvaluatedSplit
from app.jobs.routes import MAX_COMPARED, JobId
from app.jobs.schemas import ComparedJob, JobView, SplitResultView
from app.web import formats
from app.web.page import render

MAX_ADDABLE_JOBS = 50  # newest jobs offered for comparison

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class JobComparisonRow:
    """A compared job. The first one is the reference of all tests."""

    job: JobView
    name: str
    evaluation: SplitResultView | None  # its result on the selected split
    summary: str | None  # the paired test against the first job, in words
    query_without: str  # query string of the comparison without this job
    query_as_first: str  # query string of the comparison with this job as the reference

    @property
    def method(self) -> str:
        return formats.method_name(self.job.spec)

    @property
    def difference(self) -> str | None:
        """Its accuracy minus the first job's, in percentage points."""
        pair = self.evaluation and self.evaluation.against_first
        return format_points(100 * pair.difference) if pair else None


@router.get("/compare", dependencies=[require_scope("jobs:read")])
def compare_page(
    request: Request,
    database: DatabaseDep,
    job: Annotated[list[JobId], Query(max_length=MAX_COMPARED)] = [],  # noqa: B006
    part: EvaluatedSplit = "test",
) -> HTMLResponse:
    """Compare jobs on the split `part`. Without jobs, offer a choice."""
    with database.read() as session:
        found = comparison.compare_jobs(session, job) if job else None
        newest = repository.list_jobs(
            session, after=None, limit=MAX_ADDABLE_JOBS, job_filter=JobFilter()
        )
        addable = [each for each in newest.jobs if each.id not in job]
    jobs = found.jobs if found else []
    rows = [_row(each, jobs, job, part) for each in jobs]
    return render(
        request,
        "compare.html",
        rows=rows,
        split=part,
        jobs_query=_query(job),
        settings={
            name: [display_value(value) for value in values]
            for name, values in (found.settings if found else {}).items()
        },
        chart_data=[_chart_data(row) for row in rows],
        addable_jobs=[
            (each, formats.job_name(each), formats.method_name(each.spec)) for each in addable
        ],
        can_add=len(job) < MAX_COMPARED,
    )


def _row(
    compared: ComparedJob, jobs: list[ComparedJob], order: list[UUID], split: EvaluatedSplit
) -> JobComparisonRow:
    job, first = compared.job, jobs[0]
    others = [job_id for job_id in order if job_id != job.id]
    evaluation: SplitResultView | None = getattr(compared, split)
    return JobComparisonRow(
        job=job,
        name=formats.job_name(job),
        evaluation=evaluation,
        summary=None
        if compared is first
        else comparison_summary(
            formats.job_name(job), formats.job_name(first.job), evaluation, split
        ),
        query_without=_query(others),
        query_as_first=_query([job.id, *others]),
    )


def comparison_summary(
    name: str, first: str, evaluation: SplitResultView | None, split: EvaluatedSplit
) -> str:
    """Describe the paired test of a job against the first one, or why there is none."""
    if evaluation is None:
        return f"{name} has no saved predictions for {split} texts."
    if evaluation.unpaired == "first_has_none":
        return f"{first} has no saved predictions for {split} texts to compare with."
    pair = evaluation.against_first
    if pair is None:
        return (
            f"{name} and {first} predicted different {split} texts, so they cannot be paired. "
            "The intervals still show how precise each accuracy is."
        )
    points = 100 * pair.difference
    difference = f"{abs(points):.1f} points {'better' if points > 0 else 'worse'} than"
    if points == 0:
        difference = "exactly as accurate as"
    return (
        f"{name} is {difference} {first} on {evaluation.texts:,} {split} texts (95 % interval "
        f"{format_points(100 * pair.low)} to {format_points(100 * pair.high)}). "
        f"Only {name} is right on {pair.only_this:,} of them, only {first} on "
        f"{pair.only_first:,}. {_significance(pair.p)}"
    )


def _significance(p: float) -> str:
    """Describe the p-value of the exact McNemar test."""
    p_text = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    if p < SIGNIFICANCE_LEVEL:
        return f"The difference is statistically significant ({p_text})."
    return f"The difference is within noise ({p_text})."


def format_points(points: float) -> str:
    """Format percentage points with a sign: `+1.5`. A rounded zero has no minus sign."""
    return f"{round(points, 1) + 0.0:+.1f}".replace("-", "\N{MINUS SIGN}")


def _chart_data(row: JobComparisonRow) -> dict[str, Any]:
    """Return what compare.js needs to draw the charts."""
    evaluation = row.evaluation
    return {
        "id": str(row.job.id),
        "name": row.name,
        "ended": row.job.state.final,
        "accuracy": evaluation and [evaluation.accuracy, evaluation.low, evaluation.high],
    }


def _query(jobs: list[UUID]) -> str:
    return urlencode([("job", str(job_id)) for job_id in jobs])
