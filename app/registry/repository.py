"""Rows of models, versions and aliases."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.orm import Session, aliased

from app.database.clock import now
from app.database.locks import take_turns
from app.errors import AppError
from app.registry.errors import AliasNotFound, ModelNotFound, NoModelPromoted, NothingBefore
from app.registry.refs import ModelRef
from app.registry.tables import PRODUCTION, ModelAlias, ModelVersion, RegisteredModel


@dataclass(frozen=True)
class Pointer:
    """Where an alias points, and where it would go back to."""

    alias: str
    number: int
    before: int | None
    moved_at: float


def model(session: Session, name: str) -> RegisteredModel:
    """A name with at least one version. Raises `ModelNotFound`."""
    found = session.scalar(_shown().where(RegisteredModel.name == name))
    if found is None:
        raise ModelNotFound(ref=name)
    return found


def models(session: Session, *, after: UUID | None, limit: int) -> Sequence[RegisteredModel]:
    """Names with versions, the newest name first."""
    statement = _shown().order_by(RegisteredModel.id.desc()).limit(limit)
    if after is not None:
        statement = statement.where(RegisteredModel.id < after)
    return session.scalars(statement).all()


def next_number(session: Session, name: str) -> tuple[RegisteredModel, int]:
    """Take the next version number of a name, which is made when it is new."""
    take_turns(session, f"model {name}")
    owner = session.scalar(select(RegisteredModel).where(RegisteredModel.name == name))
    if owner is None:
        owner = RegisteredModel(name=name)
        session.add(owner)
        session.flush()
    number = session.execute(
        update(RegisteredModel)
        .where(RegisteredModel.id == owner.id)
        .values(last_number=RegisteredModel.last_number + 1)
        .returning(RegisteredModel.last_number)
    ).scalar_one()
    return owner, number


def version(session: Session, ref: ModelRef) -> ModelVersion:
    """What a reference means now. Raises `ModelNotFound`, `NoModelPromoted`."""
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
    found = session.scalar(statement)
    if found is None:
        raise _absent(session, ref)
    return found


def _absent(session: Session, ref: ModelRef) -> AppError:
    """Why a reference means nothing."""
    if ref.alias == PRODUCTION and session.scalar(_shown().where(RegisteredModel.name == ref.name)):
        return NoModelPromoted(what=f"version of {ref.name}")
    return ModelNotFound(ref=ref)


def versions(session: Session, model_id: UUID) -> Sequence[ModelVersion]:
    """All versions, the newest first."""
    statement = select(ModelVersion).where(ModelVersion.model_id == model_id)
    return session.scalars(statement.order_by(ModelVersion.number.desc())).all()


def version_counts(session: Session, model_ids: Collection[UUID]) -> dict[UUID, tuple[int, int]]:
    """Model → how many versions it has, and the number of the newest."""
    rows = session.execute(
        select(ModelVersion.model_id, func.count(), func.max(ModelVersion.number))
        .where(ModelVersion.model_id.in_(model_ids))
        .group_by(ModelVersion.model_id)
    )
    return {model_id: (count, newest) for model_id, count, newest in rows}


def aliases(session: Session, model_id: UUID) -> dict[str, int]:
    """Alias → version number, by name."""
    statement = (
        select(ModelAlias.alias, ModelVersion.number)
        .join(ModelVersion, ModelVersion.id == ModelAlias.version_id)
        .where(ModelAlias.model_id == model_id)
        .order_by(ModelAlias.alias)
    )
    return {row.alias: row.number for row in session.execute(statement)}


def pointers(session: Session, model_id: UUID) -> list[Pointer]:
    """All aliases of a model, by name."""
    before = aliased(ModelVersion)
    statement = (
        select(ModelAlias.alias, ModelVersion.number, before.number, ModelAlias.moved_at)
        .join(ModelVersion, ModelVersion.id == ModelAlias.version_id)
        .outerjoin(before, before.id == ModelAlias.previous_id)
        .where(ModelAlias.model_id == model_id)
        .order_by(ModelAlias.alias)
    )
    return [Pointer(*row) for row in session.execute(statement)]


def of_job(session: Session, job_id: UUID) -> dict[tuple[str, int], list[str]]:
    """Versions made from the result of a job, (name, number), with the aliases that point there."""
    rows = session.execute(
        select(RegisteredModel.name, ModelVersion.number, ModelAlias.alias)
        .join(ModelVersion, ModelVersion.model_id == RegisteredModel.id)
        .outerjoin(ModelAlias, ModelAlias.version_id == ModelVersion.id)
        .where(ModelVersion.job_id == job_id)
        .order_by(RegisteredModel.name, ModelVersion.number, ModelAlias.alias)
    )
    found: dict[tuple[str, int], list[str]] = {}
    for name, number, alias in rows:
        found.setdefault((name, number), []).extend([alias] if alias else [])
    return found


def names_with(session: Session, alias: str) -> Sequence[str]:
    """The names that have this alias, sorted."""
    statement = (
        select(RegisteredModel.name)
        .join(ModelAlias, ModelAlias.model_id == RegisteredModel.id)
        .where(ModelAlias.alias == alias)
        .order_by(RegisteredModel.name)
    )
    return session.scalars(statement).all()


def move_alias(
    session: Session, *, model_id: UUID, alias: str, version_id: UUID, back: bool = False
) -> None:
    """Point an alias at a version; it is made when it is new.

    `back`: nothing is before it then, so that a call that was sent twice does not go forth again.
    """
    pointer = session.get(ModelAlias, (model_id, alias))
    if pointer is None:
        session.add(ModelAlias(model_id=model_id, alias=alias, version_id=version_id))
    elif pointer.version_id != version_id:
        pointer.previous_id = None if back else pointer.version_id
        pointer.version_id, pointer.moved_at = version_id, now()
    session.flush()


def previous(session: Session, *, owner: RegisteredModel, alias: str) -> int:
    """The version at which an alias pointed before. Raises `AliasNotFound`, `NothingBefore`."""
    pointer = session.get(ModelAlias, (owner.id, alias))
    if pointer is None:
        raise AliasNotFound(name=owner.name, alias=alias)
    before = session.get(ModelVersion, pointer.previous_id) if pointer.previous_id else None
    if before is None:
        raise NothingBefore(name=owner.name, alias=alias)
    return before.number


def delete_alias(session: Session, *, owner: RegisteredModel, alias: str) -> None:
    """Raises `AliasNotFound`."""
    gone = session.execute(
        delete(ModelAlias)
        .where(ModelAlias.model_id == owner.id, ModelAlias.alias == alias)
        .returning(ModelAlias.alias)
    ).first()
    if gone is None:
        raise AliasNotFound(name=owner.name, alias=alias)


def delete_versions(
    session: Session, *, model_id: UUID, number: int | None = None
) -> frozenset[UUID]:
    """One version, or all of a name, which keeps its counter. Returns their artifacts."""
    statement = delete(ModelVersion).where(ModelVersion.model_id == model_id)
    if number is not None:
        statement = statement.where(ModelVersion.number == number)
    return frozenset(session.scalars(statement.returning(ModelVersion.artifact_id)))


def _shown() -> Select[RegisteredModel]:
    return select(RegisteredModel).where(
        select(ModelVersion.id).where(ModelVersion.model_id == RegisteredModel.id).exists()
    )
