"""Routes of models in the Mistral API: versions of the registry, by names that can be called."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from app.auth.middleware import require_scope
from app.http.dependencies import DatabaseDep, StoreDep
from app.http.error_responses import MISTRAL_ERROR_RESPONSES
from app.mistral import repository, views
from app.mistral.schemas import MistralModel, MistralModelDeleted, MistralModelList
from app.registry import refs
from app.registry import repository as registry_repository
from app.registry import service as registry

MistralModelId = Annotated[
    str,
    Field(
        description="`name`, `name@alias`, `name:3` or `ft:…`.",
        json_schema_extra={"maxLength": 1024},  # of the names there are; others give 404
    ),
]
router = APIRouter(prefix="/mistral/v1/models", tags=["mistral"], responses=MISTRAL_ERROR_RESPONSES)


@router.get("", dependencies=[require_scope("models:read")])
def list_mistral_models(database: DatabaseDep) -> MistralModelList:
    """List models: those of jobs, and each registered model by its name, or by its newest version
    if none is in production."""
    with database.read() as session:
        cards = [
            views.fine_tuned_model_card(model) for model in repository.list_job_models(session)
        ]
        names = registry.get_created_at_by_model_ref(session)
    registered = [views.registered_model_view(name, at) for name, at in names.items()]
    return MistralModelList(data=cards + registered)


@router.get("/{model_id}", dependencies=[require_scope("models:read")])
def get_mistral_model(model_id: MistralModelId, database: DatabaseDep) -> MistralModel:
    """Get a model by any name that can be called: `name`, `name@alias`, `name:3` or `ft:…`."""
    with database.read() as session:
        ref = registry.parse_ref_or_job_model(session, refs.require_model_name_syntax(model_id))
        version = registry_repository.get_version(session, ref)
        job_id = refs.job_id_in_model_name(model_id)
        models = [] if job_id is None else repository.list_job_models(session, job_id)
        if models:
            return views.fine_tuned_model_card(models[0])
        return views.registered_model_view(model_id, version.created_at)


@router.delete("/{model_id}", dependencies=[require_scope("models:admin")])
def delete_mistral_model(
    model_id: MistralModelId, database: DatabaseDep, store: StoreDep
) -> MistralModelDeleted:
    """Delete a version, or with a `name` alone all versions of a model.

    It must have no alias, and no unfinished job may read it.
    """
    with database.write() as session:
        registry.delete_model_or_version(
            session, refs.require_model_name_syntax(model_id), store=store
        )
    return MistralModelDeleted(id=model_id)
