"""Routes of drift: what is known about the texts of a version, its checks, and a check now."""

from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, status

from app.auth.middleware import require_scope
from app.drift import repository, service
from app.drift.errors import DriftCheckNotFound
from app.drift.schemas import DriftCheckDetail, DriftCheckView, DriftView
from app.drift.views import drift_check_view
from app.http.dependencies import AppStateDep, DatabaseDep, ExecutorDep, SettingsDep
from app.http.fields import uuid_or_not_found_validator
from app.http.pagination import Page, PageCursor, PageLimit, decode_cursor, split_page
from app.registry import service as registry
from app.registry.refs import ModelRefParam

router = APIRouter(prefix="/v1/models", tags=["drift"])

CheckId = Annotated[
    UUID,
    uuid_or_not_found_validator(
        lambda text: DriftCheckNotFound(version="This model", check_id=text)
    ),
]
Days = Annotated[float, Query(gt=0, le=80, description="What counts as recent.")]


@router.get("/{ref}/drift", dependencies=[require_scope("models:read")])
def get_drift(
    ref: ModelRefParam, database: DatabaseDep, settings: SettingsDep, days: Days = 7
) -> DriftView:
    """Get whether the texts of a version are still like those that it was trained on.

    The shares of predicted labels are always there, a check of the texts only if they are kept.
    """
    with database.read() as session:
        return service.get_drift(session, settings=settings, ref=ref, days=days)


@router.get("/{ref}/drift/checks", dependencies=[require_scope("models:read")])
def list_drift_checks(
    ref: ModelRefParam, database: DatabaseDep, limit: PageLimit = 20, after: PageCursor = None
) -> Page[DriftCheckView]:
    """List the checks of a version, the newest first."""
    with database.read() as session:
        resolved = registry.resolve_model(session, ref)
        found = repository.list_checks(
            session,
            model=resolved.name,
            number=resolved.number,
            after=decode_cursor(after),
            limit=limit + 1,
        )
    rows, following = split_page(found, limit)
    return Page(data=[drift_check_view(row) for row in rows], next=following)


@router.post(
    "/{ref}/drift/checks",
    dependencies=[require_scope("models:admin")],
    status_code=status.HTTP_201_CREATED,
)
async def create_drift_check(
    ref: ModelRefParam, state: AppStateDep, executor: ExecutorDep
) -> DriftCheckView:
    """Compare what a version predicted since its last check with its training texts, now.

    This takes seconds. The texts count in no other check.
    """
    work = partial(
        service.create_drift_check,
        state.resources.database,
        state.resources.store,
        settings=state.settings,
        ref=ref,
        flush_traffic=state.traffic.flush,
    )
    return drift_check_view(await executor.run(work))


@router.get("/{ref}/drift/checks/{check_id}", dependencies=[require_scope("datasets:read")])
def get_drift_check(
    ref: ModelRefParam, check_id: CheckId, database: DatabaseDep
) -> DriftCheckDetail:
    """Get a check with the texts that differ most, as far as they are still kept."""
    with database.read() as session:
        return service.get_check(session, ref=ref, check_id=check_id)
