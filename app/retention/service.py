"""Garbage collection: delete expired rows first, then files to which no row refers.

In this order, a process that dies in between leaves files behind, which the next run finds, but
never a row without files.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

import structlog
from sqlalchemy.orm import Session

from app.database.engines import Database
from app.drift import repository as drift
from app.feedback import repository as feedback
from app.resources import Resources, open_store_cache
from app.retention import curve_thinning, expiry, files, repository
from app.retention.expiry import ExpiryRule
from app.retention.files import ReferencedKeys, Removal, StoreBelongsToAnotherDatabase, group_by_key
from app.retraining import repository as retraining
from app.settings import Settings
from app.storage.errors import StorageRefused
from app.sweeps import repository as sweeps
from app.traffic import repository as traffic
from lora_core.atomic_files import is_disk_full

_ROWS_PER_BATCH = 500  # of traffic, which are small
PAUSE_SECONDS = 0.01  # between two batches, so that others can write

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class KindTotal:
    """How many items of one kind there are, and their size."""

    kind: str
    count: int
    bytes: int


@dataclass(frozen=True)
class GarbageCollectionResult:
    """What was deleted, or what a dry run would delete."""

    removals: Sequence[Removal]
    too_young: int  # files without a row that are kept for now: they may be in use, or get a row
    thinned_points: int  # of the curves of ended jobs
    expired_responses: int  # stored responses of an `Idempotency-Key`
    expired_traffic: int  # kept predictions
    expired_feedback: int
    expired_counts: int  # of predictions: hours that were merged into days, and old ones
    expired_drift_checks: int
    # SQLite: bytes that the database gave back to the disk, in a dry run those that it could now.
    database_bytes: int

    def freed_bytes(self) -> int:
        """Return the bytes of the files."""
        return sum(each.bytes for each in self.removals if each.kind not in files.ROW_KINDS)

    def totals(self) -> list[KindTotal]:
        """Return how much there is of each kind, the largest first. Bytes of rows are estimates."""
        totals = {
            "curve point": (self.thinned_points, self.thinned_points * repository.POINT_BYTES),
            "response": (
                self.expired_responses,
                self.expired_responses * repository.RESPONSE_BYTES,
            ),
            "kept prediction": (
                self.expired_traffic,
                self.expired_traffic * repository.PREDICTION_BYTES,
            ),
            "feedback": (self.expired_feedback, self.expired_feedback * repository.FEEDBACK_BYTES),
            "prediction count": (
                self.expired_counts,
                self.expired_counts * repository.COUNT_BYTES,
            ),
            "drift check": (
                self.expired_drift_checks,
                self.expired_drift_checks * repository.DRIFT_CHECK_BYTES,
            ),
        }
        for removal in self.removals:
            count, size = totals.get(removal.kind, (0, 0))
            totals[removal.kind.value] = (count + 1, size + removal.bytes)
        found = (KindTotal(kind, *total) for kind, total in totals.items() if total[0])
        return sorted(found, key=lambda total: total.bytes, reverse=True)


def collect_garbage(
    resources: Resources, *, dry_run: bool = False, any_age: bool = False
) -> GarbageCollectionResult:
    """Delete expired rows and orphaned files; a dry run only lists them.

    Any number of processes may run it at once. Files without a row must be old, unless `any_age` is
    set: then nothing else may be running.

    Raises `StoreBelongsToAnotherDatabase`, `StorageUnavailable`, `StorageRefused`, and database
    errors. Expired rows are deleted first; the next run finds what is left then. `StorageRefused`
    for some files is raised at the end, after all others were deleted.
    """
    settings, store, database = resources.settings, resources.store, resources.database
    cache = open_store_cache(settings)
    thinned_points = _thin_curves(database, settings, dry_run=dry_run)
    expired = {  # a dry run may find the results of a prediction run with the run and by themselves
        removal.key: removal
        for rule in _expiry_rules(settings)
        for removal in _delete_expired(database, rule, dry_run=dry_run)
    }
    if dry_run:
        with database.read() as session:
            bases = expiry.UnusedBaseExpiry().find_without_models(session, expired.keys())
        expired.update((each.key, each) for each in bases)
    rows = [each for each in expired.values() if each.kind in files.ROW_KINDS]
    with_files = [each for each in expired.values() if each.kind not in files.ROW_KINDS]
    expired_responses = _delete_expired_responses(database, settings, dry_run=dry_run)
    expired_traffic = _delete_expired_traffic(database, settings, dry_run=dry_run)
    expired_feedback = _delete_expired_feedback(database, settings, dry_run=dry_run)
    expired_counts = _thin_prediction_counts(database, dry_run=dry_run)
    expired_drift_checks = _delete_in_batches(
        database,
        drift.count_expired_checks,
        partial(drift.delete_expired_checks_and_claims, limit=_ROWS_PER_BATCH),
        dry_run=dry_run,
    )
    if not dry_run:
        _discard_unready_sweeps(database, settings)
        _delete_mlflow_rows(database)
        _delete_old_suspects(database)
        _delete_old_retrainings(database, settings)
        for removal in rows:
            _log_removal(removal)
    # After what needs no store, so that rows expire while it is unavailable.
    owns_store = _owns_store(resources, claim=not dry_run)
    stored = group_by_key(
        store.list_files()
    )  # before reading the rows, see `find_unreferenced_entries`
    now = store.read_clock()
    referenced = _referenced_keys(database)
    with database.read() as session:
        uploads = repository.list_dataset_ids(session)
    unreferenced = [
        removal
        for removal in files.find_unreferenced_entries(stored, referenced, now=now)
        if removal.key not in expired
    ]
    min_age = -inf if any_age else settings.orphan_seconds
    orphans = [each for each in unreferenced if owns_store and each.age_seconds > min_age]
    local = files.find_stale_uploads_and_cache_entries(settings, cache, referenced, uploads)
    leftovers = [each for each in local if each.age_seconds > min_age]
    refused: StorageRefused | None = None
    if not dry_run:
        for removal in (*with_files, *orphans):
            try:
                store.delete(removal.key)
            except StorageRefused as error:  # such as for a single directory of another user
                log.warning("not_removed", key=removal.key, reason=str(error))
                refused = refused or error
            else:
                _log_removal(removal)
        for removal in leftovers:
            files.delete_local_leftover(settings, cache, removal)
            _log_removal(removal)
    database_bytes = database.incremental_vacuum(dry_run=dry_run)
    if refused is not None:
        raise refused
    return GarbageCollectionResult(
        removals=(*expired.values(), *orphans, *leftovers),
        too_young=len(unreferenced) - len(orphans) + len(local) - len(leftovers),
        thinned_points=thinned_points,
        expired_responses=expired_responses,
        expired_traffic=expired_traffic,
        expired_feedback=expired_feedback,
        expired_counts=expired_counts,
        expired_drift_checks=expired_drift_checks,
        database_bytes=database_bytes,
    )


def disk_use(resources: Resources) -> dict[str, int]:
    """Return the bytes used by each part of the store, this host's directories and the database."""
    names = {kind: f"{kind}s" for kind in files.STORED_KINDS}
    use = dict.fromkeys((*names.values(), "other"), 0)
    for unit in group_by_key(resources.store.list_files()):
        use[names.get(unit.kind, "other")] += unit.bytes
    with resources.database.read() as session:
        use["database"] = repository.database_bytes(session)
    directories = {
        "copies": open_store_cache(resources.settings).root,
        "work": resources.settings.work_dir,
    }
    return use | {name: files.directory_bytes(path) for name, path in directories.items()}


def _expiry_rules(settings: Settings) -> Iterator[ExpiryRule]:
    """Yield the rules. Sweeps come before their jobs, and jobs before models, since a job that has
    a model is kept."""
    if settings.keep_job_days is not None:
        yield expiry.SweepExpiry(settings.keep_job_days)
        yield expiry.JobExpiry(settings.keep_job_days)
    if settings.keep_checkpoint_days is not None:
        yield expiry.CheckpointExpiry(settings.keep_checkpoint_days)
    if settings.keep_artifact_days is not None:
        yield expiry.unregistered_model_expiry(days=settings.keep_artifact_days)
    if settings.keep_prediction_days is not None:
        yield expiry.prediction_result_expiry(days=settings.keep_prediction_days)
        yield expiry.unused_vector_expiry(days=settings.keep_prediction_days)
    if settings.keep_delivery_days is not None:
        yield expiry.DeliveryExpiry(settings.keep_delivery_days)
    yield expiry.UnusedBaseExpiry()


def _thin_curves(database: Database, settings: Settings, *, dry_run: bool) -> int:
    """Thin the curves of all ended jobs; return the number of points."""
    points, after = 0, None
    while True:
        page = curve_thinning.thin_curves_page(
            database, max_points=settings.keep_curve_points, after=after, dry_run=dry_run
        )
        points, after = points + page.points, page.last
        if after is None:
            return points


def _delete_expired(database: Database, rule: ExpiryRule, *, dry_run: bool) -> Iterator[Removal]:
    """Delete expired rows in batches, and yield the removals of their files."""
    after = None
    while True:
        with database.read() as session:
            expired, after = rule.find_expired(session, after)
        if dry_run:
            yield from (removal for _, removal in expired)
        else:
            ids = list(dict.fromkeys(id_ for id_, _ in expired))
            for first in range(0, len(ids), rule.batch_size):
                batch = ids[first : first + rule.batch_size]
                with database.write() as session:
                    removals = rule.delete_expired_rows(session, batch)
                yield from removals
                time.sleep(PAUSE_SECONDS)
        if after is None:
            return


def _delete_expired_responses(database: Database, settings: Settings, *, dry_run: bool) -> int:
    seconds = settings.idempotency_seconds
    return _delete_in_batches(
        database,
        partial(repository.count_expired_idempotency_keys, seconds=seconds),
        partial(repository.delete_expired_idempotency_key_batch, seconds=seconds),
        dry_run=dry_run,
    )


def _delete_expired_traffic(database: Database, settings: Settings, *, dry_run: bool) -> int:
    """Delete kept predictions, also if none are kept any more."""
    days = settings.keep_traffic_days
    return _delete_in_batches(
        database,
        partial(traffic.count_expired_predictions, days=days),
        partial(traffic.delete_expired_predictions, days=days, limit=_ROWS_PER_BATCH),
        dry_run=dry_run,
    )


def _delete_expired_feedback(database: Database, settings: Settings, *, dry_run: bool) -> int:
    days = settings.keep_feedback_days
    if days is None:
        return 0
    return _delete_in_batches(
        database,
        partial(feedback.count_expired_feedback, days=days),
        partial(feedback.delete_expired_feedback, days=days, limit=_ROWS_PER_BATCH),
        dry_run=dry_run,
    )


def _thin_prediction_counts(database: Database, *, dry_run: bool) -> int:
    """Merge old counts of hours into days, and delete counts that are too old."""
    return _delete_in_batches(
        database,
        traffic.count_expired_counts,
        partial(traffic.delete_expired_counts, limit=_ROWS_PER_BATCH),
        dry_run=dry_run,
    ) + _delete_in_batches(
        database,
        traffic.count_mergeable_hourly_counts,
        partial(traffic.merge_hourly_counts, limit=_ROWS_PER_BATCH),
        dry_run=dry_run,
    )


def _delete_in_batches(
    database: Database,
    count: Callable[[Session], int],
    delete: Callable[[Session], int],
    *,
    dry_run: bool,
) -> int:
    """Delete rows batch by batch, each in its own transaction; a dry run only counts them."""
    if dry_run:
        with database.read() as session:
            return count(session)
    deleted = 0
    while True:
        with database.write() as session:
            batch = delete(session)
        if not batch:
            return deleted
        deleted += batch
        time.sleep(PAUSE_SECONDS)


def _discard_unready_sweeps(database: Database, settings: Settings) -> None:
    """Delete sweeps whose process died before all their trials were stored."""
    while True:
        with database.write() as session:
            left = sweeps.find_abandoned_unready_sweep(session, seconds=settings.orphan_seconds)
            if left is None:
                return
            sweeps.delete_unready_sweep(session, left)
        time.sleep(PAUSE_SECONDS)


def _delete_mlflow_rows(database: Database) -> None:
    """Delete what MLflow has of deleted jobs, and everything once no worker sends to it."""
    with database.write() as session:
        repository.delete_stale_mlflow_server(session)
    while True:
        with database.read() as session:
            ids = repository.list_unneeded_mlflow_runs(session)
        if not ids:
            return
        with database.write() as session:
            repository.delete_mlflow_run_rows(session, ids)
        time.sleep(PAUSE_SECONDS)


def _delete_old_suspects(database: Database) -> None:
    """Delete old reports on suspect labels. They are made again when somebody asks."""
    while True:
        with database.read() as session:
            ids = repository.list_datasets_with_old_suspect_label_reports(session)
        if not ids:
            return
        with database.write() as session:
            repository.delete_suspect_label_reports(session, ids)
        time.sleep(PAUSE_SECONDS)


def _delete_old_retrainings(database: Database, settings: Settings) -> None:
    """Delete old runs whose version is gone; the others say how it was made."""
    days = settings.keep_job_days
    while days is not None:
        with database.write() as session:
            if not retraining.delete_old_runs(session, days=days, limit=_ROWS_PER_BATCH):
                return
        time.sleep(PAUSE_SECONDS)


def _referenced_keys(database: Database) -> ReferencedKeys:
    """Return the keys to which rows refer, read page by page.

    Running attempts are read first: an attempt that ends later is among them, and the rows of one
    that has already ended are committed by then.
    """
    with database.read() as session:
        running_attempts = repository.list_running_attempts(session)
    keys: set[str] = set()
    for read_page in (
        repository.list_artifact_keys_page,
        repository.list_checkpoint_keys_page,
        repository.list_dataset_keys_page,
    ):
        after = None
        while True:
            with database.read() as session:
                page, after = read_page(session, after)
            keys.update(page)
            if after is None:
                break
    return ReferencedKeys(frozenset(keys), running_attempts)


def _owns_store(resources: Resources, *, claim: bool) -> bool:
    """Return whether the store belongs to this database, and claim it if it has no owner.

    With the wrong database, every model of the right one would look like an orphan. A store that is
    too full to be claimed may belong to another database, so orphans are kept then.
    """
    with resources.database.read() as session:
        name = repository.get_database_identity(session)
    try:
        owner = resources.store.get_or_set_owner(name if claim else None)
    except OSError as error:
        if not is_disk_full(error):
            raise
        owner = resources.store.get_or_set_owner(None)
    if owner not in (name, None):
        raise StoreBelongsToAnotherDatabase(owner=owner, name=name)
    return owner == name or not claim


def _log_removal(removal: Removal) -> None:
    log.info("removed", kind=removal.kind, key=removal.key, bytes=removal.bytes, why=removal.reason)
