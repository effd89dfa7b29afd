"""Several labels, numbers and ranks from the upload to the page, with real trainings."""

import csv
import io
import random
import threading
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.queue.enums import DeviceClass
from app.resources import Resources
from app.settings import Settings
from tests.job_rows import claim_next
from worker.devices import Slot
from worker.host_health import HostHealthChecker
from worker.job_runner import JobRunner

CPU = Slot("cpu", DeviceClass.CPU)
TEXTS = 600
WORDS = {"refund": 1, "invoice": 2, "parcel": 4, "password": 8}  # word -> what it adds to a number
PAGE = {"Accept": "text/html"}


def make_file(task_type: str) -> str:
    """Return a CSV file whose labels follow from the words of the texts."""
    drawn = random.Random(0)
    file = io.StringIO()
    rows = csv.writer(file)
    rows.writerow(["text", "label"])
    for number in range(TEXTS):
        words = [word for word in WORDS if drawn.random() < 0.4]
        text = f"text {number} about {' and '.join(words) or 'nothing'}"
        label = {
            "multi_label": ";".join(words),
            "regression": f"{sum(WORDS[word] for word in words):.1f}",
            "single_label": str(len(words) // 2),
        }[task_type]
        rows.writerow([text, label])
    return file.getvalue()


LINEAR = {"type": "linear"}
LORA = {"type": "lora", "r": 2, "targets": ["query"], "layers": [5]}


@pytest.mark.slow  # tests/app/cli/test_task_results.py, tests/app/web/test_task_pages.py
@pytest.mark.parametrize(
    "method",
    [LINEAR, pytest.param(LORA, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
    ids=["linear", "lora"],
)
@pytest.mark.parametrize(
    ("task", "metric", "title"),
    [
        ({"type": "multi_label"}, "macro_f1", "Macro F1"),
        pytest.param({"type": "regression"}, "rmse", "RMSE", marks=pytest.mark.slow),
        pytest.param(
            *({"type": "single_label", "ordered": True}, "accuracy", "Quadratic kappa"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["multi_label", "regression", "ordered"],
)
def test_a_job_is_trained_compared_and_shown(
    settings: Settings,
    resources: Resources,
    method: dict[str, Any],
    task: dict[str, Any],
    metric: str,
    title: str,
) -> None:
    task_type = task["type"]
    fields = {"task": task_type, "name": "mine"}
    if task_type == "multi_label":
        fields["label_separator"] = ";"
    body = {
        "method": method,
        "task": task,
        "data": {"source": "mine", "validation_size": 100, "test_size": 200},
        "register_as": "model",
        "optim": {"epochs": 1},
    }
    with TestClient(create_app(settings)) as client:
        uploaded = client.post(
            "/v1/datasets", files={"file": ("a.csv", make_file(task_type))}, data=fields
        )
        assert uploaded.status_code == 201, uploaded.text
        jobs = []
        for _ in range(2 if method is LINEAR else 1):
            created = client.post("/v1/jobs", json=body)
            assert created.status_code == 202, created.text
            jobs.append(created.json()["id"])
            runner = JobRunner(
                resources, draining=threading.Event(), host_health=HostHealthChecker(resources)
            )
            runner.run(claim_next(resources.database), CPU)
        job = client.get(f"/v1/jobs/{jobs[0]}").json()
        assert job["state"] == "succeeded", job["error"]
        report = job["summary"]["test"]
        assert job["metric"] == {"name": metric, "value": pytest.approx(report[metric])}
        assert job["verdict"]["metric"] == metric
        assert job["verdict"]["learned"] or method is not LINEAR
        query = "&".join(f"job={each}" for each in jobs)
        compared = client.get(f"/v1/jobs/compare?{query}").json()["jobs"]
        # Stored per text in float32, and as bits: the metric can be computed from it again.
        assert compared[0]["test"]["value"] == pytest.approx(report[metric], rel=1e-5)
        for other in compared[1:]:
            assert not other["test"]["against_first"]["significant"]
        for path in (f"/jobs/{jobs[0]}", f"/compare?{query}", "/models/model"):
            page = client.get(path, headers=PAGE)
            assert page.status_code == 200
        assert title in client.get(f"/jobs/{jobs[0]}", headers=PAGE).text
        errors = client.get(f"/v1/jobs/{jobs[0]}/misclassified?split=test").json()
        assert all(each["text"].startswith("text ") for each in errors)
