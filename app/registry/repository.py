"""Queries on models, versions and aliases."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Select, Uuid, column, delete, func, select, table, tuple_, update
from sqlalchemy.orm import Session, aliased

from app.database.base import now
from app.database.engines import acquire_transaction_lock
from app.errors import AppError, ConcurrentUpdate
from app.registry.errors import AliasNotFound, ModelNotFound, NoModelPromoted, NothingToRollBack
from app.registry.refs import ModelRef
from app.registry.tables import PRODUCTION, ModelAlias, ModelVersion, RegisteredModel

# Retraining is a higher layer and cannot be imported here.
_RULES = table("retraining_rules", column("model_id", Uuid()))


@dataclass(frozen=True)
class AliasTarget:
    """The version an alias points at, and the one that a rollback would return to."""

    alias: str
    number: int
    previous_number: int | None
    moved_at: float  # Unix time in seconds


def get_model(session: Session, name: str) -> RegisteredModel:
    """Return a model with at least one version. Raises `ModelNotFound`."""
    model = session.scalar(_with_versions().where(RegisteredModel.name == name))
    if model is None:
        raise ModelNotFound(ref=name)
    return model


def list_models(session: Session, *, after: UUID | None, limit: int) -> Sequence[RegisteredModel]:
    """Return models that have versions, the newest model first."""
    statement = _with_versions().order_by(RegisteredModel.id.desc()).limit(limit)
    if after is not None:
        statement = statement.where(RegisteredModel.id < after)
    return session.scalars(statement).all()


def list_models_with_newest_number(session: Session) -> list[tuple[RegisteredModel, int]]:
    """Return all models with the number of their newest version, the newest model first."""
    rows = session.execute(
        select(RegisteredModel, func.max(ModelVersion.number))
        .join(ModelVersion, ModelVersion.model_id == RegisteredModel.id)
        .group_by(RegisteredModel.id)
        .order_by(RegisteredModel.id.desc())
    )
    return [(model, number) for model, number in rows]


def reserve_version_number(session: Session, name: str) -> tuple[RegisteredModel, int]:
    """Take the next version number of a model, which is created if it is new."""
    acquire_transaction_lock(session, f"model {name}")
    model = session.scalar(select(RegisteredModel).where(RegisteredModel.name == name))
    if model is None:
        model = RegisteredModel(name=name)
        session.add(model)
        session.flush()
    number = session.execute(
        update(RegisteredModel)
        .where(RegisteredModel.id == model.id)
        .values(last_number=RegisteredModel.last_number + 1)
        .returning(RegisteredModel.last_number)
    ).scalar_one()
    return model, number


def get_version(
    session: Session, ref: ModelRef, *, lock_against_deletion: bool = False
) -> ModelVersion:
    """Return the version of a reference. Raises `ModelNotFound`, `NoModelPromoted`.

    With `lock_against_deletion`, it cannot be deleted before the transaction ends.
    """
    statement = (
        select(ModelVersion)
        .join(RegisteredModel, RegisteredModel.id == ModelVersion.model_id)
        .where(RegisteredModel.name == ref.name)
    )
    if ref.alias is None:
        statement = statement.where(ModelVersion.number == ref.number)
    else:
        statement = statement.join(ModelAlias, ModelAlias.version_id == ModelVersion.id).where(
            ModelAlias.alias == ref.alias
        )
    if lock_against_deletion:
        statement = statement.with_for_update(read=True, key_share=True, of=ModelVersion)
    version = session.scalar(statement)
    if version is None:
        raise _not_found_error(session, ref)
    return version


def _not_found_error(session: Session, ref: ModelRef) -> AppError:
    """Return the error for a reference without a version."""
    if ref.alias == PRODUCTION and session.scalar(
        _with_versions().where(RegisteredModel.name == ref.name)
    ):
        return NoModelPromoted(what=f"version of {ref.name}")
    return ModelNotFound(ref=ref)


def list_versions(session: Session, model_id: UUID) -> Sequence[ModelVersion]:
    """Return all versions of a model, the newest first."""
    statement = select(ModelVersion).where(ModelVersion.model_id == model_id)
    return session.scalars(statement.order_by(ModelVersion.number.desc())).all()


def list_artifact_ids_by_version(
    session: Session, model_ids: Collection[UUID]
) -> dict[UUID, dict[int, UUID]]:
    """Return by model id the artifact of each version, by number, the newest first."""
    statement = (
        select(ModelVersion.model_id, ModelVersion.number, ModelVersion.artifact_id)
        .where(ModelVersion.model_id.in_(model_ids))
        .order_by(ModelVersion.number.desc())
    )
    artifact_ids: dict[UUID, dict[int, UUID]] = {model_id: {} for model_id in model_ids}
    for model_id, number, artifact_id in session.execute(statement):
        artifact_ids[model_id][number] = artifact_id
    return artifact_ids


def get_version_count_and_newest_by_model(
    session: Session, model_ids: Collection[UUID]
) -> dict[UUID, tuple[int, int]]:
    """Return by model id the number of versions, and the number of the newest one."""
    rows = session.execute(
        select(ModelVersion.model_id, func.count(), func.max(ModelVersion.number))
        .where(ModelVersion.model_id.in_(model_ids))
        .group_by(ModelVersion.model_id)
    )
    return {model_id: (count, newest) for model_id, count, newest in rows}


def find_versions_by_number(
    session: Session, numbers: Collection[tuple[UUID, int]]
) -> dict[tuple[UUID, int], ModelVersion]:
    """Return the versions of these models with these numbers, by model id and number."""
    key = tuple_(ModelVersion.model_id, ModelVersion.number)
    rows = session.scalars(select(ModelVersion).where(key.in_(numbers)))
    return {(row.model_id, row.number): row for row in rows}


def get_version_numbers_by_alias(session: Session, model_id: UUID) -> dict[str, int]:
    """Return the version number of each alias of a model, in alphabetical order."""
    return list_version_numbers_by_alias(session, [model_id])[model_id]


def list_version_numbers_by_alias(
    session: Session, model_ids: Collection[UUID]
) -> dict[UUID, dict[str, int]]:
    """Return by model id the version number of each alias, in alphabetical order."""
    statement = (
        select(ModelAlias.model_id, ModelAlias.alias, ModelVersion.number)
        .join(ModelVersion, ModelVersion.id == ModelAlias.version_id)
        .where(ModelAlias.model_id.in_(model_ids))
        .order_by(ModelAlias.alias)
    )
    numbers: dict[UUID, dict[str, int]] = {model_id: {} for model_id in model_ids}
    for model_id, alias, number in session.execute(statement):
        numbers[model_id][alias] = number
    return numbers


def list_alias_targets(session: Session, model_id: UUID) -> list[AliasTarget]:
    """Return the targets of all aliases of a model, in alphabetical order."""
    previous = aliased(ModelVersion)
    statement = (
        select(ModelAlias.alias, ModelVersion.number, previous.number, ModelAlias.moved_at)
        .join(ModelVersion, ModelVersion.id == ModelAlias.version_id)
        .outerjoin(previous, previous.id == ModelAlias.previous_id)
        .where(ModelAlias.model_id == model_id)
        .order_by(ModelAlias.alias)
    )
    return [AliasTarget(*row) for row in session.execute(statement)]


def get_aliases_by_version_of_job(
    session: Session, job_id: UUID
) -> dict[tuple[str, int], list[str]]:
    """Return the versions made from a job: (name, number) with the aliases that point at it."""
    rows = session.execute(
        select(RegisteredModel.name, ModelVersion.number, ModelAlias.alias)
        .join(ModelVersion, ModelVersion.model_id == RegisteredModel.id)
        .outerjoin(ModelAlias, ModelAlias.version_id == ModelVersion.id)
        .where(ModelVersion.job_id == job_id)
        .order_by(RegisteredModel.name, ModelVersion.number, ModelAlias.alias)
    )
    versions: dict[tuple[str, int], list[str]] = {}
    for name, number, alias in rows:
        versions.setdefault((name, number), []).extend([alias] if alias else [])
    return versions


def get_first_version_ref_of_job(session: Session, job_id: UUID, *, ref: str) -> ModelRef:
    """Return the first version that was made from a job. Raises `ModelNotFound` for `ref`."""
    row = session.execute(
        select(RegisteredModel.name, ModelVersion.number)
        .join(ModelVersion, ModelVersion.model_id == RegisteredModel.id)
        .where(ModelVersion.job_id == job_id)
        .order_by(ModelVersion.id)
        .limit(1)
    ).first()
    if row is None:
        raise ModelNotFound(ref=ref[:100])
    return ModelRef(row.name, number=row.number)


def list_model_names_with_alias(session: Session, alias: str) -> Sequence[str]:
    """Return the names of the models that have this alias, sorted."""
    statement = (
        select(RegisteredModel.name)
        .join(ModelAlias, ModelAlias.model_id == RegisteredModel.id)
        .where(ModelAlias.alias == alias)
        .order_by(RegisteredModel.name)
    )
    return session.scalars(statement).all()


def list_versions_with_alias(session: Session, alias: str) -> list[tuple[str, int]]:
    """Return (model name, version number) of each version that has this alias, by name."""
    statement = (
        select(RegisteredModel.name, ModelVersion.number)
        .join(ModelAlias, ModelAlias.model_id == RegisteredModel.id)
        .join(ModelVersion, ModelVersion.id == ModelAlias.version_id)
        .where(ModelAlias.alias == alias)
        .order_by(RegisteredModel.name)
    )
    return [(name, number) for name, number in session.execute(statement)]


def move_alias(
    session: Session, *, model_id: UUID, alias: str, version_id: UUID, rollback: bool = False
) -> bool:
    """Point an alias at a version; create the alias if it is new. Return whether it moved.

    A `rollback` clears the previous version, so that a repeated call does not undo it. The alias is
    locked, so that of two calls at the same time the later one sees what the earlier one did.

    Raises `ConcurrentUpdate` if a `rollback` finds that the version is not the previous one any
    more.
    """
    row = session.get(ModelAlias, (model_id, alias), with_for_update=True)
    if row is not None and row.version_id == version_id:
        return False
    if rollback and (row is None or row.previous_id != version_id):
        raise ConcurrentUpdate()
    if row is None:
        session.add(ModelAlias(model_id=model_id, alias=alias, version_id=version_id))
    else:
        row.previous_id = None if rollback else row.version_id
        row.version_id, row.moved_at = version_id, now()
    session.flush()
    return True


def get_rollback_version_number(session: Session, *, model: RegisteredModel, alias: str) -> int:
    """Return the number of the version that an alias pointed at before.

    Raises `AliasNotFound`, `NothingToRollBack`.
    """
    row = session.get(ModelAlias, (model.id, alias))
    if row is None:
        raise AliasNotFound(name=model.name, alias=alias)
    previous = session.get(ModelVersion, row.previous_id) if row.previous_id else None
    if previous is None:
        raise NothingToRollBack(name=model.name, alias=alias)
    return previous.number


def delete_alias(session: Session, *, model: RegisteredModel, alias: str) -> None:
    """Delete an alias. Raises `AliasNotFound`."""
    deleted = session.execute(
        delete(ModelAlias)
        .where(ModelAlias.model_id == model.id, ModelAlias.alias == alias)
        .returning(ModelAlias.alias)
    ).first()
    if deleted is None:
        raise AliasNotFound(name=model.name, alias=alias)


def list_and_lock_versions(
    session: Session, *, model_id: UUID, number: int | None = None
) -> Sequence[ModelVersion]:
    """Return a version, or all of a model, each locked exclusively."""
    statement = select(ModelVersion).where(ModelVersion.model_id == model_id)
    if number is not None:
        statement = statement.where(ModelVersion.number == number)
    return session.scalars(statement.order_by(ModelVersion.number).with_for_update()).all()


def delete_versions(
    session: Session, *, model_id: UUID, versions: Sequence[ModelVersion]
) -> frozenset[UUID]:
    """Delete versions of a model, and return their artifact ids.

    The model keeps its version counter. Its retraining rule goes with its last version.
    """
    statement = delete(ModelVersion).where(ModelVersion.id.in_([each.id for each in versions]))
    artifact_ids = frozenset(session.scalars(statement.returning(ModelVersion.artifact_id)))
    remaining = select(ModelVersion.id).where(ModelVersion.model_id == model_id).limit(1)
    if session.scalar(remaining) is None:
        session.execute(delete(_RULES).where(_RULES.c.model_id == model_id))
    return artifact_ids


def _with_versions() -> Select[RegisteredModel]:
    return select(RegisteredModel).where(
        select(ModelVersion.id).where(ModelVersion.model_id == RegisteredModel.id).exists()
    )
