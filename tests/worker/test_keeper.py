"""Checkpoints come back from the store, and none is given up because the store is away."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from app.database.engines import Database
from app.queue.fencing import Claimed
from app.queue.states import JobState
from app.queue.tables import Checkpoint
from app.resources import Resources
from app.storage.errors import StorageUnavailable
from lora_core import manifest
from tests.job_rows import add_job, events, job, points, state, take
from tests.starved import no_descriptors
from tests.waiting import wait_until
from tests.worker.test_run_job import SAVED, in_background, run
from worker.checkpoint_sync import Keeper
from worker.recorder import Recorder


@pytest.fixture
def job_id(resources: Resources, database: Database) -> UUID:
    """A job with checkpoints of the steps 2 and 3, which waits."""
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


def keeper(resources: Resources, claimed: Claimed, directory: Path) -> Keeper:
    recorder = Recorder(
        resources.database, claimed.lease, beat_seconds=5, drop=resources.store.discard
    )
    return Keeper(resources, claimed.lease, recorder, directory)


def bad(database: Database) -> list[bool]:
    with database.read() as session:
        return list(session.scalars(select(Checkpoint.bad).order_by(Checkpoint.seq)))


def test_a_store_that_is_away_costs_no_checkpoint(
    resources: Resources,
    database: Database,
    job_id: UUID,
    unmounted: Callable[[], AbstractContextManager[None]],
) -> None:
    with unmounted():
        run(resources, "failed:started_anyway", "exit:65")
    row = job(database, job_id)
    assert (row.state, row.waiting_code) == (JobState.QUEUED, "storage_unavailable")
    assert "mounted" in (row.waiting_message or "")
    assert (row.failures_counted, bad(database)) == (1, [False, False])
    run(resources, "resumed:exactly", "started:5", "steps:5", "succeed")
    assert state(database, job_id) is JobState.SUCCEEDED
    told = {event.kind: event for event in events(database, job_id)}
    assert told["resumed"].data["step"] == 3


@pytest.mark.parametrize("code", ["checkpoint_corrupt", "data_not_found"])
def test_a_training_that_fails_while_the_store_is_away_costs_neither_job_nor_checkpoint(
    resources: Resources,
    database: Database,
    job_id: UUID,
    unmounted: Callable[[], AbstractContextManager[None]],
    tmp_path: Path,
    code: str,
) -> None:
    """It reads its inputs where they lie."""
    go = tmp_path / "go"
    actions = ("started:5", f"until:{go}", f"failed:{code}", "exit:65")
    thread = in_background(resources, *actions)
    wait_until(lambda: [e.kind for e in events(database, job_id)].count("training") == 2)
    with unmounted():
        go.touch()
        thread.join(30)
    row = job(database, job_id)
    assert (row.state, row.waiting_code) == (JobState.QUEUED, "storage_unavailable")
    assert (row.failures_counted, bad(database)) == (1, [False, False])


def test_a_job_whose_checkpoints_were_removed_starts_again(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    root = resources.settings.artifacts_dir
    (root / "uploads").mkdir()  # the store is in use
    shutil.rmtree(root / "checkpoints")
    run(resources, "resumed:exactly", "started:5", "steps:5", "succeed")
    assert state(database, job_id) is JobState.SUCCEEDED
    assert bad(database) == [True, True]
    told = [each.message for each in events(database, job_id) if "damaged or gone" in each.message]
    assert [message.rpartition(" from ")[2] for message in told] == ["step 2.", "the beginning."]
    losses = [point.step for point in points(database, job_id) if point.name == "loss"]
    assert losses == [1, 2, 3, 4, 5]


def test_files_that_cannot_be_read_cost_no_checkpoint(
    resources: Resources, database: Database, job_id: UUID, tmp_path: Path
) -> None:
    claimed = take(database)
    kept = keeper(resources, claimed, tmp_path)
    with no_descriptors(), pytest.raises(StorageUnavailable):
        kept.fetch(claimed.checkpoint)
    assert bad(database) == [False, False]
    checkpoint, directory = kept.fetch(claimed.checkpoint)
    assert checkpoint is not None
    assert directory is not None
    assert (checkpoint.step, manifest.verify(directory)["step"]) == (3, 3)


def test_a_whole_checkpoint_of_another_content_is_passed_over(
    resources: Resources, database: Database, job_id: UUID, tmp_path: Path
) -> None:
    claimed = take(database)
    kept = keeper(resources, claimed, tmp_path)
    _, directory = kept.fetch(claimed.checkpoint)
    assert directory is not None
    (directory / manifest.MANIFEST).unlink()
    manifest.write(directory, {"step": 9})
    checkpoint, _ = kept.fetch(claimed.checkpoint)
    assert checkpoint is not None
    assert (checkpoint.step, bad(database)) == (2, [False, True])
