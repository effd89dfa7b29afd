"""A run with non-finite metrics is reported in valid JSON.

The small forms are in tests/lora_core/training/test_encoder.py, tests/worker/test_event_rows.py and
tests/app/jobs/test_curves.py.
"""

import json

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.queue.enums import JobState
from tests.e2e.conftest import KINDS
from tests.e2e.installation import Installation
from tests.job_rows import get_job, points

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize("kind", KINDS)
def test_nonfinite_loss_fails_the_run_and_is_null_in_metrics(
    installation: Installation,
) -> None:
    optim = {"epochs": 3, "batch_size": 8, "learning_rate": 1e9, "max_grad_norm": 1e6}
    job_id = installation.submit(spec={"method": {"type": "full"}, "optim": optim})
    installation.worker()
    assert installation.ended(job_id) is JobState.FAILED
    assert get_job(installation.database, job_id).error_code == "non_finite"
    odd = [p for p in points(installation.database, job_id) if p.nonfinite]
    assert odd
    assert all(p.value is None for p in odd)
    settings = installation.settings.model_copy(update={"allowed_hosts": ("testserver",)})
    with TestClient(create_app(settings)) as client:
        for path in ("", "/metrics", "/events"):
            answer = client.get(f"/v1/jobs/{job_id}{path}")
            assert answer.status_code == 200
            json.loads(answer.text, parse_constant=refuse)
        metrics = client.get(f"/v1/jobs/{job_id}/metrics").json()["data"]
    assert any(p["nonfinite"] and p["value"] is None for p in metrics)
