"""Routes of feedback: add, list, delete, review random samples, live accuracy, make datasets."""

from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response, status

from app.auth.middleware import require_scope
from app.datasets.schemas import DatasetView
from app.datasets.views import dataset_view
from app.feedback import dataset, repository, service
from app.feedback.errors import FeedbackNotFound
from app.feedback.live_accuracy import list_live_accuracy
from app.feedback.schemas import (
    FeedbackCreate,
    FeedbackDatasetCreate,
    FeedbackItemResults,
    FeedbackView,
    LiveAccuracy,
    ReviewSample,
    ReviewSampleCreate,
)
from app.feedback.views import feedback_item_results_view, feedback_view
from app.http.dependencies import (
    AppStateDep,
    CallerDep,
    DatabaseDep,
    ExecutorDep,
    SettingsDep,
    StoreDep,
)
from app.http.fields import Slug, uuid_or_not_found_validator
from app.http.pagination import Page, PageCursor, PageLimit, decode_cursor, split_page
from app.idempotency.header import IdempotencyDep
from app.privacy.text_hashes import TextHasher
from app.registry import repository as registry
from app.registry.refs import ModelRefParam

router = APIRouter(tags=["feedback"])

FeedbackId = Annotated[
    UUID, uuid_or_not_found_validator(lambda text: FeedbackNotFound(feedback_id=text))
]
Days = Annotated[float, Query(gt=0, le=400, description="Only predictions of the last days.")]

_WRITE = require_scope("feedback:write")
_READ_TEXTS = require_scope("datasets:read")  # feedback is texts with labels, as datasets are


@router.post("/v1/feedback", dependencies=[_WRITE])
def create_feedback(
    body: FeedbackCreate, state: AppStateDep, caller: CallerDep
) -> FeedbackItemResults:
    """Tell the right label of a text, or of up to 1,000 texts as `items`.

    It can be repeated safely: the newest feedback of an author on a text counts. Of `items`, each
    is accepted or rejected on its own; a single one that is rejected is an error.
    """
    submissions = service.add_feedback(
        state.resources.database,
        state.resources.store,
        items=body.all_items(),
        caller=caller,
        hasher=TextHasher.from_settings(state.settings),
        flush_traffic=state.traffic.flush,
    )
    if body.items is None and submissions[0].error is not None:
        raise submissions[0].error
    return feedback_item_results_view(submissions)


@router.delete(
    "/v1/feedback/{feedback_id}", dependencies=[_WRITE], status_code=status.HTTP_204_NO_CONTENT
)
def delete_feedback(feedback_id: FeedbackId, database: DatabaseDep, caller: CallerDep) -> None:
    """Delete feedback. That of other API keys needs the scope `datasets:write`, too."""
    with database.write() as session:
        service.delete_feedback(session, feedback_id=feedback_id, caller=caller)


@router.get("/v1/models/{name}/feedback", dependencies=[_READ_TEXTS])
def list_feedback(
    name: Slug,
    database: DatabaseDep,
    limit: PageLimit = 20,
    after: PageCursor = None,
    sampled: Annotated[
        bool | None, Query(description="Only feedback on texts that were drawn, or on others.")
    ] = None,
) -> Page[FeedbackView]:
    """List feedback on a model, the newest first."""
    with database.read() as session:
        registry.get_model(session, name)
        found = repository.list_feedback(
            session, model=name, after=decode_cursor(after), limit=limit + 1, sampled=sampled
        )
    rows, following = split_page(found, limit)
    return Page(data=[feedback_view(row) for row in rows], next=following)


@router.post(
    "/v1/models/{name}/feedback/dataset",
    dependencies=[_READ_TEXTS, require_scope("datasets:write")],
    status_code=status.HTTP_201_CREATED,
    responses={200: {"model": DatasetView, "description": "The same dataset is already stored"}},
)
async def create_feedback_dataset(  # noqa: PLR0913 - FastAPI dependencies
    name: Slug,
    body: FeedbackDatasetCreate,
    response: Response,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    build_idempotent_request: IdempotencyDep,
    executor: ExecutorDep,
) -> DatasetView:
    """Make a dataset from the texts with feedback on a model: a new version of its name."""
    work = partial(
        dataset.create_dataset,
        database,
        store,
        settings=settings,
        model=name,
        body=body,
        call=build_idempotent_request(body.model_dump(mode="json")),
    )
    made, is_new = await executor.run(work)
    if not is_new:
        response.status_code = status.HTTP_200_OK
    return dataset_view(made)


@router.get("/v1/models/{ref}/review", dependencies=[_READ_TEXTS])
def get_review_sample(ref: ModelRefParam, database: DatabaseDep, store: StoreDep) -> ReviewSample:
    """Get the texts that were drawn for reviews of a version and have no feedback yet."""
    return service.get_review_sample(database, store, ref=ref)


@router.post("/v1/models/{ref}/review", dependencies=[_READ_TEXTS, _WRITE])
def create_review_sample(
    ref: ModelRefParam, body: ReviewSampleCreate, state: AppStateDep
) -> ReviewSample:
    """Draw a random sample of a version's kept predictions to label.

    Only feedback on such samples estimates accuracy. Texts of earlier samples that have no feedback
    yet come first, so a repeated request draws no more than are missing.
    """
    return service.create_review_sample(
        state.resources.database,
        state.resources.store,
        ref=ref,
        count=body.count,
        flush_traffic=state.traffic.flush,
    )


@router.get("/v1/models/{name}/live-accuracy", dependencies=[require_scope("models:read")])
def get_live_accuracy(name: Slug, database: DatabaseDep, days: Days = 30) -> list[LiveAccuracy]:
    """Estimate how good each version of a model is on live traffic, the newest version first."""
    with database.read() as session:
        return list_live_accuracy(session, model=name, days=days)
