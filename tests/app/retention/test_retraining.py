"""Old runs of retraining are deleted, but not those that say how a version was made."""

from typing import Any

from app.database.engines import Database
from app.resources import Resources
from app.retention import service
from tests.app.serving.conftest import Publish, publish
from tests.retraining_rows import add_run, all_runs

__all__ = ["publish"]


def test_old_runs(resources: Resources, publish: Publish, database: Database) -> None:
    publish()
    old: dict[str, Any] = {"created_at": 1e9}
    with_version = add_run(database, new_number=1, **old)
    compared = add_run(database, new_number=2, **old)  # the version was deleted; it is a try
    add_run(database, state="failed", new_number=None, **old)
    active = add_run(database, state="training", new_number=None, **old)
    recent = add_run(database, state="failed", new_number=None)
    service.collect_garbage(resources, dry_run=True)
    assert len(all_runs(database)) == 5
    service.collect_garbage(resources)
    assert {run.id for run in all_runs(database)} == {with_version, compared, active, recent}
    forever = resources.settings.model_copy(update={"keep_job_days": None})
    add_run(database, state="failed", new_number=None, **old)
    service.collect_garbage(
        Resources(forever, resources.database, resources.store, resources.notifier)
    )
    assert len(all_runs(database)) == 5


def test_newest_run_is_kept(resources: Resources, publish: Publish, database: Database) -> None:
    """It says which feedback is new."""
    publish()
    old: dict[str, Any] = {"created_at": 1e9, "state": "failed", "new_number": None}
    add_run(database, **old)
    newest = add_run(database, **old)
    service.collect_garbage(resources)
    assert [run.id for run in all_runs(database)] == [newest]
