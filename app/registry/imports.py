"""Import of a model archive from another installation."""

import json
from pathlib import Path
from typing import Any

import structlog

from app import logging
from app.database.base import new_id
from app.database.engines import Database
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentCall
from app.registry import service
from app.registry.errors import ImportCrashed, ImportTooLarge
from app.registry.schemas import VersionView
from app.sandbox import process
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.store import Store
from app.storage.tables import MODEL_KIND
from lora_core import child_protocol
from lora_core.errors import LoraCoreError

log = structlog.get_logger(__name__)


def import_model(
    database: Database,
    store: Store,
    *,
    settings: Settings,
    name: str,
    archive: Path,
    call: IdempotentCall,
) -> VersionView:
    """Unpack and validate an archive, and register it as the next version of `name`.

    Raises the errors in the archive, `ImportTooLarge`, `ImportCrashed`, and the errors of
    `idempotency.reserve` and of a store; nothing is stored then.
    """
    with database.read() as session:
        idempotency.raise_if_replayed(session, call)
    unpacked = archive.with_name("unpacked")
    unpacked.mkdir()
    report = _unpack_and_check(archive, unpacked, settings)
    key = f"imports/{new_id()}"
    # Before the transaction, so that other writers do not wait for the store.
    ref = store.put(unpacked / report["directory"], key)
    delete_files = True
    try:
        with database.write() as session:
            idempotency.reserve(session, call)
            artifact = artifacts.add_artifact(session, job_id=None, kind=MODEL_KIND, ref=ref)
            version = service.register(
                session, name=name, artifact=artifact, manifest=report["facts"]
            )
            view = VersionView.from_version(name, version)
            idempotency.save_response(session, call, status=201, body=view)
            # A commit that fails may still have succeeded; garbage collection then decides.
            delete_files = False
            session.commit()
    finally:
        if delete_files:
            store.delete_best_effort(key)
    logging.audit("version_imported", model=view.ref)
    return view


def _unpack_and_check(archive: Path, folder: Path, settings: Settings) -> dict[str, Any]:
    """Run `python -m lora_core unpack` with resource limits, and return its report."""
    limits = process.SandboxLimits(
        settings.import_memory_mb, settings.import_seconds, settings.max_import_bytes
    )
    arguments = ["unpack", str(archive), "--into", str(folder)]
    result = process.run_child(arguments, limits=limits, cwd=folder)
    if result.returncode == 0:
        return dict(json.loads(result.stdout))
    if result.returncode == child_protocol.FAILED:
        raise result.error(LoraCoreError)
    if result.timed_out:
        limit, setting = f"{settings.import_seconds:g} s", "LORAWORKS_IMPORT_SECONDS"
        raise ImportTooLarge(limit=limit, setting=setting)
    if result.out_of_memory:
        limit, setting = f"{settings.import_memory_mb} MB", "LORAWORKS_IMPORT_MEMORY_MB"
        raise ImportTooLarge(limit=limit, setting=setting)
    log.error("import check crashed", returncode=result.returncode, stderr=result.stderr[-2000:])
    raise ImportCrashed()
