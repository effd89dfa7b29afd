"""Checkpoints are fetched from the store, and survive its outages."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from app.database.engines import Database
from app.queue.enums import JobState
from app.queue.fencing import ClaimedJob
from app.queue.tables import Checkpoint
from app.resources import Resources
from app.storage.errors import StorageUnavailable
from lora_core import manifest
from tests.job_rows import add_job, claim_next, events, get_job, get_state, points
from tests.slow import slow_but
from tests.starved import no_descriptors
from tests.waiting import wait_until
from tests.worker.test_job_runner import SAVED, in_background, run
from worker.checkpoint_sync import CheckpointSync
from worker.recorder import Recorder
from worker.workdir import attempt_dir


@pytest.fixture
def job_id(resources: Resources, database: Database) -> UUID:
    """A queued job with checkpoints of steps 2 and 3."""
    job_id = add_job(database)
    run(resources, *SAVED, "steps:3", "checkpoint:3", "signal:9")
    return job_id


@pytest.fixture
def unmounted(resources: Resources) -> Callable[[], AbstractContextManager[None]]:
    @contextmanager
    def take_away() -> Iterator[None]:
        root = resources.settings.artifacts_dir
        away = root.rename(root.with_name("away"))
        root.mkdir()
        try:
            yield
        finally:
            for path in sorted(root.rglob("*"), reverse=True):
                path.unlink()
            root.rmdir()
            away.rename(root)

    return take_away


def checkpoint_sync(resources: Resources, claimed: ClaimedJob) -> CheckpointSync:
    recorder = Recorder(
        resources.database,
        claimed.lease,
        heartbeat_seconds=5,
        delete_artifact=resources.store.delete_best_effort,
    )
    lease = claimed.lease
    directory = attempt_dir(resources.settings, lease.job_id, lease.attempt)
    return CheckpointSync(resources, lease, recorder, directory)


def bad(database: Database) -> list[bool]:
    with database.read() as session:
        return list(session.scalars(select(Checkpoint.bad).order_by(Checkpoint.seq)))


def test_store_outage_costs_no_checkpoint(
    resources: Resources,
    database: Database,
    job_id: UUID,
    unmounted: Callable[[], AbstractContextManager[None]],
) -> None:
    with unmounted():
        run(resources, "failed:started_anyway", "exit:65")
    row = get_job(database, job_id)
    assert (row.state, row.waiting_code) == (JobState.QUEUED, "storage_unavailable")
    assert "mounted" in (row.waiting_message or "")
    assert (row.failures_counted, bad(database)) == (1, [False, False])
    run(resources, "resumed:exactly", "started:5", "steps:5", "succeed")
    assert get_state(database, job_id) is JobState.SUCCEEDED
    by_kind = {event.kind: event for event in events(database, job_id)}
    assert by_kind["resumed"].data["step"] == 3


@pytest.mark.parametrize(
    "code", slow_but(["checkpoint_corrupt", "data_not_found"], "data_not_found")
)
def test_failure_during_store_outage_keeps_job_and_checkpoint(
    resources: Resources,
    database: Database,
    job_id: UUID,
    unmounted: Callable[[], AbstractContextManager[None]],
    tmp_path: Path,
    code: str,
) -> None:
    """The process reads its inputs from the store."""
    go = tmp_path / "go"
    actions = ("started:5", f"until:{go}", f"failed:{code}", "exit:65")
    thread = in_background(resources, *actions)
    wait_until(lambda: [e.kind for e in events(database, job_id)].count("training") == 2)
    with unmounted():
        go.touch()
        thread.join(30)
    row = get_job(database, job_id)
    assert (row.state, row.waiting_code) == (JobState.QUEUED, "storage_unavailable")
    assert (row.failures_counted, bad(database)) == (1, [False, False])


def test_job_without_checkpoint_files_restarts(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    root = resources.settings.artifacts_dir
    (root / "uploads").mkdir()  # the store is in use
    shutil.rmtree(root / "checkpoints")
    run(resources, "resumed:exactly", "started:5", "steps:5", "succeed")
    assert get_state(database, job_id) is JobState.SUCCEEDED
    assert bad(database) == [True, True]
    messages = [
        each.message for each in events(database, job_id) if "cannot be used" in each.message
    ]
    assert [message.rpartition(" from ")[2] for message in messages] == [
        "step 2.",
        "the beginning.",
    ]
    losses = [point.step for point in points(database, job_id) if point.name == "loss"]
    assert losses == [1, 2, 3, 4, 5]


def test_unreadable_files_cost_no_checkpoint(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    claimed = claim_next(database)
    kept = checkpoint_sync(resources, claimed)
    with no_descriptors(), pytest.raises(StorageUnavailable):
        kept.fetch(claimed.checkpoint)
    assert bad(database) == [False, False]
    checkpoint, directory = kept.fetch(claimed.checkpoint)
    assert checkpoint is not None
    assert directory is not None
    assert (checkpoint.step, manifest.verify(directory)["step"]) == (3, 3)


def test_checkpoint_with_other_content_is_skipped(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    claimed = claim_next(database)
    kept = checkpoint_sync(resources, claimed)
    _, directory = kept.fetch(claimed.checkpoint)
    assert directory is not None
    (directory / manifest.MANIFEST_FILE).unlink()
    manifest.create_and_save(directory, {"step": 9})
    checkpoint, _ = kept.fetch(claimed.checkpoint)
    assert checkpoint is not None
    assert (checkpoint.step, bad(database)) == (2, [False, True])
