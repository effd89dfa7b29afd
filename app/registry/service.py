"""Operations on registered models, and import of archives. Promotion means moving an alias."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio.from_thread
import structlog
from sqlalchemy.orm import Session

from app import logging
from app.database.base import new_id
from app.database.engines import Database, call_after_commit
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentRequest
from app.outbox import repository as outbox
from app.outbox.enums import EventType
from app.queue.active_jobs import count_active_jobs
from app.queue.tables import Job
from app.registry import refs, repository
from app.registry.errors import (
    ImportCrashed,
    ImportResourcesExceeded,
    JobWithoutModel,
    ModelHasAliases,
    NoModelPromoted,
    SeveralModelsInProduction,
    VersionHasAlias,
    VersionReadByJobs,
)
from app.registry.refs import ModelRef
from app.registry.schemas import VersionView
from app.registry.tables import PRODUCTION, ModelVersion, RegisteredModel
from app.registry.views import version_view
from app.sandbox import runner
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.repository import delete_unused_artifacts
from app.storage.staged_artifact import StagedArtifact
from app.storage.store import ArtifactRef, Store, read_manifest, verify_artifact
from app.storage.tables import MODEL_KIND, Artifact
from lora_core import child_protocol
from lora_core.errors import LoraCoreError

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ResolvedModel:
    """The version that a reference currently points at, and where its files are."""

    name: str
    number: int
    artifact: ArtifactRef
    imported: bool  # according to the database, whatever the manifest claims

    @property
    def ref(self) -> str:
        """A reference that never changes its meaning: `sentiment:3`."""
        return f"{self.name}:{self.number}"


def add_version(
    session: Session, *, name: str, artifact: Artifact, manifest: Mapping[str, Any]
) -> ModelVersion:
    """Create a new version of `name`; `manifest` is that of its artifact. Does not commit.

    An artifact without a job was imported.
    """
    model, number = repository.reserve_version_number(session, name)
    version = ModelVersion(
        model_id=model.id,
        number=number,
        artifact_id=artifact.id,
        job_id=artifact.job_id,
        base=manifest["spec"]["base"] or "",
        method=manifest["spec"]["method"]["type"],
        metrics=manifest["metrics"],
    )
    session.add(version)
    session.flush()
    outbox.add_mlflow_model_change(session, model.id)
    fields = {"model": f"{name}:{number}"}
    if artifact.job_id is None:
        action = "version_imported"
    else:
        action, fields["job_id"] = "version_registered", str(artifact.job_id)
    call_after_commit(session, partial(logging.write_audit_line, action, **fields))
    return version


def register_version(
    database: Database, *, name: str, job_id: UUID, store: Store, call: IdempotentRequest
) -> VersionView:
    """Register the model of a job as a new version of `name`.

    The manifest is fetched between two short transactions. Raises `JobWithoutModel`,
    `StoredArtifactCorrupt`, and what `idempotency.reserve` raises.
    """
    with database.read() as session:
        idempotency.raise_if_replayed(session, call)
        artifact = artifacts.find_newest_model_of_job(session, job_id)
    if artifact is None:
        raise JobWithoutModel(job_id=job_id)
    manifest = read_manifest(store, artifact.ref, name=f"artifact {artifact.id}")
    with database.write() as session:
        idempotency.reserve(session, call)
        version = add_version(session, name=name, artifact=artifact, manifest=manifest)
        view = version_view(name, version)
        idempotency.save_response(session, call, status=201, body=view)
    return view


def parse_ref_or_job_model(session: Session, text: str) -> ModelRef:
    """Parse a reference; the name of a job's model stands for its first version.

    Raises `InvalidModelRef`, `ModelNotFound`.
    """
    job_id = refs.job_id_in_model_name(text)
    if job_id is not None:
        return repository.get_first_version_ref_of_job(session, job_id, ref=text)
    return refs.parse_ref(text)


def get_created_at_by_model_ref(session: Session) -> dict[str, float]:
    """Return a name by which each model can be called, with the time of its creation.

    That is its name or, if no version is in production, its newest version.
    """
    promoted = set(repository.list_model_names_with_alias(session, PRODUCTION))
    return {
        model.name if model.name in promoted else f"{model.name}:{newest}": model.created_at
        for model, newest in repository.list_models_with_newest_number(session)
    }


def resolve_model(
    session: Session, ref: str, *, lock_against_deletion: bool = False
) -> ResolvedModel:
    """Resolve a reference. Raises `InvalidModelRef`, `ModelNotFound`, `NoModelPromoted`.

    With `lock_against_deletion`, the version cannot be deleted before the transaction ends.
    """
    parsed = parse_ref_or_job_model(session, ref)
    version = repository.get_version(session, parsed, lock_against_deletion=lock_against_deletion)
    artifact = artifacts.get_artifact(session, version.artifact_id)
    return ResolvedModel(parsed.name, version.number, artifact.ref, imported=version.imported)


def resolve_all_with_alias(session: Session, alias: str) -> list[ResolvedModel]:
    """Return every version that has this alias."""
    names = repository.list_model_names_with_alias(session, alias)
    return [resolve_model(session, f"{name}@{alias}") for name in names]


def resolve_or_default(session: Session, ref: str | None) -> ResolvedModel:
    """Resolve a reference; None stands for the only model in production.

    Raises what `resolve_model` raises, and `SeveralModelsInProduction`.
    """
    if ref is not None:
        return resolve_model(session, ref)
    names = repository.list_model_names_with_alias(session, PRODUCTION)
    if not names:
        raise NoModelPromoted(what="model")
    if len(names) > 1:
        raise SeveralModelsInProduction(names=", ".join(names))
    return resolve_model(session, names[0])


def verify_version(database: Database, *, store: Store, name: str, number: int) -> ResolvedModel:
    """Return a version after verifying its files. Raises `ModelNotFound`, `StoredArtifactCorrupt`.

    No transaction is open while files are hashed, so that no writer waits for the disk.
    """
    with database.read() as session:
        target = resolve_model(session, f"{name}:{number}")
    verify_artifact(store, target.artifact, name=f"model {target.ref}")
    return target


def get_rollback_version_number(session: Session, *, name: str, alias: str) -> int:
    """Return the number of the version that an alias pointed at before.

    Raises `ModelNotFound`, `AliasNotFound`, `NothingToRollBack`.
    """
    return repository.get_rollback_version_number(
        session, model=repository.get_model(session, name), alias=alias
    )


def move_alias(
    session: Session, *, name: str, alias: str, number: int, rollback: bool = False
) -> None:
    """Point `alias` at a version; `rollback`: at its previous one.

    Raises `ModelNotFound`, and what `repository.move_alias` raises.
    """
    version = repository.get_version(session, ModelRef(name, number=number))
    point_alias_and_publish(session, version, alias=alias, rollback=rollback)


def point_alias_and_publish(
    session: Session, version: ModelVersion, *, alias: str, rollback: bool = False, **cause: str
) -> None:
    """Point an alias at a version. A version that is new in production is an event.

    `cause` is added to the audit line. Does not commit.
    """
    moved = repository.move_alias(
        session,
        model_id=version.model_id,
        alias=alias,
        version_id=version.id,
        rollback=rollback,
    )
    if not moved:
        return
    name = session.get_one(RegisteredModel, version.model_id).name
    ref = f"{name}:{version.number}"
    fields = {"model": ref, "alias": alias, "back": rollback, **cause}
    call_after_commit(session, partial(logging.write_audit_line, "alias_moved", **fields))
    outbox.add_mlflow_model_change(session, version.model_id)
    if alias == PRODUCTION:
        data = {
            "id": ref,
            "name": name,
            "version": version.number,
            "job_id": None if version.job_id is None else str(version.job_id),
        }
        outbox.publish_event(session, EventType.MODEL_PROMOTED, data)


def delete_alias(session: Session, *, name: str, alias: str) -> None:
    """Delete an alias. Raises `ModelNotFound`, `AliasNotFound`."""
    model = repository.get_model(session, name)
    repository.delete_alias(session, model=model, alias=alias)
    outbox.add_mlflow_model_change(session, model.id)
    call_after_commit(
        session, partial(logging.write_audit_line, "alias_deleted", model=name, alias=alias)
    )


def delete_version(session: Session, *, name: str, number: int, store: Store) -> None:
    """Delete a version, and its files unless a job or another version needs them.

    Raises `ModelNotFound`, `VersionHasAlias` if it has an alias, and `VersionReadByJobs`.
    """
    version = repository.get_version(session, ModelRef(name, number=number))
    pointing = [
        alias
        for alias, target in repository.get_version_numbers_by_alias(
            session, version.model_id
        ).items()
        if target == number
    ]
    if pointing:
        raise VersionHasAlias(ref=f"{name}:{number}", aliases=_quote_aliases(pointing))
    _delete_versions(session, store, model=name, model_id=version.model_id, number=number)
    call_after_commit(
        session, partial(logging.write_audit_line, "version_deleted", model=f"{name}:{number}")
    )


def delete_model(session: Session, *, name: str, store: Store) -> None:
    """Delete all versions of a model, as `delete_version` does.

    Raises `ModelNotFound`, `ModelHasAliases` while the model has an alias, and `VersionReadByJobs`.
    """
    model = repository.get_model(session, name)
    if aliases := repository.get_version_numbers_by_alias(session, model.id):
        raise ModelHasAliases(name=name, aliases=_quote_aliases(aliases))
    _delete_versions(session, store, model=name, model_id=model.id)
    call_after_commit(session, partial(logging.write_audit_line, "model_deleted", model=name))


def delete_model_or_version(session: Session, text: str, *, store: Store) -> None:
    """Delete the version that a reference names, or with a name alone the whole model.

    Raises what `parse_ref_or_job_model`, `delete_model` and `delete_version` raise.
    """
    ref = parse_ref_or_job_model(session, text)
    if ref.name == text:
        delete_model(session, name=text, store=store)
        return
    number = repository.get_version(session, ref).number
    delete_version(session, name=ref.name, number=number, store=store)


def _delete_versions(
    session: Session, store: Store, *, model: str, model_id: UUID, number: int | None = None
) -> None:
    # The locks exclude jobs that are being submitted for these versions.
    versions = repository.list_and_lock_versions(session, model_id=model_id, number=number)
    for version in versions:
        ref = f"{model}:{version.number}"
        if count := count_active_jobs(session, Job.base == ref):
            raise VersionReadByJobs(ref=ref, count=count)
    artifact_ids = repository.delete_versions(session, model_id=model_id, versions=versions)
    delete_unused_artifacts(session, store, artifact_ids)
    outbox.add_mlflow_model_change(session, model_id)


def _quote_aliases(aliases: Any) -> str:
    return ", ".join(f"the alias {alias!r}" for alias in aliases)


# -- Import of a model archive from another installation ------------------------------------------


def import_model_version(
    database: Database,
    store: Store,
    *,
    settings: Settings,
    name: str,
    archive: Path,
    call: IdempotentRequest,
) -> VersionView:
    """Unpack and validate an archive, and register it as the next version of `name`.

    Raises the errors in the archive, `ImportResourcesExceeded`, `ImportCrashed`, and the errors of
    `idempotency.reserve` and of a store; nothing is stored then.
    """
    with database.read() as session:
        idempotency.raise_if_replayed(session, call)
    unpacked = archive.with_name("unpacked")
    unpacked.mkdir()
    report = _unpack_and_check(archive, unpacked, settings)
    directory = (unpacked / report["directory"]).resolve()
    if not directory.is_relative_to(unpacked.resolve()):  # the process read what is not trusted
        raise ImportCrashed()
    # Before the transaction, so that other writers do not wait for the store.
    new = StagedArtifact(store, directory, f"imports/{new_id()}")
    delete_files = True

    def register() -> VersionView:
        nonlocal delete_files
        anyio.from_thread.check_cancelled()  # the files may have taken minutes to store
        with database.write() as session:
            artifact = new.add_row(session, job_id=None, kind=MODEL_KIND)
            idempotency.reserve(session, call)
            version = add_version(session, name=name, artifact=artifact, manifest=report["facts"])
            view = version_view(name, version)
            idempotency.save_response(session, call, status=201, body=view)
            # A commit that fails may still have succeeded; garbage collection then decides.
            delete_files = False
        return view

    try:
        view = new.retry_after_storing_base(register)
    finally:
        if delete_files:
            new.delete_files()
    return view


def _unpack_and_check(archive: Path, folder: Path, settings: Settings) -> dict[str, Any]:
    """Run `python -m lora_core unpack` with resource limits, and return its report."""
    limits = runner.SandboxLimits(
        settings.import_memory_mb, settings.import_seconds, settings.max_import_bytes
    )
    arguments = ["unpack", str(archive), "--into", str(folder)]
    result = runner.run_lora_core_sandboxed(
        arguments, limits=limits, readable=[archive], writable=[folder]
    )
    if result.returncode == 0:
        return dict(json.loads(result.stdout))
    if result.returncode == child_protocol.EXIT_FAILED:
        raise result.parse_error(LoraCoreError)
    if result.timed_out:
        limit, setting = f"{settings.import_seconds:g} s", "LORAWORKS_IMPORT_SECONDS"
        raise ImportResourcesExceeded(limit=limit, setting=setting)
    if result.out_of_memory:
        limit, setting = f"{settings.import_memory_mb} MB", "LORAWORKS_IMPORT_MEMORY_MB"
        raise ImportResourcesExceeded(limit=limit, setting=setting)
    log.error("import check crashed", returncode=result.returncode, stderr=result.stderr[-2000:])
    raise ImportCrashed()
