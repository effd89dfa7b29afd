"""Routes of models in the OpenAI API: the versions of the registry, by names that can be called."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from app.auth.middleware import require_scope
from app.fine_tuning_apis.fine_tuned_model_names import ORGANIZATION
from app.http.dependencies import DatabaseDep, StoreDep
from app.http.error_responses import OPENAI_ERROR_RESPONSES
from app.openai import repository as openai_repository
from app.openai import views
from app.openai.schemas import OpenAIModel, OpenAIModelDeleted, OpenAIModelList
from app.registry import repository, service
from app.registry.refs import require_model_name_syntax

OpenAIModelId = Annotated[
    str,
    Field(
        description="`name`, `name@alias`, `name:3` or `ft:…`.",
        json_schema_extra={"maxLength": 1024},  # of the names there are; others give 404
    ),
]
router = APIRouter(prefix="/openai/v1/models", tags=["openai"], responses=OPENAI_ERROR_RESPONSES)


def _model_view(name: str, created_at: float) -> OpenAIModel:
    return OpenAIModel(id=name, created=int(created_at), owned_by=ORGANIZATION)


@router.get("", dependencies=[require_scope("models:read")])
def list_openai_models(database: DatabaseDep) -> OpenAIModelList:
    """List models: those of fine-tuning jobs, and each registered model by its name, or by its
    newest version if none is in production."""
    with database.read() as session:
        names = {
            views.fine_tuned_model_name(tuning): created_at
            for tuning, created_at in openai_repository.list_jobs_with_models(session)
        } | service.get_created_at_by_model_ref(session)
    return OpenAIModelList(
        data=[_model_view(name, created_at) for name, created_at in names.items()]
    )


@router.get("/{model_id:path}", dependencies=[require_scope("models:read")])
def get_openai_model(model_id: OpenAIModelId, database: DatabaseDep) -> OpenAIModel:
    """Get a model by any name that can be called: `name`, `name@alias`, `name:3` or `ft:…`."""
    with database.read() as session:
        ref = service.parse_ref_or_job_model(session, require_model_name_syntax(model_id))
        version = repository.get_version(session, ref)
        return _model_view(model_id, version.created_at)


@router.delete("/{model_id:path}", dependencies=[require_scope("models:admin")])
def delete_openai_model(
    model_id: OpenAIModelId, database: DatabaseDep, store: StoreDep
) -> OpenAIModelDeleted:
    """Delete a version, or with a `name` alone all versions of a model.

    It must have no alias, and no unfinished job may read it.
    """
    with database.write() as session:
        service.delete_model_or_version(session, require_model_name_syntax(model_id), store=store)
    return OpenAIModelDeleted(id=model_id)
