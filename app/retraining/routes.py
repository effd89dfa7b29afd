"""Routes of retraining: the rule of a model, and its runs."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Response, status

from app.auth.middleware import require_scope
from app.http.dependencies import AppStateDep, CallerDep, DatabaseDep
from app.http.fields import Slug, uuid_or_not_found_validator
from app.http.pagination import Page, PageCursor, PageLimit, decode_cursor, split_page
from app.idempotency.header import IdempotencyDep
from app.registry import repository as registry
from app.retraining import repository, service
from app.retraining.errors import RetrainingRunNotFound
from app.retraining.schemas import RetrainingRuleUpdate, RetrainingRuleView, RetrainingRunView
from app.retraining.views import run_view

router = APIRouter(prefix="/v1/models/{name}/retraining", tags=["retraining"])

_READ = [require_scope("models:read")]
_ADMIN = [require_scope("models:admin")]

RunId = Annotated[
    UUID,
    uuid_or_not_found_validator(
        lambda text: RetrainingRunNotFound(name="of this name", run_id=text)
    ),
]


@router.get("", dependencies=_READ)
def get_rule(name: Slug, database: DatabaseDep) -> RetrainingRuleView:
    """Get when a model is retrained, and how far the next run is."""
    with database.read() as session:
        return service.get_rule(session, name=name)


@router.put("", dependencies=_ADMIN)
def update_rule(
    name: Slug, body: RetrainingRuleUpdate, caller: CallerDep, state: AppStateDep
) -> RetrainingRuleView:
    """Set when a model is retrained, in place of an earlier rule.

    The jobs and datasets of runs that become due belong to the API key that sets the rule; those of
    a run on request belong to the key that starts it.
    """
    if body.search is not None:
        service.validate_hyperparameter_search(state.resources, name=name, search=body.search)
    with state.resources.database.write() as session:
        return service.create_or_replace_rule(session, name=name, body=body, caller_id=caller.id)


@router.delete("", dependencies=_ADMIN, status_code=status.HTTP_204_NO_CONTENT)
def delete_rule(name: Slug, database: DatabaseDep) -> None:
    """Delete the rule of a model. A run in progress continues."""
    with database.write() as session:
        service.delete_rule(session, name=name)


@router.get("/runs", dependencies=_READ)
def list_runs(
    name: Slug, database: DatabaseDep, limit: PageLimit = 20, after: PageCursor = None
) -> Page[RetrainingRunView]:
    """List the retrainings of a model, the newest first."""
    with database.read() as session:
        model = registry.get_model(session, name)
        found = repository.list_runs(session, model.id, after=decode_cursor(after), limit=limit + 1)
        rows, following = split_page(found, limit)
        return Page(data=[run_view(row, name) for row in rows], next=following)


@router.post("/runs", dependencies=_ADMIN, status_code=status.HTTP_202_ACCEPTED)
def create_run(
    name: Slug, response: Response, build_idempotent_request: IdempotencyDep, database: DatabaseDep
) -> RetrainingRunView:
    """Retrain a model now, by its rule, whether that is due or not."""
    call = build_idempotent_request({})
    with database.write() as session:
        run = service.create_run(session, name=name, call=call)
    response.headers["Location"] = run.location
    return run


@router.get("/runs/{run_id}", dependencies=_READ)
def get_run(name: Slug, run_id: RunId, database: DatabaseDep) -> RetrainingRunView:
    """Get what a retraining trained on, how the new version compares, and what was decided."""
    with database.read() as session:
        model = registry.get_model(session, name)
        return run_view(repository.get_run(session, model, run_id), name)


@router.post("/runs/{run_id}/cancel", dependencies=_ADMIN)
def cancel_run(name: Slug, run_id: RunId, database: DatabaseDep) -> RetrainingRunView:
    """Cancel a retraining with its jobs. Its datasets are deleted unless a version was made."""
    with database.write() as session:
        return service.cancel_run(session, name=name, run_id=run_id)
