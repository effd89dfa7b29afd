"""Full disks and damaged checkpoints.

The small forms are in tests/lora_core/training (test_kill, test_exactness, test_checkpoint) and
tests/worker (test_failures, test_run_job).
"""

import threading
from pathlib import Path

import pytest

from app.queue.enums import JobState
from tests.e2e.conftest import KINDS
from tests.e2e.installation import Installation, Outcome
from tests.e2e.test_kill import check
from tests.job_rows import attempts, events, get_job
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("kind", KINDS)
def test_job_waits_for_disk_space_and_resumes_exactly(
    installation: Installation, uninterrupted: Outcome, tmp_path: Path
) -> None:
    full = tmp_path / "full"
    job_id = installation.submit()
    installation.worker(fault=f"checkpoint_files_written:enospc:{full}")
    installation.saw(job_id, "checkpoint", count=3)
    full.touch()
    wait_until(
        lambda: get_job(installation.database, job_id).waiting_code == "storage_unavailable",
        seconds=60,
        what="the wait for the disk",
    )
    row = get_job(installation.database, job_id)
    assert row.failures_counted == 0
    assert "disk" in (row.waiting_message or "")
    manifests = list(installation.settings.artifacts_dir.rglob("step-*/manifest.json"))
    assert manifests, "the checkpoints before are intact"
    full.unlink()
    installation.succeeded(job_id)
    assert get_job(installation.database, job_id).failures_counted == 0
    check(installation, job_id, uninterrupted)


@pytest.mark.parametrize(
    ("kind", "harm"),
    [("cluster", "flip"), ("embedded", "truncate")],
)
def test_damaged_checkpoint_is_skipped_with_the_same_result(
    installation: Installation, uninterrupted: Outcome, harm: str, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    job_id = installation.submit()
    worker = installation.worker(fault=f"checkpoint_files_written@4:pause:{hold}")
    installation.saw(job_id, "checkpoint", count=3)
    threading.Timer(3, hold.unlink).start()  # keep it running until it was signalled
    worker.leave()
    saved = sorted(
        installation.settings.artifacts_dir.rglob("step-*/*.safetensors"),
        key=lambda file: int(file.parent.name.removeprefix("step-")),
    )
    content = bytearray(saved[-1].read_bytes())
    content[-1] ^= 1
    saved[-1].chmod(0o600)
    saved[-1].write_bytes(content if harm == "flip" else content[:-1])
    installation.worker()
    installation.succeeded(job_id)
    rejected = [e for e in events(installation.database, job_id) if e.kind == "checkpoint_rejected"]
    assert len(rejected) == 1
    intact, broken = (int(file.parent.name.removeprefix("step-")) for file in saved[-2:])
    last = attempts(installation.database, job_id)[-1]
    assert rejected[0].data["step"] == broken > 0
    assert last.first_step == intact
    assert get_job(installation.database, job_id).state == JobState.SUCCEEDED
    check(installation, job_id, uninterrupted)
