"""The sweep: rows that have had their time go first, then files that no row knows.

In this order a process that dies in between leaves files behind, which the next sweep finds, and
never a row without files.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

import structlog

from app.database.engines import Database
from app.resources import Resources
from app.retention import files, repository
from app.retention.files import Known, Removal, StoreOfAnother, units
from app.retention.repository import BATCH, Expiry
from app.settings import Settings
from app.storage.opening import open_cache
from app.sweeps import repository as sweeps
from lora_core.atomic_files import is_no_room

PAUSE_SECONDS = 0.01  # between two batches, in which others write

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Swept:
    """What went, or would go."""

    removals: Sequence[Removal]
    young: int  # of what no row knows: left for now, since a row may follow
    answers: int  # kept under an `Idempotency-Key` for long enough


def sweep(resources: Resources, *, dry_run: bool = False, any_age: bool = False) -> Swept:
    """Remove what nobody needs; a dry run only tells. Any number of processes may do so at once.

    What no row knows must be old, unless `any_age`: then nothing else may be running.

    Raises `StoreOfAnother`, `StorageUnavailable`, `StorageRefused`, and what a database raises;
    what is left then is found by the next sweep.
    """
    settings, store, database = resources.settings, resources.store, resources.database
    cache = open_cache(settings)
    ours = _is_ours(resources, claim=not dry_run)
    found = units(store.files())  # before the look at the rows, see `orphans`
    now = store.now()
    expired = [
        removal
        for expiry in _expiries(settings)
        for removal in _expire(database, expiry, dry_run=dry_run)
    ]
    answers = _drop_answers(database, settings, dry_run=dry_run)
    if not dry_run:
        _discard_unready(database, settings)
    known = _known(database)
    with database.read() as session:
        uploads = repository.live_uploads(session)
    gone = {removal.key for removal in expired}
    unknown = [each for each in files.orphans(found, known, now=now) if each.key not in gone]
    least_age = -inf if any_age else settings.orphan_seconds
    orphans = [each for each in unknown if ours and each.age_seconds > least_age]
    here = files.find(settings, cache, known, uploads)
    if not dry_run:
        for removal in (*expired, *orphans):
            store.delete(removal.key)
            _tell(removal)
        for removal in here:
            files.remove(settings, cache, removal)
            _tell(removal)
    return Swept((*expired, *orphans, *here), len(unknown) - len(orphans), answers)


def disk_use(resources: Resources) -> dict[str, int]:
    """Bytes by what takes them: the store, this machine's own folders, the database."""
    names = {kind: f"{kind}s" for kind in files.STORED}
    use = dict.fromkeys((*names.values(), "other"), 0)
    for unit in units(resources.store.files()):
        use[names.get(unit.kind, "other")] += unit.bytes
    with resources.database.read() as session:
        use["database"] = repository.database_bytes(session)
    folders = {"copies": open_cache(resources.settings).root, "work": resources.settings.work_dir}
    return use | {name: files.tree_bytes(folder) for name, folder in folders.items()}


def _expiries(settings: Settings) -> Iterator[Expiry]:
    yield repository.Checkpoints(settings.keep_checkpoint_days)
    if settings.keep_artifact_days is not None:
        yield repository.models(days=settings.keep_artifact_days)
    yield repository.results(days=settings.keep_prediction_days)


def _expire(database: Database, expiry: Expiry, *, dry_run: bool) -> Iterator[Removal]:
    """Give up expired rows, few at a time. Their files are still there."""
    after = None
    while True:
        with database.read() as session:
            found, after = expiry.look(session, after)
        if dry_run:
            yield from (removal for _, removal in found)
        else:
            keys = list(dict.fromkeys(key for key, _ in found))
            for first in range(0, len(keys), BATCH):
                with database.write() as session:
                    gone = expiry.forget(session, keys[first : first + BATCH])
                    session.commit()
                yield from gone
                time.sleep(PAUSE_SECONDS)
        if after is None:
            return


def _drop_answers(database: Database, settings: Settings, *, dry_run: bool) -> int:
    seconds = settings.idempotency_seconds
    if dry_run:
        with database.read() as session:
            return repository.old_answers(session, seconds=seconds)
    dropped = 0
    while True:
        with database.write() as session:
            some = repository.forget_answers(session, seconds=seconds)
            session.commit()
        if not some:
            return dropped
        dropped += some
        time.sleep(PAUSE_SECONDS)


def _discard_unready(database: Database, settings: Settings) -> None:
    """Sweeps whose process died while it stored their trials."""
    while True:
        with database.write() as session:
            left = sweeps.oldest_unready(session, seconds=settings.orphan_seconds)
            if left is None:
                return
            sweeps.discard_unready(session, left)
            session.commit()
        time.sleep(PAUSE_SECONDS)


def _known(database: Database) -> Known:
    """What the rows say, page by page.

    Which attempts run comes first: one that ends later is among them, and the rows of one that had
    ended are there by then.
    """
    with database.read() as session:
        running = repository.running(session)
    keys: set[str] = set()
    for read in (repository.artifact_keys, repository.checkpoint_keys, repository.upload_keys):
        after = None
        while True:
            with database.read() as session:
                found, after = read(session, after)
            keys.update(found)
            if after is None:
                break
    return Known(frozenset(keys), running)


def _is_ours(resources: Resources, *, claim: bool) -> bool:
    """With the wrong database every model of the right one would look like an orphan.

    A store that is too full to be marked as ours may be another's: what no row knows stays then.
    """
    with resources.database.read() as session:
        name = repository.database_name(session)
    try:
        owner = resources.store.owner(name if claim else None)
    except OSError as error:
        if not is_no_room(error):
            raise
        owner = resources.store.owner(None)
    if owner not in (name, None):
        raise StoreOfAnother(owner=owner, name=name)
    return owner == name or not claim


def _tell(removal: Removal) -> None:
    log.info("removed", kind=removal.kind, key=removal.key, bytes=removal.bytes, why=removal.why)
