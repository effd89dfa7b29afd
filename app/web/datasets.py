"""Data sets: upload, what is in them, and what to look at before anyone trains on them."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse

from app.auth.middleware import requires
from app.datasets import repository, service
from app.datasets.schemas import DatasetListItem, DatasetView
from app.http.dependencies import DatabaseDep, SettingsDep, StoreDep, WorkDep
from app.http.pagination import cut, decode
from app.jobs import repository as jobs
from app.jobs.repository import Filter
from app.web import display_names
from app.web.learning_curve import MoreLabelsView
from app.web.page import Wanted, render
from lora_core.data.findings import Finding, Level
from lora_core.samples import reviews
from lora_core.specs.data import ENDINGS, MAX_LENGTH

PER_PAGE = 50
PREVIEW = 10  # rows at a time
EXCERPT = 400  # characters of a text in a row
JOBS = 10
LABELS = 12  # that are shown at once

router = APIRouter(include_in_schema=False, dependencies=[requires("datasets:read")])


@dataclass(frozen=True)
class Shown:
    """A data set as its page shows it."""

    view: DatasetView

    def found(self, level: Level) -> list[Finding]:
        """Findings of one level."""
        diagnosis = self.view.diagnosis
        return [each for each in diagnosis.findings if each.level is level] if diagnosis else []

    @property
    def labels(self) -> list[tuple[str, int, float]]:
        """(label, rows, share of the rows), the most frequent first."""
        counts = sorted(self.view.labels.items(), key=lambda each: -each[1])
        return [(label, count, count / self.view.rows) for label, count in counts]

    @property
    def parts(self) -> dict[str, int]:
        """Rows of each part that the file names."""
        found: dict[str, int] = self.view.profile["splits"]
        return found


@router.get("/datasets")
def datasets(
    request: Request, database: DatabaseDep, wanted: Annotated[Wanted, Query()]
) -> HTMLResponse:
    """Data sets, the newest first, and a place to drop another one."""
    with database.read() as session:
        found = repository.page(session, after=decode(wanted.after), limit=PER_PAGE + 1)
        rows, following = cut(found, PER_PAGE)
        shown = [DatasetListItem.of(row) for row in rows]
    return render(
        request,
        "datasets.html",
        datasets=shown,
        next=following,
        wanted=wanted,
        endings=ENDINGS,
        samples=reviews.SAMPLES,
        levels=list(Level),
    )


@router.get("/datasets/{ref}")
def dataset(request: Request, ref: str, database: DatabaseDep) -> HTMLResponse:
    """One data set: what was found, labels, lengths, rows, versions, jobs."""
    with database.read() as session:
        row = repository.resolve(session, ref)
        versions = [DatasetListItem.of(each) for each in repository.versions(session, row.name)]
        shown = Shown(DatasetView.of(row))
        used = jobs.page(session, after=None, limit=JOBS, only=Filter(dataset=row.id))
        using = [(job.id, display_names.name(job), job.state) for job in used.jobs]
    newest = versions[0].version == row.version
    diagnosis = shown.view.diagnosis
    return render(
        request,
        "dataset.html",
        dataset=shown,
        more_labels=MoreLabelsView.of(diagnosis.more_labels) if diagnosis else None,
        source=row.name if newest else f"{row.name}:{row.version}",
        versions=versions,
        jobs=using,
        more_jobs=used.last is not None,
        levels=list(Level),
        max_length=MAX_LENGTH,
        at_once=LABELS,
    )


@router.get("/datasets/{ref}/rows")
async def rows(  # noqa: PLR0913 - what it reads, and from where
    request: Request,
    ref: str,
    database: DatabaseDep,
    store: StoreDep,
    settings: SettingsDep,
    at_work: WorkDep,
    after: Annotated[int, Query(ge=0)] = 0,
) -> HTMLResponse:
    """Some rows of a data set. Its page takes the table from here."""
    read = partial(
        service.rows, database, store, settings=settings, ref=ref, after=after, limit=PREVIEW + 1
    )
    found, shown = await at_work.read(read)
    return render(
        request,
        "dataset_rows.html",
        dataset=found,
        rows=shown[:PREVIEW],
        after=after,
        excerpt=EXCERPT,
        next=shown[PREVIEW - 1]["row"] if len(shown) > PREVIEW else None,
    )
