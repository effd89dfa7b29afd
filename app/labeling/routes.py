"""Routes of labeling projects: create, label, undo, list annotations, make a dataset."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Response, status
from fastapi import Path as PathParameter
from pydantic import AfterValidator

from app.auth.middleware import require_any_scope, require_scope
from app.datasets.schemas import DatasetView
from app.datasets.views import dataset_view
from app.http.dependencies import (
    AppStateDep,
    Caller,
    CallerDep,
    DatabaseDep,
    ExecutorDep,
    NotifierDep,
    SettingsDep,
    StoreDep,
)
from app.http.fields import CleanText, reject_unstorable_text
from app.http.pagination import Page, PageCursor, PageLimit, decode_cursor, split_page
from app.idempotency import service as idempotency
from app.idempotency.header import IdempotencyDep
from app.jobs.pretrained_bases import resolve_base
from app.labeling import annotations, export, repository, service
from app.labeling.repository import LabelingCounts
from app.labeling.schemas import (
    MAX_ANNOTATOR_CHARACTERS,
    AnnotationUpdate,
    AnnotationView,
    LabelingCreate,
    LabelingDatasetCreate,
    LabelingListItem,
    LabelingUpdate,
    LabelingView,
    LeasedTexts,
    TextLeaseRequest,
)
from app.labeling.views import annotation_view, project_list_item, project_url_path
from lora_core.compatibility import read_encoder_shape
from lora_core.samples import minilm

router = APIRouter(prefix="/v1/labeling", tags=["labeling"])

_READ_OR_LABEL = [require_any_scope("labels:read", "labels:write")]
_LABEL = [require_scope("labels:write")]
# They read everything that people labeled, or delete it.
_MANAGE = [require_scope("labels:read"), require_scope("labels:write")]

ProjectName = Annotated[
    str,
    AfterValidator(reject_unstorable_text),
    PathParameter(max_length=64, description="Name of the project."),
]
Row = Annotated[int, PathParameter(ge=1, lt=2**31, description="Row number in the dataset.")]
QueryAnnotator = Annotated[
    Annotated[str, CleanText(MAX_ANNOTATOR_CHARACTERS)] | None,
    Query(description="Who labeled, if several people share an API key."),
]


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    dependencies=[*_LABEL, require_scope("datasets:read")],
)
def create_labeling_project(  # noqa: PLR0913 - FastAPI dependencies
    body: LabelingCreate,
    response: Response,
    build_idempotent_request: IdempotencyDep,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    notifier: NotifierDep,
) -> LabelingView:
    """Create a labeling project on a dataset without labels.

    A job is queued that computes the vectors of all texts. Until it has ended, texts are chosen at
    random and there are no suggestions.
    """
    call = build_idempotent_request(body.model_dump(mode="json", exclude_unset=True))
    with database.read() as session:
        idempotency.raise_if_replayed(session, call)
    base = resolve_base(
        body.base or minilm.NAME, None, database=database, store=store, settings=settings
    )
    read_encoder_shape(base.config, base=base.name)  # an encoder that cannot run is refused now
    with database.write() as session:
        view = service.create_project(
            session, body=body, base=base, settings=settings, notifier=notifier, call=call
        )
    response.headers["Location"] = project_url_path(view.name)
    return view


@router.get("", dependencies=_READ_OR_LABEL)
def list_labeling_projects(
    database: DatabaseDep, limit: PageLimit = 20, after: PageCursor = None
) -> Page[LabelingListItem]:
    """List labeling projects, the newest first."""
    with database.read() as session:
        found = repository.list_projects(session, after=decode_cursor(after), limit=limit + 1)
        projects, following = split_page(found, limit)
        datasets = repository.get_project_datasets(session, projects)
        counts = repository.count_labeled_and_skipped(session, projects)
    data = [
        project_list_item(each, datasets[each.dataset_id], counts.get(each.id, LabelingCounts()))
        for each in projects
    ]
    return Page(data=data, next=following)


@router.get("/{name}", dependencies=_READ_OR_LABEL)
def get_labeling_project(
    name: ProjectName, state: AppStateDep, database: DatabaseDep, caller: CallerDep
) -> LabelingView:
    """Get a labeling project, with the accuracy so far.

    Without the scope `labels:read`, `annotators` has only those of the API key.
    """
    return service.get_project_view_after_refit(
        database, state.labeling, name=name, own_only=own_annotations_filter(caller)
    )


@router.patch("/{name}", dependencies=_LABEL)
def update_labeling_project(  # noqa: PLR0913 - FastAPI dependencies
    name: ProjectName,
    body: LabelingUpdate,
    state: AppStateDep,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    notifier: NotifierDep,
    caller: CallerDep,
) -> LabelingView:
    """Add labels, or compute the vectors again."""
    base = None
    if body.retry_vectors:
        with database.read() as session:
            project = repository.get_project(session, name)
        base = resolve_base(
            project.base, project.base_revision, database=database, store=store, settings=settings
        )
    with database.write() as session:
        service.add_project_labels(session, name=name, body=body)
        if base is not None:
            service.ensure_embedding_job(
                session, name=name, base=base, settings=settings, notifier=notifier,
                owner=caller.id,
            )  # fmt: skip
    return service.get_project_view_after_refit(
        database, state.labeling, name=name, own_only=own_annotations_filter(caller)
    )


@router.delete("/{name}", status_code=status.HTTP_204_NO_CONTENT, dependencies=_MANAGE)
def delete_labeling_project(name: ProjectName, database: DatabaseDep) -> None:
    """Delete a labeling project with all its labels. Datasets that were made of it stay."""
    with database.write() as session:
        service.delete_project(session, name=name)


@router.post("/{name}/next", dependencies=_LABEL)
def lease_texts(
    name: ProjectName,
    state: AppStateDep,
    database: DatabaseDep,
    caller: CallerDep,
    body: TextLeaseRequest | None = None,
) -> LeasedTexts:
    """Get the next texts to label. Nobody else gets them for 10 minutes.

    Asked again, the same annotator gets those again that are not labeled yet. Without the scope
    `labels:read`, similar texts are only those that the API key labeled.
    """
    body = body or TextLeaseRequest()
    return annotations.lease_texts_with_suggestions(
        database,
        state.labeling,
        name=name,
        annotator=annotations.annotator_name(caller, body.annotator),
        count=body.count,
        own_only=own_annotations_filter(caller),
    )


@router.put("/{name}/texts/{row}", dependencies=_LABEL)
def update_annotation(
    name: ProjectName,
    row: Row,
    body: AnnotationUpdate,
    state: AppStateDep,
    database: DatabaseDep,
    caller: CallerDep,
) -> AnnotationView:
    """Label a text, or skip it. Sent again, the newest wins.

    It is stored before the response is sent, also if the lease has expired.
    """
    with database.read() as session:
        opened = service.get_project_with_dataset_and_job(session, name)
        is_chosen = repository.find_chosen_text(session, opened.project.id, row) is not None
    hashes = None if is_chosen else annotations.get_text_hashes(state.labeling, opened, row)
    with database.write() as session:
        annotation = annotations.upsert_annotation(
            session,
            name=name,
            project_id=opened.project.id,
            row=row,
            body=body,
            annotator=annotations.annotator_name(caller, body.annotator),
            caller=caller,
            hashes=hashes,
        )
        return annotation_view(annotation)


@router.delete("/{name}/texts/{row}", status_code=status.HTTP_204_NO_CONTENT, dependencies=_LABEL)
def delete_annotation(
    name: ProjectName,
    row: Row,
    database: DatabaseDep,
    caller: CallerDep,
    annotator: QueryAnnotator = None,
) -> None:
    """Undo one's own label of a text. The annotator gets the text again next."""
    with database.write() as session:
        annotations.delete_annotation_and_lease_text(
            session, name=name, row=row, annotator=annotations.annotator_name(caller, annotator)
        )


@router.get("/{name}/annotations", dependencies=_READ_OR_LABEL)
def list_annotations(
    name: ProjectName,
    state: AppStateDep,
    database: DatabaseDep,
    caller: CallerDep,
    limit: PageLimit = 20,
    after: PageCursor = None,
) -> Page[AnnotationView]:
    """List annotations, the newest first. Without the scope `labels:read`, only one's own."""
    with database.read() as session:
        opened = service.get_project_with_dataset_and_job(session, name)
        found = repository.list_annotations(
            session,
            opened.project.id,
            after=decode_cursor(after),
            limit=limit + 1,
            key_name=own_annotations_filter(caller),
        )
    rows, following = split_page(found, limit)
    return Page(data=annotations.annotation_views(state.labeling, opened, rows), next=following)


@router.post(
    "/{name}/dataset",
    status_code=status.HTTP_201_CREATED,
    dependencies=[require_scope("labels:read"), require_scope("datasets:write")],
    responses={200: {"model": DatasetView, "description": "The same labels are already stored"}},
)
async def create_labeled_dataset(  # noqa: PLR0913 - FastAPI dependencies
    name: ProjectName,
    response: Response,
    build_idempotent_request: IdempotencyDep,
    state: AppStateDep,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    executor: ExecutorDep,
    body: LabelingDatasetCreate | None = None,
) -> DatasetView:
    """Make a dataset of the labels so far, as the next version of its name.

    Texts that were drawn at random are its test split, if at least 50 of
    them have only labels that also occur in the other texts, and if they
    are at most half of the labeled texts.
    """
    body = body or LabelingDatasetCreate()
    work = partial(
        export.export_labels_to_dataset,
        database,
        store,
        state.labeling,
        settings=settings,
        name=name,
        dataset_name=body.name,
        call=build_idempotent_request(body.model_dump(mode="json", exclude_unset=True)),
    )
    dataset, is_new = await executor.run(work)
    if not is_new:
        response.status_code = status.HTTP_200_OK
    return dataset_view(dataset)


def own_annotations_filter(caller: Caller) -> str | None:
    """Return the name of the API key whose annotations the caller may see; None: all."""
    return None if "labels:read" in caller.scopes else caller.name
