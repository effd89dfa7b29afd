"""Data of an older version is migrated, and its jobs continue."""

import json
import shutil
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text

from app.database import migrations
from app.database.base import new_id
from app.database.engines import open_database
from app.queue.tables import Checkpoint
from app.resources import open_store
from tests.e2e.conftest import Install
from tests.e2e.installation import Installation
from tests.e2e.kinds import EMBEDDED_FIRST
from tests.job_rows import SPEC, attempts, events, get_job

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
ASSETS = Path(__file__).parents[1] / "assets"
FIRST = "0001"


def downgraded(installation: Installation, spec: dict[str, object]) -> UUID:
    """Create a queued job in a database of the first version; returns its ID."""
    migrations.downgrade(installation.settings, FIRST)
    job_id = new_id()
    old = open_database(installation.settings)
    values = {"id": job_id.hex, "spec": json.dumps(spec)}
    with old.write() as session:
        key = session.scalars(text("SELECT id FROM api_keys")).one()
        session.execute(_INSERT, values | {"key": key})
    old.close()
    return job_id


_INSERT = text(
    "INSERT INTO jobs (id, created_by, metadata, method, lane, priority, spec, spec_version,"
    " spec_sha256, dataset_ids, base, plan, state, run_after, attempt, failures_counted, step,"
    " stream_seq, created_at) VALUES (:id, :key, '{}', 'lora', 'cpu', 0, :spec, 1, 'x', '{}',"
    " 'tiny', '{}', 'queued', 1, 0, 0, 0, 0, 1)"
)


@pytest.mark.slow  # the small form is in tests/contracts/test_migrated_rows.py
@EMBEDDED_FIRST
def test_job_queued_in_the_first_version_runs_after_the_upgrade(install: Install) -> None:
    installation = install()
    job_id = downgraded(installation, SPEC)
    migrations.upgrade(installation.settings)
    installation.worker("started:5", "steps:5", "succeed")
    installation.succeeded(job_id)


@pytest.mark.slow
def test_checkpoint_of_an_older_version_resumes(installation: Installation, tmp_path: Path) -> None:
    old = ASSETS / "checkpoint-v1"
    spec = json.loads((old / "spec.json").read_text())
    spec |= {"base": str(old / "base"), "data": spec["data"] | {"source": str(old / "reviews.csv")}}
    job_id = installation.submit(spec=spec, attempt=1)
    shutil.copytree(old / "step-7", tmp_path / "step-7")
    key = f"checkpoints/{job_id}/a1/step-7"
    ref = open_store(installation.settings).move_directory_into_store(tmp_path / "step-7", key)
    with installation.database.write() as session:
        place = {"job_id": job_id, "attempt": 1, "step": 7, "seq": 0}
        session.add(
            Checkpoint(**place, key=ref.key, manifest_sha256=ref.manifest_sha256, bytes=ref.bytes)
        )
    installation.worker()
    installation.succeeded(job_id)
    assert [each.first_step for each in attempts(installation.database, job_id)] == [7]
    resumed = [event for event in events(installation.database, job_id) if event.kind == "resumed"]
    assert [event.data["step"] for event in resumed] == [7]
    assert get_job(installation.database, job_id).resume_exact == resumed[0].data["exact"]
