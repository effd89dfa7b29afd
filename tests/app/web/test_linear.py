"""Pages of linear models show no encoder settings."""

import json
import re
from html import unescape
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.queue.transitions import PermanentFailure
from app.resources import Resources
from tests.app.serving.conftest import Publish, publish
from tests.app.web.finished_jobs import add, end, succeed
from tests.app.web.html_elements import visible_text
from tests.linear_artifact import make_linear_artifact

__all__ = ["publish"]

LINEAR = {"type": "linear", "C": 8.0}


def page(client: TestClient, address: str) -> str:
    answer = client.get(address, headers={"Accept": "text/html"})
    assert answer.status_code == 200, answer.text
    return answer.text


def test_job_shows_no_base_model_curves_or_training_settings(
    client: TestClient, resources: Resources
) -> None:
    job_id = succeed(client, resources, method=LINEAR)
    found = page(client, f"/jobs/{job_id}")
    read = visible_text(found)
    assert "linear C 8 · rotten-tomatoes · created" in read
    assert "minilm" not in found
    assert "terms, 1,234 weights, fitted in 3.0 s." in read
    assert "best checkpoint" not in read
    assert re.search(r'<section id="curves" hidden', found)
    settings = set(re.findall(r"<code>([\w.]+)</code></th>", found))
    assert {"method.C", "method.ngram_range", "data.source", "task.class_weights"} <= settings
    assert not {name for name in settings if re.match(r"base|optim|stop|runtime|trial", name)}
    listed = visible_text(page(client, "/?method=linear"))
    assert "linear C 8" in listed
    assert "rotten-tomatoes ·" not in listed


def test_failed_job_restarts_from_the_beginning(client: TestClient, resources: Resources) -> None:
    job_id = add(client, method=LINEAR)
    end(resources, PermanentFailure("oom_fit", "No memory."))
    found = page(client, f"/jobs/{job_id}")
    assert (
        f'data-request="POST /v1/jobs/{job_id}/retry" data-confirm="Start from the beginning?'
        in found
    )


def test_form_fields_by_method(client: TestClient) -> None:
    found = page(client, "/jobs/new")
    fields = {
        "linear probe": ("method.C", "method.class_weight"),
        "linear": ("method.ngram_range", "method.min_df"),
        "auto": ("method.time_budget",),
        "lora baseline full": ("stop.patience",),
        "auto lora baseline full": ("optim.epochs",),
        "auto probe lora baseline full": ("base", "pooling", "data.max_length", "runtime.device"),
    }
    for methods, names in fields.items():
        for name in names:
            before = found.partition(f'name="{name}"')[0]
            assert before.rpartition("data-method=")[2].startswith(f'"{methods}"'), name


def test_form_is_filled_from_a_job(client: TestClient) -> None:
    job_id = add(client, method={**LINEAR, "ngram_range": [1, 3]}, base="ignored")
    found = page(client, f"/jobs/new?from={job_id}")
    given = json.loads(unescape(re.findall(r'data-initial="([^"]*)"', found)[0]))
    assert given == {"method": {**LINEAR, "ngram_range": [1, 3]}}
    assert re.search(r'name="method.ngram_range"[^>]* value="1,3"', found)
    assert re.search(r'value="linear"[^>]* checked', found)


def test_a_sweep_over_c(client: TestClient) -> None:
    address = "/sweeps/new?job.method.type=linear&space.method.C=1,4,16&strategy.type=grid"
    found = page(client, address)
    assert '<dd id="plan-trials">3' in found
    body = json.loads(unescape(re.findall(r'id="submit"[^>]*data-body="([^"]*)"', found)[0]))
    sweep = client.post("/v1/sweeps", json=body).json()
    shown = visible_text(page(client, f"/sweeps/{sweep['id']}"))
    assert "Method linear Parallel" in shown
    assert "epochs" not in shown


@pytest.mark.parametrize("linear", [True, False])
def test_export_formats_by_method(
    linear: bool, client: TestClient, publish: Publish, tmp_path: Path
) -> None:
    if linear:
        facts = {"spec": {"base": None, "method": LINEAR}, "metrics": {}}
        publish(artifact=make_linear_artifact(tmp_path / "made"), manifest=facts)
    else:
        publish()
    found = visible_text(page(client, "/models/sentiment"))
    export = "models export --url http://testserver sentiment"
    assert (f"{export} --format peft" in found) is not linear
    assert export in found
