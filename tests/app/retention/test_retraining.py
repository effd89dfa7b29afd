"""Old runs of retraining are deleted, but not those that say how a version was made."""

from pathlib import Path
from typing import Any

from sqlalchemy import update

from app.auth.tables import LOCAL_KEY_ID
from app.database.base import now
from app.database.engines import Database
from app.datasets.tables import Dataset
from app.label_review.tables import DatasetCorrection
from app.resources import Resources
from app.retention import service
from tests.app.serving.conftest import Publish, publish
from tests.prediction_rows import add_texts
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


def test_runs_of_corrected_datasets_are_kept(
    resources: Resources, publish: Publish, database: Database, tmp_path: Path
) -> None:
    """Only they say which rows of a correction are live, also after its source was deleted."""
    publish()
    (tmp_path / "reviews.csv").write_text("text\nfine\n")
    source = add_texts(resources, tmp_path / "reviews.csv", rows=1, name="source")
    corrected = add_texts(resources, tmp_path / "reviews.csv", rows=1, name="corrected")
    old: dict[str, Any] = {"created_at": 1e9, "state": "failed", "new_number": None}
    kept = add_run(database, dataset_id=source.id, **old)
    add_run(database, **old)
    newest = add_run(database, **old)
    with database.write() as session:
        session.add(
            DatasetCorrection(
                dataset_id=corrected.id, corrected_from=source.id, created_by=LOCAL_KEY_ID,
                changes={"changes": [], "left_out": []}, kept=0,
            )
        )  # fmt: skip
        session.execute(update(Dataset).where(Dataset.id == source.id).values(deleted_at=now()))
    service.collect_garbage(resources)
    assert {run.id for run in all_runs(database)} == {kept, newest}
