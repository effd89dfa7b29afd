"""Routes of models in the OpenAI API: the versions of the registry, by names that can be called."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from app.auth.middleware import require_scope
from app.http.dependencies import DatabaseDep, StoreDep
from app.http.error_responses import OPENAI_ERROR_RESPONSES
from app.openai import repository as openai_repository
from app.openai import views
from app.openai.ids import ORGANIZATION
from app.openai.schemas import OpenAIModel, OpenAIModelDeleted, OpenAIModelList
from app.registry import refs, repository, service
from app.registry.errors import InvalidModelRef, ModelNotFound
from app.registry.tables import PRODUCTION

OpenAIModelId = Annotated[
    str,
    Field(
        description="`name`, `name@alias`, `name:3` or `ft:…`.",
        json_schema_extra={"maxLength": 1024},  # of the names there are; others give 404
    ),
]
router = APIRouter(prefix="/openai/v1/models", tags=["openai"], responses=OPENAI_ERROR_RESPONSES)


def model_ref(name: str) -> str:
    """Return the name if it may be one of our models. Raises `ModelNotFound` for all others.

    Scripts that move here may still name a model of OpenAI, such as `gpt-4.1`.
    """
    if refs.parse_model_name(name) is None:
        try:
            refs.parse_ref(name)
        except InvalidModelRef as error:
            raise ModelNotFound(ref=repr(name[:100])) from error
    return name


def _model_view(name: str, created_at: float) -> OpenAIModel:
    return OpenAIModel(id=name, created=int(created_at), owned_by=ORGANIZATION)


@router.get("", dependencies=[require_scope("models:read")])
def list_openai_models(database: DatabaseDep) -> OpenAIModelList:
    """List models: those of fine-tuning jobs, and each registered model by its name, or by its
    newest version if none is in production."""
    with database.read() as session:
        promoted = set(repository.list_model_names_with_alias(session, PRODUCTION))
        names = {
            views.model_name(tuning): created_at
            for tuning, created_at in openai_repository.list_models(session)
        } | {
            model.name if model.name in promoted else f"{model.name}:{newest}": model.created_at
            for model, newest in repository.list_newest_versions(session)
        }
    return OpenAIModelList(
        data=[_model_view(name, created_at) for name, created_at in names.items()]
    )


@router.get("/{model_id:path}", dependencies=[require_scope("models:read")])
def get_openai_model(model_id: OpenAIModelId, database: DatabaseDep) -> OpenAIModel:
    """Get a model by any name that can be called: `name`, `name@alias`, `name:3` or `ft:…`."""
    with database.read() as session:
        version = repository.get_version(session, service.parse_ref(session, model_ref(model_id)))
        return _model_view(model_id, version.created_at)


@router.delete("/{model_id:path}", dependencies=[require_scope("models:admin")])
def delete_openai_model(
    model_id: OpenAIModelId, database: DatabaseDep, store: StoreDep
) -> OpenAIModelDeleted:
    """Delete a version, or with a `name` alone all versions of a model. It must have no alias."""
    with database.write() as session:
        ref = service.parse_ref(session, model_ref(model_id))
        if ref.name == model_id:
            service.delete_model(session, name=model_id, store=store)
        else:
            number = repository.get_version(session, ref).number
            service.delete_version(session, name=ref.name, number=number, store=store)
    return OpenAIModelDeleted(id=model_id)
