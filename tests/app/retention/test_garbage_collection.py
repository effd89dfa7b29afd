"""Garbage collection deletes what is not needed, and nothing else."""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event, select, update

from app.auth.tables import LOCAL_KEY_ID, ApiKey
from app.database.base import new_id, now
from app.datasets import files
from app.datasets.tables import Dataset
from app.idempotency.tables import IdempotencyKey
from app.predictions import service as predictions
from app.predictions.errors import ResultsRemoved
from app.queue.enums import JobState
from app.queue.tables import Checkpoint
from app.resources import Resources
from app.retention import expiry, repository
from app.retention.files import DataKind, StoreBelongsToAnotherDatabase
from app.retention.service import collect_garbage, disk_use
from app.storage import repository as artifacts
from app.storage.errors import StorageRefused, StorageUnavailable
from app.storage.store import StoredFile
from app.storage.tables import Artifact
from tests.app.retention.conftest import DAY, World
from tests.job_rows import dump_tables, events, update_job
from tests.slow import on_both_databases

Keeping = Callable[..., Resources]


def upload(world: World, *, deleted: bool, days: float = 2.0) -> Dataset:
    """Create a dataset with its file, which stays if the row is deleted."""
    dataset = Dataset(
        id=new_id(),
        created_by=LOCAL_KEY_ID,
        name=f"reviews-{uuid4().hex}",
        version=1,
        filename="reviews.csv",
        suffix=".csv",
        sha256="0" * 64,
        bytes=4,
        text_column="text",
        label_column="label",
        split_column=None,
        rows=2,
        profile={},
        deleted_at=time.time() if deleted else None,
    )
    source = world.settings.data_dir / "file"
    source.write_text("text")
    world.resources.store.move_file_into_store(source, files.store_key(dataset))
    world.age(files.store_key(dataset), days)
    with world.database.write() as session:
        session.add(dataset)
    return dataset


# -- files without rows ------------------------------------------------------------------------


@on_both_databases
def test_old_orphans_are_deleted(world: World) -> None:
    gone, ended = new_id(), world.job()
    old = [f"jobs/{gone}/a1", f"jobs/{ended}/a1", f"checkpoints/{gone}/a1/step-5"]
    young = [f"jobs/{gone}/a2", f"checkpoints/{ended}/a1/step-7"]
    for key in old:
        world.files(key)
    for key in young:
        world.files(key, days=0.5)
    result = collect_garbage(world.resources)
    assert {removal.key for removal in result.removals} == set(old)
    assert result.too_young == len(young)
    assert world.left() == set(young)


def test_referenced_files_are_kept_at_any_age(world: World) -> None:
    job_id = world.job()
    world.model(job_id, days=1000)
    key = world.checkpoint(job_id, days=1000)
    kept = upload(world, deleted=False, days=1000)
    assert collect_garbage(world.resources).removals == ()
    assert world.left() == {f"jobs/{job_id}/a1", key, files.store_key(kept)}


def test_files_of_the_running_attempt_are_kept_and_of_earlier_ones_deleted(world: World) -> None:
    job_id = world.job(JobState.RUNNING)
    update_job(world.database, job_id, attempt=2)
    for attempt in (1, 2):
        world.files(f"jobs/{job_id}/a{attempt}")
        world.files(f"checkpoints/{job_id}/a{attempt}/step-1")
    collect_garbage(world.resources)
    assert world.left() == {f"jobs/{job_id}/a2", f"checkpoints/{job_id}/a2/step-1"}


def test_imported_model_is_kept_while_it_is_referenced(world: World) -> None:
    kept, gone = f"imports/{new_id()}", f"imports/{new_id()}"
    ref = world.files(kept)
    with world.database.write() as session:
        artifacts.add_artifact(session, job_id=None, kind="model", ref=ref)
    world.files(gone)
    [removal] = collect_garbage(world.resources).removals
    assert (removal.kind, removal.key) == (DataKind.IMPORT, gone)
    assert world.left() == {kept}


def test_leftovers_of_a_killed_copy_are_deleted(world: World) -> None:
    key = f"jobs/{new_id()}/a1"
    world.files(key)
    left = world.settings.artifacts_dir / ".unfinished" / uuid4().hex
    left.parent.mkdir()
    (world.settings.artifacts_dir / key).rename(left)
    [removal] = collect_garbage(world.resources).removals
    assert (removal.kind, removal.key) == (DataKind.UNFINISHED, f".unfinished/{left.name}")
    assert not left.exists()


def test_foreign_files_are_kept(world: World) -> None:
    world.files("made/by-hand")
    collect_garbage(world.resources)
    assert world.left() == {"made/by-hand"}


def test_file_of_a_deleted_dataset_is_deleted(world: World) -> None:
    kept, young = upload(world, deleted=False), upload(world, deleted=True, days=0.5)
    upload(world, deleted=True)
    collect_garbage(world.resources)
    assert world.left() == {files.store_key(kept), files.store_key(young)}


def test_uploads_of_version_0_1_are_collected(world: World) -> None:
    folder = world.settings.uploads_dir
    kept, gone = upload(world, deleted=False), upload(world, deleted=True)
    names = [f"{kept.id}.csv", f"{gone.id}.csv", "notes.csv", f"{gone.id}.txt"]
    (folder / ".incoming" / "broken").mkdir(parents=True)
    (folder / ".incoming" / "going-on").mkdir()
    (folder / ".incoming" / "going-on" / "file").touch()
    for name in names:
        (folder / name).touch()
    long_ago = (time.time() - 2 * DAY,) * 2
    for path in (*map(folder.joinpath, names), *(folder / ".incoming").iterdir()):
        os.utime(path, long_ago)
    assert collect_garbage(world.resources).too_young == 1
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) == sorted(
        [".incoming", ".incoming/going-on", ".incoming/going-on/file", f"{kept.id}.csv",
         "notes.csv", f"{gone.id}.txt"]
    )  # fmt: skip
    collect_garbage(world.resources, any_age=True)
    assert not (folder / ".incoming" / "going-on").exists()


# -- expired rows ------------------------------------------------------------------------------


def test_checkpoints_of_old_jobs_are_deleted(world: World) -> None:
    for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED):
        world.checkpoint(world.job(state, days=8))
    kept = {
        world.checkpoint(world.job(JobState.FAILED, days=6)),
        world.checkpoint(world.job(JobState.QUEUED)),
        world.checkpoint(world.job(JobState.RUNNING)),
    }
    result = collect_garbage(world.resources)
    assert [removal.kind for removal in result.removals] == [DataKind.CHECKPOINT] * 3
    assert world.left() == kept
    with world.database.read() as session:
        assert set(session.scalars(select(Checkpoint.key))) == kept


def test_checkpoint_is_kept_while_a_job_resumes_from_it(world: World) -> None:
    old = world.job(JobState.FAILED, days=8)
    key = world.checkpoint(old)
    for state, kept in ((JobState.QUEUED, {key}), (JobState.RUNNING, {key})):
        job_id = world.job(state)
        update_job(world.database, job_id, continues=old)
        collect_garbage(world.resources)
        assert world.left() == kept
        update_job(world.database, job_id, state=JobState.FAILED, finished_at=1.0, worker=None)
    collect_garbage(world.resources)
    assert world.left() == set()


def test_models_are_kept_for_90_days_by_default_and_forever_on_request(
    world: World, keeping: Keeping
) -> None:
    old, new = (world.model(world.job(days=days)) for days in (91, 89))
    assert collect_garbage(keeping(keep_artifact_days=None)).removals == ()
    assert [each.key for each in collect_garbage(world.resources).removals] == [old.key]
    assert world.left() == {new.key}


@on_both_databases
def test_unregistered_models_expire(world: World, keeping: Keeping) -> None:
    unused, recent, registered = world.job(days=31), world.job(days=29), world.job(days=31)
    made = {job_id: world.model(job_id) for job_id in (unused, recent, registered)}
    world.version(made[registered])
    [removal] = collect_garbage(keeping(keep_artifact_days=30)).removals
    assert (removal.kind, removal.key) == (DataKind.MODEL, f"jobs/{unused}/a1")
    assert world.left() == {f"jobs/{recent}/a1", f"jobs/{registered}/a1"}
    with world.database.read() as session:
        assert set(session.scalars(select(Artifact.id))) == {
            made[recent].id,
            made[registered].id,
        }
    row = world.row(unused)
    assert (row.state, row.artifact_id) == (JobState.SUCCEEDED, None)
    [job_event] = events(world.database, unused)
    assert (job_event.kind, job_event.seq) == ("model_removed", row.stream_seq)
    assert "deleted" in job_event.message
    for job_id in (recent, registered):
        assert events(world.database, job_id) == []
        assert world.row(job_id).artifact_id == made[job_id].id


def test_prediction_results_expire_and_the_runs_stay(world: World, keeping: Keeping) -> None:
    old, new = world.results(days=4), world.results(days=2)
    collect_garbage(world.resources)
    assert world.left() == {f"predictions/{old}/a1", f"predictions/{new}/a1"}
    result = collect_garbage(keeping(keep_prediction_days=3))
    [removal] = result.removals
    assert (removal.kind, removal.key) == (DataKind.RESULT, f"predictions/{old}/a1")
    assert world.left() == {f"predictions/{new}/a1"}
    assert world.row(old).artifact_id is None
    assert [event.kind for event in events(world.database, old)] == ["results_removed"]
    with pytest.raises(ResultsRemoved):
        predictions.get_verified_results(world.database, world.resources.store, run_id=old)


def test_orphaned_results_are_collected_like_models(world: World) -> None:
    running = world.job(JobState.RUNNING)
    world.files(f"predictions/{uuid4()}/a1", days=2)
    world.files(f"predictions/{running}/a1", days=2)
    collect_garbage(world.resources)
    assert world.left() == {f"predictions/{running}/a1"}


@on_both_databases
def test_expired_idempotent_responses_are_deleted(world: World) -> None:
    with world.database.write() as session:
        for hours in (23, 25):
            session.add(
                IdempotencyKey(
                    api_key_id=LOCAL_KEY_ID,
                    route="POST /v1/jobs",
                    key=str(hours),
                    body_sha256="",
                    status=202,
                    response_body={},
                    created_at=now() - hours * 3600,
                )
            )
    assert collect_garbage(world.resources).expired_responses == 1
    with world.database.read() as session:
        assert list(session.scalars(select(IdempotencyKey.key))) == ["23"]


def test_files_that_disappear_meanwhile_are_no_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = world.settings.uploads_dir / ".incoming" / "upload" / "gone"
    worked = world.settings.work_dir / "jobs" / "gone"
    for folder in (incoming, worked):
        folder.mkdir(parents=True)
    find_expired = os.scandir

    def scandir(path: str | Path) -> Any:
        if Path(path).name == "gone":
            Path(path).rmdir()
        return find_expired(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert collect_garbage(world.resources).removals == ()
    assert disk_use(world.resources)["work"] == 0
    assert not incoming.exists()
    assert not worked.exists()


@on_both_databases
def test_rows_are_deleted_in_small_transactions(
    world: World, keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "PAGE_SIZE", 4)
    monkeypatch.setattr(expiry.CheckpointExpiry, "batch_size", 3)
    monkeypatch.setattr(expiry.ArtifactExpiry, "batch_size", 3)
    resources = keeping(keep_artifact_days=30)
    for days in (31, 29) * 5:
        world.model(world.job(days=days))
    for _ in range(7):
        world.checkpoint(world.job(days=8))
    commits: list[object] = []
    event.listen(world.database.write_engine, "commit", commits.append)
    dry_run_keys = {removal.key for removal in collect_garbage(resources, dry_run=True).removals}
    assert commits == []
    assert {removal.key for removal in collect_garbage(resources).removals} == dry_run_keys
    assert len(dry_run_keys) == 12
    assert len(world.left()) == 5
    assert len(commits) >= 12 / 3


@on_both_databases
def test_model_registered_at_the_last_moment_is_kept(
    world: World, keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = keeping(keep_artifact_days=30)
    jobs = [world.job(days=31) for _ in range(2)]
    registered, unused = (world.model(job_id) for job_id in jobs)
    find_expired = expiry.ArtifactExpiry.find_expired

    def find_and_register(*arguments: Any) -> expiry.ExpiredPage:
        found = find_expired(*arguments)
        if found.expired:
            world.version(registered)
        return found

    monkeypatch.setattr(expiry.ArtifactExpiry, "find_expired", find_and_register)
    assert [removal.key for removal in collect_garbage(resources).removals] == [unused.key]
    assert world.left() == {registered.key}
    assert [world.row(job_id).artifact_id for job_id in jobs] == [registered.id, None]


# -- safety ------------------------------------------------------------------------------------


def test_dry_run_lists_the_same_and_changes_nothing(world: World, keeping: Keeping) -> None:
    resources = keeping(keep_artifact_days=30)
    world.files(f"jobs/{new_id()}/a1")
    world.checkpoint(world.job(days=8))
    shared, kept = world.base(), world.base()
    for job_id in (world.job(days=31), world.job(days=31)):
        world.model(job_id, base=shared)
    world.model(world.job(days=31), base=kept)
    used = world.model(world.job(), base=kept)
    upload(world, deleted=True)
    before, left = dump_tables(world.database), world.left()
    planned = collect_garbage(resources, dry_run=True)
    assert (dump_tables(world.database), world.left()) == (before, left)
    assert not (world.settings.artifacts_dir / ".owner").exists()
    done = collect_garbage(resources)
    assert [removal.key for removal in planned.removals] == [each.key for each in done.removals]
    assert len(done.removals) == 7
    assert world.left() == {used.key, kept.key}
    assert collect_garbage(resources).removals == ()


def test_failed_run_leaves_files_but_no_row_without_files(
    world: World, keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = keeping(keep_artifact_days=30)
    model, job_id = world.job(days=31), world.job(days=8)
    world.model(model)
    world.checkpoint(job_id)
    left = world.left()

    def fails(_: str) -> None:
        raise StorageUnavailable(reason="gone")

    with monkeypatch.context() as patch:
        patch.setattr(resources.store, "delete", fails)
        with pytest.raises(StorageUnavailable):
            collect_garbage(resources)
    assert world.left() == left
    assert world.row(model).artifact_id is None
    assert len(collect_garbage(resources).removals) == 2
    assert world.left() == set()


def test_a_file_that_may_not_be_deleted_keeps_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, *others = sorted(f"jobs/{new_id()}/a1" for _ in range(3))
    for key in (kept, *others):
        world.files(key)
    interrupted = world.settings.uploads_dir / files.INCOMING_DIR / "upload"
    interrupted.mkdir(parents=True)
    os.utime(interrupted, (0, 0))
    delete = world.resources.store.delete

    def refuse(key: str) -> None:
        if key == kept:
            raise StorageRefused(reason="permission denied")
        delete(key)

    monkeypatch.setattr(world.resources.store, "delete", refuse)
    with pytest.raises(StorageRefused):
        collect_garbage(world.resources)
    assert world.left() == {kept}
    assert not interrupted.exists()


def test_another_database_deletes_nothing(world: World) -> None:
    collect_garbage(world.resources)
    world.files(f"jobs/{new_id()}/a1")
    with world.database.write() as session:
        session.execute(update(ApiKey).values(created_at=ApiKey.created_at + 1))
    for _ in range(2):
        with pytest.raises(StoreBelongsToAnotherDatabase):
            collect_garbage(world.resources)
    assert len(world.left()) == 1
    (world.settings.artifacts_dir / ".owner").unlink()
    collect_garbage(world.resources)
    assert world.left() == set()


def test_full_store_without_owner_loses_only_expired_files(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.checkpoint(world.job(days=8))
    unknown = f"jobs/{new_id()}/a1"
    world.files(unknown)
    store = world.resources.store
    get_or_set_owner = store.get_or_set_owner

    def full(candidate: str | None) -> str | None:
        if candidate is None:
            return get_or_set_owner(None)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "get_or_set_owner", full)
    assert [each.kind for each in collect_garbage(world.resources).removals] == [
        DataKind.CHECKPOINT
    ]
    assert world.left() == {unknown}
    monkeypatch.undo()
    collect_garbage(world.resources)
    assert world.left() == set()


@on_both_databases
def test_file_that_gets_its_row_during_listing_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, find_expired = world.job(), world.resources.store.list_files

    def list_and_commit() -> Iterator[StoredFile]:
        world.model(job_id)
        return find_expired()

    monkeypatch.setattr(world.resources.store, "list_files", list_and_commit)
    assert collect_garbage(world.resources).removals == ()
    monkeypatch.undo()
    assert world.left() == {f"jobs/{job_id}/a1"}


@on_both_databases
def test_two_concurrent_runs_do_no_harm(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.checkpoint(world.job(days=8))
    world.files(f"jobs/{new_id()}/a1")
    kept = world.checkpoint(world.job())
    delete = world.resources.store.delete

    def second(key: str) -> None:
        monkeypatch.undo()
        collect_garbage(world.resources)
        delete(key)

    monkeypatch.setattr(world.resources.store, "delete", second)
    collect_garbage(world.resources)
    assert world.left() == {kept}


@on_both_databases
def test_disk_use_by_kind(world: World) -> None:
    job_id = world.job()
    size = world.model(job_id).bytes
    world.checkpoint(job_id)
    upload(world, deleted=False)
    world.files("made/by-hand")
    (world.settings.work_dir / "jobs").mkdir(parents=True)
    (world.settings.work_dir / "jobs" / "file").write_bytes(b"x" * 7)
    use = disk_use(world.resources)
    assert list(use) == [
        *("models", "results", "vectors", "checkpoints", "uploads", "imports", "bases", "other"),
        *("database", "copies", "work"),
    ]  # fmt: skip
    assert (use["models"], use["uploads"], use["work"], use["copies"]) == (size, 4, 7, 0)
    assert min(use["checkpoints"], use["other"]) > 0
    assert use["database"] > 100_000


def test_missing_directory_is_an_empty_store(world: World) -> None:
    shutil.rmtree(world.settings.artifacts_dir, ignore_errors=True)
    assert collect_garbage(world.resources).removals == ()
