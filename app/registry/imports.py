"""A model of another installation as a version of this one."""

import json
from pathlib import Path
from typing import Any

import structlog

from app import logging
from app.database.base import new_id
from app.database.engines import Database
from app.idempotency import service as idempotency
from app.idempotency.service import Call
from app.registry import service
from app.registry.errors import ImportCrashed, ImportTooLarge
from app.registry.schemas import VersionView
from app.sandbox import process
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.store import Store
from app.storage.tables import MODEL
from lora_core import child_protocol
from lora_core.errors import LoraCoreError

log = structlog.get_logger(__name__)


def add(
    database: Database, store: Store, *, settings: Settings, name: str, archive: Path, call: Call
) -> VersionView:
    """Unpack an archive, check what is in it, and make it the next version of `name`.

    Raises what is wrong with it, `ImportTooLarge`, `ImportCrashed`, and what `idempotency.begin`
    and a store raise; nothing is kept then.
    """
    with database.read() as session:
        idempotency.recall(session, call)
    folder = archive.with_name("unpacked")
    folder.mkdir()
    checked = _check(archive, folder, settings)
    key = f"imports/{new_id()}"
    ref = store.put(folder / checked["directory"], key)  # before the transaction: nobody waits
    unwanted = True
    try:
        with database.write() as session:
            idempotency.begin(session, call)
            artifact = artifacts.add(session, job_id=None, kind=MODEL, ref=ref)
            version = service.register(
                session, name=name, artifact=artifact, facts=checked["facts"]
            )
            view = VersionView.of(name, version)
            idempotency.keep(session, call, status=201, body=view)
            unwanted = False  # a commit that breaks may have been made; the sweep will know
            session.commit()
    finally:
        if unwanted:
            store.discard(key)
    logging.note("version_imported", model=view.ref)
    return view


def _check(archive: Path, folder: Path, settings: Settings) -> dict[str, Any]:
    """What `python -m lora_core unpack` found, under limits."""
    limits = process.Limits(
        settings.import_memory_mb, settings.import_seconds, settings.max_import_bytes
    )
    arguments = ["unpack", str(archive), "--into", str(folder)]
    ended = process.run(arguments, limits=limits, folder=folder)
    if ended.status == 0:
        return dict(json.loads(ended.report))
    if ended.status == child_protocol.FAILED:
        raise ended.cause(LoraCoreError)
    if ended.out_of_time:
        limit, setting = f"{settings.import_seconds:g} s", "LORAWORKS_IMPORT_SECONDS"
        raise ImportTooLarge(limit=limit, setting=setting)
    if ended.out_of_memory:
        limit, setting = f"{settings.import_memory_mb} MB", "LORAWORKS_IMPORT_MEMORY_MB"
        raise ImportTooLarge(limit=limit, setting=setting)
    log.error("the check crashed", status=ended.status, complaints=ended.complaints[-2000:])
    raise ImportCrashed()
