"""Pages of suspect labels, and of what a corrected version changed."""

import json
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.database.engines import Database
from app.datasets import repository as datasets
from app.datasets.tables import Dataset
from app.http.dependencies import DatabaseDep, ExecutorDep, SettingsDep, StoreDep
from app.label_review import routes as label_review
from app.label_review import service
from app.label_review.schemas import Label, SuspectLabel, SuspectLabels, label_field_name
from app.web import formats
from app.web.page import render_template

MAX_SUSPECTS = 50  # shown first
MAX_OTHER_LABELS = 50  # offered as another label; with more, the API does it
MAX_CHANGES = 1_000  # shown of a diff

router = APIRouter(include_in_schema=False, dependencies=[require_scope("datasets:read")])


class SuspectCard:
    """A suspect row as its page shows it: the change that takes the proposal, in words as well."""

    def __init__(self, suspect: SuspectLabel, found: SuspectLabels) -> None:
        self.suspect = suspect
        self._task, self._target = found.task, found.target

    @property
    def change_json(self) -> str:
        """The change of a request, as JSON."""
        change = {label_field_name(self._task): self.suspect.proposed, "given": self.suspect.given}
        return json.dumps({**self.row_key, **change})

    @property
    def row_key(self) -> dict[str, Any]:
        """The row of a request, and its target if there are several."""
        row: dict[str, Any] = {"row": self.suspect.row}
        return row if self._target is None else {**row, "target": self._target}

    @property
    def kept_row_json(self) -> str:
        """The kept row of a request, as JSON."""
        return json.dumps(self.row_key)

    @property
    def given(self) -> str:
        """The label in the file."""
        return display_label(self.suspect.given)

    @property
    def proposed(self) -> str:
        """The proposed label, of several names only what changes."""
        if not isinstance(self.suspect.proposed, list):
            return display_label(self.suspect.proposed)
        proposed = self.suspect.proposed
        return ", ".join(
            f"with {name}" if name in proposed else f"without {name}" for name in self.suspect.names
        )


def display_label(label: Label) -> str:
    """Return a label as text."""
    if isinstance(label, list):
        return ", ".join(label) or "no label"
    return label if isinstance(label, str) else formats.number(label)


@router.get("/datasets/{ref}/suspects")
async def suspect_labels_page(  # noqa: PLR0913 - parameters are the request's inputs
    request: Request,
    ref: str,
    database: DatabaseDep,
    store: StoreDep,
    settings: SettingsDep,
    executor: ExecutorDep,
    target: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = MAX_SUSPECTS,
) -> HTMLResponse:
    """Show suspect labels. The dataset's page loads this list as a fragment."""
    found = await label_review.list_suspect_labels(
        ref, settings, database, store, executor, limit, target or None
    )
    dataset, newest = await run_in_threadpool(partial(_read_versions, database, ref))
    prefix = "" if found.target is None else f"{found.target}/"
    labels = [
        name.removeprefix(prefix) for name in dataset.profile["labels"] if name.startswith(prefix)
    ]
    return render_template(
        request,
        "dataset_suspects.html",
        dataset=dataset,
        found=found,
        cards=[SuspectCard(each, found) for each in found.data],
        display_label=display_label,
        is_newest=newest.id == dataset.id,
        newest=newest,
        labels=labels if found.task == "single_label" and len(labels) <= MAX_OTHER_LABELS else [],
        limit=limit,
    )


@router.get("/datasets/{ref}/diff")
def correction_diff_page(request: Request, ref: str, database: DatabaseDep) -> HTMLResponse:
    """Show what a corrected version changed."""
    with database.read() as session:
        diff = service.get_dataset_diff(session, ref)
    return render_template(
        request,
        "correction_diff.html",
        diff=diff,
        display_label=display_label,
        max_changes=MAX_CHANGES,
    )


def _read_versions(database: Database, ref: str) -> tuple[Dataset, Dataset]:
    """Return a dataset with its profile, and the newest version of its name."""
    with database.read() as session:
        dataset = datasets.resolve_dataset(session, ref)
        assert dataset.profile is not None  # noqa: S101 - loads it
        return dataset, datasets.resolve_dataset(session, dataset.name)
