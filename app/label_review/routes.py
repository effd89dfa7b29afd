"""Routes of labels: list suspect ones, correct them in a new version, show what changed."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Response, status
from starlette.concurrency import run_in_threadpool

from app.auth.middleware import require_scope
from app.database.engines import Database
from app.datasets.schemas import DatasetRef
from app.http.dependencies import DatabaseDep, ExecutorDep, SettingsDep, StoreDep
from app.idempotency.header import IdempotencyDep
from app.label_review import service
from app.label_review.schemas import CorrectionCreate, CorrectionDiff, SuspectLabels
from app.settings import Settings
from lora_core.data.label_review_schemas import MAX_SUSPECTS

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

SuspectLimit = Annotated[int, Query(ge=1, le=MAX_SUSPECTS, description="Maximum number of rows.")]
TargetQuery = Annotated[
    str | None, Query(max_length=256, description="Which of several targets to check.")
]


@router.get("/{ref}/suspects", dependencies=[require_scope("datasets:read")])
async def list_suspect_labels(  # noqa: PLR0913 - FastAPI dependencies
    ref: DatasetRef,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    executor: ExecutorDep,
    limit: SuspectLimit = 50,
    target: TargetQuery = None,
) -> SuspectLabels:
    """List labels that are probably wrong: they contradict the linear model, cross-validated.

    The first call computes them, which takes seconds, and at most a minute; a large dataset is
    sampled. Later calls read the result. Of several targets, name one.
    """
    found = await run_in_threadpool(_find, database, settings, ref, target, limit)
    if found is not None:
        return found
    work = partial(
        service.compute_and_store_suspects,
        database,
        store,
        settings=settings,
        ref=ref,
        target=target,
        limit=limit,
    )
    return await executor.run(work)


def _find(
    database: Database, settings: Settings, ref: str, target: str | None, limit: int
) -> SuspectLabels | None:
    with database.read() as session:
        return service.find_stored_suspects(
            session, settings=settings, ref=ref, target=target, limit=limit
        )


@router.post(
    "/{ref}/corrections",
    dependencies=[require_scope("datasets:write")],
    status_code=status.HTTP_201_CREATED,
    responses={200: {"model": CorrectionDiff, "description": "Labels were only kept"}},
)
async def correct_labels(  # noqa: PLR0913 - FastAPI dependencies
    ref: DatasetRef,
    body: CorrectionCreate,
    response: Response,
    build_idempotent_request: IdempotencyDep,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    executor: ExecutorDep,
) -> CorrectionDiff:
    """Correct labels: the file with the changes becomes the next version of the dataset.

    `ref` names the version that you looked at, which must be the newest one. Kept labels are not
    listed as suspect again. Without changes there is no new version, and the status is 200.
    """
    work = partial(
        service.correct_labels,
        database,
        store,
        settings=settings,
        ref=ref,
        body=body,
        call=build_idempotent_request(body.model_dump(mode="json", exclude_unset=True)),
    )
    diff, is_new = await executor.run(work)
    if not is_new:
        response.status_code = status.HTTP_200_OK
    response.headers["Location"] = diff.dataset_location
    return diff


@router.get("/{ref}/diff", dependencies=[require_scope("datasets:read")])
def get_dataset_diff(ref: DatasetRef, database: DatabaseDep) -> CorrectionDiff:
    """Get what a corrected version changed, and of which version it was made."""
    with database.read() as session:
        return service.get_dataset_diff(session, ref)
