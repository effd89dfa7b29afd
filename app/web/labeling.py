"""Labeling: the list of projects with the form of a new one, a project, and its texts to label.

The texts come from the API: a page that is closed must not hold texts that others could label.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, Response

from app.auth.middleware import require_any_scope, require_scope
from app.database.engines import Database
from app.datasets import repository as datasets
from app.datasets.errors import DatasetNotFound
from app.datasets.schemas import DatasetListItem
from app.datasets.views import dataset_list_item
from app.http.dependencies import AppStateDep, Caller, CallerDep, DatabaseDep, SettingsDep
from app.http.fields import CleanText
from app.http.pagination import decode_cursor, split_page
from app.labeling import annotations, repository, service
from app.labeling.pools import MIN_RANDOM_TEXTS, LabelingPools
from app.labeling.repository import LabelingCounts
from app.labeling.routes import ProjectName, QueryAnnotator, own_annotations_filter
from app.labeling.schemas import (
    MAX_ANNOTATOR_CHARACTERS,
    AnnotationView,
    LabelingTaskType,
    LabelTypeSpec,
)
from app.labeling.views import annotation_view, project_list_item
from app.web import form_options, formats
from app.web.page import (
    BlankAsNone,
    ListPageQuery,
    not_modified_response,
    page_etag,
    render_template,
)

PAGE_SIZE = 50
MAX_ANNOTATIONS = 20  # of a page
MAX_TEXT_CHARACTERS = 200  # of a text in the list of annotations

router = APIRouter(include_in_schema=False)


class ProjectListQuery(ListPageQuery):
    """The query string of the list; `dataset` is preselected in the form."""

    dataset: Annotated[Annotated[str, CleanText(128)] | None, BlankAsNone] = None


class ProjectPageQuery(ListPageQuery):
    """The query string of a project; `made` is a dataset that was just made from it."""

    made: Annotated[Annotated[str, CleanText(128)] | None, BlankAsNone] = None


@router.get("/labeling", dependencies=[require_any_scope("labels:read", "labels:write")])
def labeling_projects_page(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    caller: CallerDep,
    query: Annotated[ProjectListQuery, Query()],
) -> HTMLResponse:
    """Show the form that creates a project, and all projects, newest first."""
    can_create = {"labels:write", "datasets:read"} <= caller.scopes
    with database.read() as session:
        found = repository.list_projects(
            session, after=decode_cursor(query.after), limit=PAGE_SIZE + 1
        )
        projects, following = split_page(found, PAGE_SIZE)
        pools = repository.get_project_datasets(session, projects)
        counts = repository.count_labeled_and_skipped(session, projects)
        items = [
            project_list_item(each, pools[each.dataset_id], counts.get(each.id, LabelingCounts()))
            for each in projects
        ]
        wanted = _find_dataset(session, query.dataset, caller)
        unlabeled = form_options.unlabeled_datasets(session, wanted) if can_create else []
        bases = form_options.base_models(session, settings, caller)
    return render_template(
        request,
        "labeling.html",
        projects=items,
        datasets=unlabeled,
        selected=wanted.ref if wanted in unlabeled else None,
        base_models=bases,
        describe_labeling_task=describe_labeling_task,
        query=query,
        next=following,
    )


@router.get("/labeling/{name}", dependencies=[require_any_scope("labels:read", "labels:write")])
def labeling_project_page(
    request: Request,
    name: ProjectName,
    state: AppStateDep,
    database: DatabaseDep,
    caller: CallerDep,
    query: Annotated[ProjectPageQuery, Query()],
) -> Response:
    """Show a project: progress, labels, annotators, and the latest annotations."""
    etag = _read_etag(request, database, state.labeling, name, caller)
    if (not_modified := not_modified_response(request, etag)) is not None:
        return not_modified
    project = service.get_project_view_after_refit(
        database, state.labeling, name=name, own_only=own_annotations_filter(caller)
    )
    with database.read() as session:
        opened = service.get_project_with_dataset_and_job(session, name)
        found = repository.list_annotations(
            session,
            opened.project.id,
            after=decode_cursor(query.after),
            limit=MAX_ANNOTATIONS + 1,
            key_name=own_annotations_filter(caller),
        )
        made = _find_dataset(session, query.made, caller)
    rows, following = split_page(found, MAX_ANNOTATIONS)
    return render_template(
        request,
        "labeling_project.html",
        etag=etag,
        project=project,
        annotations=annotations.annotation_views(state.labeling, opened, rows),
        made=made,
        min_random=MIN_RANDOM_TEXTS,
        max_text_characters=MAX_TEXT_CHARACTERS,
        describe_labeling_task=describe_labeling_task,
        format_annotation=format_annotation,
        own_annotator=lambda each: annotator_name_within_key(each, caller),
        missing=formats.MISSING_VALUE,
        query=query,
        next=following,
    )


@router.get("/labeling/{name}/label", dependencies=[require_scope("labels:write")])
def label_texts_page(  # noqa: PLR0913 - parameters are the request's inputs
    request: Request,
    name: ProjectName,
    state: AppStateDep,
    database: DatabaseDep,
    caller: CallerDep,
    row: Annotated[int | None, Query(ge=1, lt=2**31)] = None,
    annotator: QueryAnnotator = None,
) -> Response:
    """Show the texts of a project one at a time, first that of `row`, if it was labeled before."""
    etag = _read_etag(request, database, state.labeling, name, caller)
    if (not_modified := not_modified_response(request, etag)) is not None:
        return not_modified
    project = service.get_project_view_after_refit(
        database, state.labeling, name=name, own_only=own_annotations_filter(caller)
    )
    reopened = None
    if row is not None and not project.dataset_deleted:
        reopened = _find_labeled_text(database, state.labeling, name, row, annotator, caller)
    script_data = {
        "name": project.name,
        "task": project.task.type,
        "labels": [each.name for each in project.labels],
        "reopened": reopened,
        # What one API key could not send yet is not sent by another one.
        "outbox": f"labeling/{project.id}/{caller.id}/",
    }
    return render_template(
        request,
        "label_texts.html",
        etag=etag,
        project=project,
        script_data=script_data,
        min_random=MIN_RANDOM_TEXTS,
        max_annotator_characters=MAX_ANNOTATOR_CHARACTERS,
    )


def _read_etag(
    request: Request, database: Database, pools: LabelingPools, name: str, caller: Caller
) -> str:
    with database.read() as session:
        opened = service.get_project_with_dataset_and_job(session, name)
    behind = pools.is_behind(opened.project)  # a fit may end after the response
    return page_etag(request, caller, *service.project_view_fingerprint(opened), behind)


def _find_labeled_text(
    database: Database,
    pools: LabelingPools,
    name: str,
    row: int,
    annotator: str | None,
    caller: Caller,
) -> dict[str, Any] | None:
    """Return a text that an annotator has labeled, as `label_texts.js` shows it, or None."""
    who = annotations.annotator_name(caller, annotator)
    with database.read() as session:
        opened = service.get_project_with_dataset_and_job(session, name)
        annotation = repository.find_annotation(session, opened.project.id, row, who)
    texts = service.open_pool(pools, opened).texts
    index = texts.find_index_of_row(row)
    if annotation is None or index is None:
        return None
    view = annotation_view(annotation)
    fields = ("skipped",) if view.skipped else ("label", "labels", "value")
    answer = view.model_dump(include=set(fields))
    return {
        "row": row,
        **texts[index]._asdict(),
        "reason": view.reason,
        "annotator": annotator or "",
        "answer": answer,
        "before": answer,  # what undo restores
    }


def _find_dataset(session: Session, ref: str | None, caller: Caller) -> DatasetListItem | None:
    """Return a dataset, None if it does not exist or if the caller may not read it."""
    if ref is None or "datasets:read" not in caller.scopes:
        return None
    try:
        return dataset_list_item(datasets.resolve_dataset(session, ref))
    except DatasetNotFound:
        return None


def describe_labeling_task(task: LabelTypeSpec) -> str:
    """Return what each text gets."""
    if task.ordered:
        return "one of ordered labels"
    return _TASK_NAMES[task.type]


_TASK_NAMES: dict[LabelingTaskType, str] = {
    "single_label": "one label",
    "multi_label": "any number of labels",
    "regression": "a number",
}


def format_annotation(annotation: AnnotationView) -> str:
    """Return what an annotator said of a text."""
    if annotation.skipped:
        return "skipped"
    if annotation.labels is not None:
        return ", ".join(annotation.labels) or "no label"
    return annotation.label if annotation.label is not None else formats.number(annotation.value)


def annotator_name_within_key(annotation: AnnotationView, caller: Caller) -> str | None:
    """Return the annotator within the caller's API key, "" for the key itself, None for others."""
    if annotation.annotator == caller.name:
        return ""
    prefix = f"{caller.name}/"
    named = annotation.annotator.startswith(prefix)
    return annotation.annotator.removeprefix(prefix) if named else None
