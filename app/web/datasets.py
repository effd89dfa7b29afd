"""Dataset pages: upload, contents, and data checks."""

from dataclasses import dataclass
from functools import partial
from shlex import quote
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.datasets import repository, service
from app.datasets.schemas import DatasetView
from app.datasets.views import dataset_list_item, dataset_view
from app.http.dependencies import CallerDep, DatabaseDep, ExecutorDep, SettingsDep, StoreDep
from app.http.pagination import decode_cursor, split_page
from app.jobs import repository as jobs
from app.jobs.repository import JobFilter
from app.label_review import repository as label_review
from app.web import form_options, formats
from app.web.page import ListPageQuery, render_template
from app.web.svg_curves import LearningCurveView
from lora_core.data.data_report import Finding, Severity
from lora_core.specs.data import MAX_LENGTH, SUFFIXES

PAGE_SIZE = 50
ROWS_PER_PAGE = 10  # of the row preview
MAX_TEXT_CHARACTERS = 400  # of a text in the row preview
MAX_JOBS = 10
MAX_LABELS = 12  # shown before the rest is folded

router = APIRouter(include_in_schema=False, dependencies=[require_scope("datasets:read")])


@dataclass(frozen=True)
class DatasetDetails:
    """A dataset as its page shows it."""

    view: DatasetView

    def findings(self, level: Severity) -> list[Finding]:
        """Return the findings of one level."""
        diagnosis = self.view.diagnosis
        return [each for each in diagnosis.findings if each.level is level] if diagnosis else []

    @property
    def labels(self) -> list[tuple[str, int, float]]:
        """(label, rows, fraction of the rows), the most frequent first."""
        counts = sorted(self.view.labels.items(), key=lambda item: -item[1])
        return [(label, count, count / self.view.rows) for label, count in counts]

    @property
    def splits(self) -> dict[str, int]:
        """Rows by split, for files with a split column."""
        splits: dict[str, int] = self.view.profile["splits"]
        return splits


@router.get("/datasets")
def datasets_page(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    query: Annotated[ListPageQuery, Query()],
) -> HTMLResponse:
    """List datasets, newest first, with an upload form."""
    with database.read() as session:
        found = repository.list_datasets(
            session, after=decode_cursor(query.after), limit=PAGE_SIZE + 1
        )
        rows, next_cursor = split_page(found, PAGE_SIZE)
        items = [dataset_list_item(row) for row in rows]
    return render_template(
        request,
        "datasets.html",
        datasets=items,
        next=next_cursor,
        query=query,
        file_extensions=SUFFIXES,
        max_upload_bytes=settings.max_upload_bytes,
        samples=form_options.sample_datasets(),
        levels=list(Severity),
    )


@router.get("/datasets/{ref}")
def dataset_page(
    request: Request, ref: str, database: DatabaseDep, caller: CallerDep
) -> HTMLResponse:
    """Show a dataset: data checks, labels, lengths, rows, versions and jobs."""
    with database.read() as session:
        row = repository.resolve_dataset(session, ref)
        versions = [
            dataset_list_item(version) for version in repository.list_versions(session, row.name)
        ]
        dataset = DatasetDetails(dataset_view(row))
        recent = jobs.JobPage([], None)
        if "jobs:read" in caller.scopes:
            recent = jobs.list_jobs(
                session, after=None, limit=MAX_JOBS, job_filter=JobFilter(dataset=row.id)
            )
        correction = label_review.find_dataset_correction(session, row.id)
        corrected_from = correction and label_review.get_source_dataset(session, correction)
        has_suspects = label_review.find_suspect_report(session, row.id, None) is not None
        recent_jobs = [(job.id, formats.job_name(job), job.state) for job in recent.jobs]
    is_newest = versions[0].version == row.version
    diagnosis = dataset.view.diagnosis
    return render_template(
        request,
        "dataset.html",
        dataset=dataset,
        quoted_filename=quote(dataset.view.filename),
        learning_curve=(
            LearningCurveView.from_estimate(diagnosis.more_labels) if diagnosis else None
        ),
        source=row.name if is_newest else f"{row.name}:{row.version}",
        versions=versions,
        jobs=recent_jobs,
        has_older_jobs=recent.next_after is not None,
        levels=list(Severity),
        default_max_length=MAX_LENGTH,
        max_labels=MAX_LABELS,
        corrected_from=corrected_from,
        has_suspects=has_suspects,
    )


@router.get("/datasets/{ref}/rows")
async def dataset_rows_page(  # noqa: PLR0913 - parameters are the request's inputs
    request: Request,
    ref: str,
    database: DatabaseDep,
    store: StoreDep,
    settings: SettingsDep,
    executor: ExecutorDep,
    after: Annotated[int, Query(ge=0)] = 0,
) -> HTMLResponse:
    """Show rows of a dataset. The dataset's page loads this table as a fragment."""
    read_rows = partial(
        service.list_rows,
        database,
        store,
        settings=settings,
        ref=ref,
        after=after,
        limit=ROWS_PER_PAGE + 1,
    )
    dataset, rows = await executor.run_dataset_read(read_rows)
    return render_template(
        request,
        "dataset_rows.html",
        dataset=dataset,
        rows=rows[:ROWS_PER_PAGE],
        after=after,
        max_text_characters=MAX_TEXT_CHARACTERS,
        next=rows[ROWS_PER_PAGE - 1]["row"] if len(rows) > ROWS_PER_PAGE else None,
    )
