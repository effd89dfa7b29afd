"""Response bodies of models, made from their rows."""

from sqlalchemy.orm import Session

from app.registry import repository
from app.registry.schemas import ModelView, VersionView
from app.registry.tables import ModelVersion, RegisteredModel
from lora_core.model_imports.metadata import parse_metrics_or_empty


def version_view(name: str, version: ModelVersion) -> VersionView:
    """`name` is that of the model."""
    return VersionView(
        number=version.number,
        ref=f"{name}:{version.number}",
        artifact_id=version.artifact_id,
        job_id=version.job_id,
        base=version.base or None,
        method=version.method,
        metrics=parse_metrics_or_empty(version.metrics) if version.imported else version.metrics,
        created_at=version.created_at,
    )


def model_view(session: Session, model: RegisteredModel) -> ModelView:
    return ModelView(
        name=model.name,
        created_at=model.created_at,
        aliases=repository.get_version_numbers_by_alias(session, model.id),
        versions=[
            version_view(model.name, version)
            for version in repository.list_versions(session, model.id)
        ],
    )
