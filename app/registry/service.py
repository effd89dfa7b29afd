"""What is done with named models. Promotion means moving an alias."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app import logging
from app.database.engines import Database
from app.idempotency import service as idempotency
from app.idempotency.service import Call
from app.registry import refs, repository
from app.registry.errors import (
    JobMadeNothing,
    ModelAmbiguous,
    ModelInUse,
    NoModelPromoted,
    VersionInUse,
)
from app.registry.refs import ModelRef
from app.registry.schemas import VersionView
from app.registry.tables import PRODUCTION, ModelVersion
from app.storage import repository as artifacts
from app.storage.archive import described, verified
from app.storage.service import forget_unused
from app.storage.store import ArtifactRef, Store
from app.storage.tables import Artifact


@dataclass(frozen=True)
class Resolved:
    """The version that a reference means at this moment, and where its files are."""

    name: str
    number: int
    artifact: ArtifactRef
    imported: bool  # by this installation's own row, whatever the manifest says

    @property
    def ref(self) -> str:
        """`sentiment:3`: always the same version."""
        return f"{self.name}:{self.number}"


def register(
    session: Session, *, name: str, artifact: Artifact, facts: Mapping[str, Any]
) -> ModelVersion:
    """A new version of `name`, with what the manifest tells of it.

    Does not commit: the caller has more to write with it.
    """
    owner, number = repository.next_number(session, name)
    version = ModelVersion(
        model_id=owner.id,
        number=number,
        artifact_id=artifact.id,
        job_id=artifact.job_id,
        base=facts["spec"]["base"] or "",
        method=facts["spec"]["method"]["type"],
        metrics=facts["metrics"],
    )
    session.add(version)
    session.flush()
    return version


def promote(session: Session, version: ModelVersion, *, alias: str) -> None:
    """Point `alias` at a version that was just made and tried. Does not commit."""
    repository.move_alias(session, model_id=version.model_id, alias=alias, version_id=version.id)


def register_job(
    database: Database, *, name: str, job_id: UUID, store: Store, call: Call
) -> VersionView:
    """What a job made, as a new version of `name`.

    The manifest is fetched between two short transactions. Raises `JobMadeNothing`,
    `ArtifactDamaged`, and what `idempotency.begin` raises.
    """
    with database.read() as session:
        idempotency.recall(session, call)
        artifact = artifacts.by_job(session, job_id)
    if artifact is None:
        raise JobMadeNothing(job_id=job_id)
    facts = described(store, artifact.ref, name=f"artifact {artifact.id}")
    with database.write() as session:
        idempotency.begin(session, call)
        version = register(session, name=name, artifact=artifact, facts=facts)
        view = VersionView.of(name, version)
        idempotency.keep(session, call, status=201, body=view)
        session.commit()
    logging.note("version_registered", model=view.ref, job_id=str(job_id))
    return view


def resolve(session: Session, ref: str) -> Resolved:
    """What `ref` means now. Raises `InvalidModelRef`, `ModelNotFound`, `NoModelPromoted`."""
    parsed = refs.parse(ref)
    version = repository.version(session, parsed)
    artifact = artifacts.get(session, version.artifact_id)
    return Resolved(parsed.name, version.number, artifact.ref, imported=version.imported)


def resolve_all(session: Session, alias: str) -> list[Resolved]:
    """Every version under this alias."""
    names = repository.names_with(session, alias)
    return [resolve(session, f"{name}@{alias}") for name in names]


def find(session: Session, ref: str | None) -> Resolved:
    """The version that `ref` means now; None: the only one in production.

    Raises what `resolve` raises, and `ModelAmbiguous`.
    """
    if ref is not None:
        return resolve(session, ref)
    names = repository.names_with(session, PRODUCTION)
    if not names:
        raise NoModelPromoted(what="model")
    if len(names) > 1:
        raise ModelAmbiguous(names=", ".join(names))
    return resolve(session, names[0])


def examined(database: Database, *, store: Store, name: str, number: int) -> Resolved:
    """A version whose files are whole. Raises `ModelNotFound`, `ArtifactDamaged`.

    No transaction is open while files are hashed, so that no writer waits for the disk.
    """
    with database.read() as session:
        target = resolve(session, f"{name}:{number}")
    verified(store, target.artifact, name=f"model {target.ref}")
    return target


def previous(database: Database, *, name: str, alias: str) -> int:
    """The version before. Raises `ModelNotFound`, `AliasNotFound`, `NothingBefore`."""
    with database.read() as session:
        return repository.previous(session, owner=repository.model(session, name), alias=alias)


def move_alias(
    database: Database, *, name: str, alias: str, number: int, back: bool = False
) -> None:
    """Point `alias` at a version, or `back` at the one before. Raises `ModelNotFound`."""
    with database.write() as session:
        version = repository.version(session, ModelRef(name, number=number))
        repository.move_alias(
            session, model_id=version.model_id, alias=alias, version_id=version.id, back=back
        )
        session.commit()
    logging.note("alias_moved", model=f"{name}:{number}", alias=alias, back=back)


def delete_alias(session: Session, *, name: str, alias: str) -> None:
    """Raises `ModelNotFound`, `AliasNotFound`."""
    repository.delete_alias(session, owner=repository.model(session, name), alias=alias)
    session.commit()
    logging.note("alias_deleted", model=name, alias=alias)


def delete_version(session: Session, *, name: str, number: int, store: Store) -> None:
    """Forget a version, and its files unless a job or another version needs them.

    Raises `ModelNotFound`, and `VersionInUse` under an alias.
    """
    version = repository.version(session, ModelRef(name, number=number))
    held = [
        alias
        for alias, target in repository.aliases(session, version.model_id).items()
        if target == number
    ]
    if held:
        raise VersionInUse(ref=f"{name}:{number}", aliases=_quoted(held))
    _delete(session, store, model_id=version.model_id, number=number)
    logging.note("version_deleted", model=f"{name}:{number}")


def delete_model(session: Session, *, name: str, store: Store) -> None:
    """Forget all versions of a name, as `delete_version` does.

    Raises `ModelNotFound`, and `ModelInUse` while it has an alias.
    """
    model = repository.model(session, name)
    if held := repository.aliases(session, model.id):
        raise ModelInUse(name=name, aliases=_quoted(held))
    _delete(session, store, model_id=model.id)
    logging.note("model_deleted", model=name)


def _delete(session: Session, store: Store, *, model_id: UUID, number: int | None = None) -> None:
    artifact_ids = repository.delete_versions(session, model_id=model_id, number=number)
    forget_unused(session, store, artifact_ids)


def _quoted(aliases: Any) -> str:
    return ", ".join(f"the alias {alias!r}" for alias in aliases)
