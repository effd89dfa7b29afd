"""Retraining pages: the rule of a model with its runs, and why a version was promoted or not."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.http.dependencies import DatabaseDep
from app.http.fields import Slug
from app.http.pagination import decode_cursor, split_page
from app.registry import repository as registry
from app.registry.tables import PRODUCTION, RegisteredModel
from app.registry.views import version_view
from app.retraining import repository, service
from app.retraining.errors import RetrainingRuleNotFound
from app.retraining.routes import RunId
from app.retraining.schemas import (
    DEFAULT_LEVEL,
    MAX_LEVEL,
    RetrainingRuleView,
    RetrainingRunView,
    TextExclusionReason,
)
from app.retraining.views import format_p_value, run_view
from app.web.page import ListPageQuery, render_template
from lora_core.results import Verdict

PAGE_SIZE = 50
SHOWN_ON_MODEL = 5  # runs on the page of a model

LEFT_OUT = {
    TextExclusionReason.DISAGREEMENT: "Its authors disagree about the label",
    TextExclusionReason.INCOMPLETE: "Some targets have no feedback",
    TextExclusionReason.OTHER_TASK: "The feedback is on a version with another task",
    TextExclusionReason.IN_EVALUATION_SPLIT: "It is a validation or test text of the data",
    TextExclusionReason.FORGOTTEN: "It must be forgotten",
}
TRIGGERS = {
    "new_labels": "enough texts had new feedback",
    "time": "enough days had passed",
    "request": "somebody asked for it",
}

router = APIRouter(include_in_schema=False, dependencies=[require_scope("models:read")])


def find_rule(session: Session, name: str) -> RetrainingRuleView | None:
    """Return the rule of a model; None if it has none."""
    try:
        return service.get_rule(session, name=name)
    except RetrainingRuleNotFound:
        return None


def list_newest_runs(session: Session, model: RegisteredModel) -> list[RetrainingRunView]:
    """Return the runs that the page of a model shows, the newest first."""
    found = repository.list_runs(session, model.id, after=None, limit=SHOWN_ON_MODEL)
    return [run_view(row, model.name) for row in found]


@router.get("/models/{name}/retraining")
def retraining_page(
    request: Request, name: Slug, database: DatabaseDep, query: Annotated[ListPageQuery, Query()]
) -> HTMLResponse:
    """Show the rule of a model, the form that sets it, and all runs."""
    with database.read() as session:
        model = registry.get_model(session, name)
        rule = find_rule(session, name)
        found = repository.list_runs(
            session, model.id, after=decode_cursor(query.after), limit=PAGE_SIZE + 1
        )
        rows, following = split_page(found, PAGE_SIZE)
        runs = [run_view(row, name) for row in rows]
    return render_template(
        request,
        "retraining.html",
        name=name,
        rule=rule,
        runs=runs,
        next=following,
        query=query,
        default_level=DEFAULT_LEVEL,
        max_level=MAX_LEVEL,
    )


@router.get("/models/{name}/retraining/{run_id}")
def retraining_run_page(
    request: Request, name: Slug, run_id: RunId, database: DatabaseDep
) -> HTMLResponse:
    """Show what a retraining trained on, how both versions compare, and what was decided."""
    with database.read() as session:
        model = registry.get_model(session, name)
        run = run_view(repository.get_run(session, model, run_id), name)
        production = next(
            (
                each
                for each in registry.list_alias_targets(session, model.id)
                if each.alias == PRODUCTION
            ),
            None,
        )
        verdict = _find_verdict(session, model, run)
    return render_template(
        request,
        "retraining_run.html",
        run=run,
        name=name,
        production=production,
        verdict=verdict,
        left_out=LEFT_OUT,
        triggers=TRIGGERS,
        format_p_value=format_p_value,
    )


def _find_verdict(
    session: Session, model: RegisteredModel, run: RetrainingRunView
) -> Verdict | None:
    """Return the verdict on the new version; None without one, or if it was deleted."""
    if run.new is None:
        return None
    key = (model.id, int(run.new.partition(":")[2]))
    version = registry.find_versions_by_number(session, {key}).get(key)
    return version_view(model.name, version).verdict if version else None
