"""Job comparison: curves, metrics, the paired test in words, and settings that differ."""

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.charts.formatting import format_difference, format_interval, format_setting_value
from app.http.dependencies import DatabaseDep
from app.jobs import repository
from app.jobs.repository import JobFilter
from app.jobs.results import comparison
from app.jobs.results.misclassified import EvaluatedSplit
from app.jobs.routes import MAX_COMPARED, JobId
from app.jobs.schemas import ComparedJob, JobView, PairedComparisonView, SplitResultView
from app.web import formats
from app.web.formats import capitalized_metric_label
from app.web.page import render_template
from lora_core.tasks.metric_info import METRICS, main_metric

MAX_ADDABLE_JOBS = 50  # newest jobs offered for comparison

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class ComparedJobView:
    """A compared job. The first one is the reference of all tests."""

    job: JobView
    name: str
    evaluation: SplitResultView | None  # its result on the selected split
    summary: str | None  # the paired test against the first job, in words
    query_without: str  # query string of the comparison without this job
    query_as_first: str  # query string of the comparison with this job as the reference

    @property
    def interval(self) -> str | None:
        """The interval of its metric."""
        if self.evaluation is None:
            return None
        return format_interval(self.evaluation.metric, self.evaluation.low, self.evaluation.high)

    @property
    def difference(self) -> str | None:
        """Its metric minus the first job's, with the unit."""
        if self.evaluation is None or self.evaluation.against_first is None:
            return None
        return difference_with_unit(
            self.evaluation.metric, self.evaluation.against_first.difference
        )


@router.get("/compare", dependencies=[require_scope("jobs:read")])
def compare_jobs_page(
    request: Request,
    database: DatabaseDep,
    job: Annotated[list[JobId], Query()] = [],  # noqa: B006
    part: EvaluatedSplit = "test",
) -> HTMLResponse:
    """Compare the first `MAX_COMPARED` jobs on the split `part`. Without jobs, offer a choice."""
    selected, job = len(job), job[:MAX_COMPARED]
    with database.read() as session:
        found = comparison.compare_jobs_with_first(session, job) if job else None
        newest = repository.list_jobs(
            session, after=None, limit=MAX_ADDABLE_JOBS, job_filter=JobFilter()
        )
        addable = [each for each in newest.jobs if each.id not in job]
    jobs = found.jobs if found else []
    rows = [_row(each, jobs, job, part) for each in jobs]
    metric = main_metric(jobs[0].job.spec if jobs else {})  # the charts show the jobs that have it
    return render_template(
        request,
        "compare.html",
        rows=rows,
        selected=selected,
        split=part,
        metric=metric,
        metric_title=capitalized_metric_label(metric),
        metric_is_share=METRICS[metric].is_share,
        jobs_query=_query(job),
        settings={
            name: [format_setting_value(value) for value in values]
            for name, values in (found.settings if found else {}).items()
        },
        chart_data=[_chart_data(row, metric) for row in rows],
        addable_jobs=[
            (each, formats.job_name(each), formats.method_name(each.spec)) for each in addable
        ],
        can_add=len(job) < MAX_COMPARED,
    )


def _row(
    compared: ComparedJob, jobs: list[ComparedJob], order: list[UUID], split: EvaluatedSplit
) -> ComparedJobView:
    job, first = compared.job, jobs[0]
    others = [job_id for job_id in order if job_id != job.id]
    evaluation: SplitResultView | None = getattr(compared, split)
    return ComparedJobView(
        job=job,
        name=formats.job_name(job),
        evaluation=evaluation,
        summary=None
        if compared is first
        else describe_paired_test(
            formats.job_name(job), formats.job_name(first.job), evaluation, split
        ),
        query_without=_query(others),
        query_as_first=_query([job.id, *others]),
    )


def describe_paired_test(
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
            f"{name} and {first} predicted different {split} texts, or the labels of these differ, "
            "so they cannot be paired. The intervals still show how precise each result is."
        )
    metric = METRICS[evaluation.metric]
    way = "better" if metric.sign() * pair.difference > 0 else "worse"
    size = difference_with_unit(evaluation.metric, abs(pair.difference)).removeprefix("+")
    difference = f"{size} {way} than"
    if pair.difference == 0:
        difference = "exactly as accurate as" if evaluation.metric == "accuracy" else "as good as"
    of_metric = "" if evaluation.metric == "accuracy" else f"difference of {metric.label}, "
    sentences = [
        f"{name} is {difference} {first} on {evaluation.texts:,} {split} texts ({of_metric}95% "
        f"interval {_signed(evaluation.metric, pair.low)} to "
        f"{_signed(evaluation.metric, pair.high)})."
    ]
    if pair.only_this is not None and pair.only_first is not None:
        sentences.append(
            f"Only {name} is right on {pair.only_this:,} of them, only {first} on "
            f"{pair.only_first:,}."
        )
    return " ".join([*sentences, _significance(pair)])


def _significance(pair: PairedComparisonView) -> str:
    """Describe the paired test."""
    p_text = ""
    if pair.p is not None:
        p_text = " (p < 0.001)" if pair.p < 0.001 else f" (p = {pair.p:.2g})"
    if pair.significant:
        return f"The difference is statistically significant{p_text}."
    return f"The difference is within noise{p_text}."


def difference_with_unit(metric: str, difference: float) -> str:
    """Format a difference of metrics with its sign: `+1.5 points`, or `+0.12`."""
    unit = " points" if METRICS[metric].is_share else ""
    return f"{_signed(metric, difference)}{unit}"


def _signed(metric: str, difference: float) -> str:
    return format_difference(metric, difference).replace("-", "\N{MINUS SIGN}")


def _chart_data(row: ComparedJobView, metric: str) -> dict[str, Any]:
    """Return what compare.js needs to draw the charts."""
    evaluation = row.evaluation
    return {
        "id": str(row.job.id),
        "name": row.name,
        "ended": row.job.state.final,
        "result": (
            [evaluation.value, evaluation.low, evaluation.high]
            if evaluation is not None and evaluation.metric == metric
            else None
        ),
    }


def _query(jobs: list[UUID]) -> str:
    return urlencode([("job", str(job_id)) for job_id in jobs])
