"""The pages show the method `linear` without what only encoders have."""

import json
import re
from html import unescape
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.queue.transitions import Failed
from app.resources import Resources
from tests.app.serving.conftest import Publish, publish
from tests.app.web.finished import add, end, succeed
from tests.app.web.markup import plain
from tests.linear_artifact import make_linear_artifact

__all__ = ["publish"]

LINEAR = {"type": "linear", "C": 8.0}


def page(client: TestClient, address: str) -> str:
    answer = client.get(address, headers={"Accept": "text/html"})
    assert answer.status_code == 200, answer.text
    return answer.text


def test_a_job_has_no_base_no_curves_and_no_settings_of_training(
    client: TestClient, resources: Resources
) -> None:
    job_id = succeed(client, resources, method=LINEAR)
    found = page(client, f"/jobs/{job_id}")
    read = plain(found)
    assert "linear C 8 · rotten-tomatoes · made" in read
    assert "minilm" not in found
    assert "terms, 1,234 weights, fitted in 3.0 s." in read
    assert "weights of step" not in read
    assert re.search(r'<section id="curves" hidden', found)
    settings = set(re.findall(r"<code>([\w.]+)</code></th>", found))
    assert {"method.C", "method.ngram_range", "data.source", "task.class_weights"} <= settings
    assert not {name for name in settings if re.match(r"base|optim|stop|runtime|trial", name)}
    listed = plain(page(client, "/?method=linear"))
    assert "linear C 8" in listed
    assert "rotten-tomatoes ·" not in listed


def test_a_failed_job_begins_anew(client: TestClient, resources: Resources) -> None:
    job_id = add(client, method=LINEAR)
    end(resources, Failed("oom_fit", "No memory."))
    found = page(client, f"/jobs/{job_id}")
    assert f'data-call="POST /v1/jobs/{job_id}/retry" data-confirm="Begin anew?' in found


def test_the_form_has_its_fields_and_hides_those_of_encoders(client: TestClient) -> None:
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


def test_the_form_is_filled_with_the_settings_of_a_job(client: TestClient) -> None:
    job_id = add(client, method={**LINEAR, "ngram_range": [1, 3]}, base="ignored")
    found = page(client, f"/jobs/new?from={job_id}")
    given = json.loads(unescape(re.findall(r'data-given="([^"]*)"', found)[0]))
    assert given == {"method": {**LINEAR, "ngram_range": [1, 3]}}
    assert re.search(r'name="method.ngram_range"[^>]* value="1,3"', found)
    assert re.search(r'value="linear"[^>]* checked', found)


def test_a_sweep_over_c(client: TestClient) -> None:
    address = "/sweeps/new?job.method.type=linear&space.method.C=1,4,16&strategy.type=grid"
    found = page(client, address)
    assert '<dd id="plan-cells">3' in found
    body = json.loads(unescape(re.findall(r'id="start"[^>]*data-body="([^"]*)"', found)[0]))
    sweep = client.post("/v1/sweeps", json=body).json()
    shown = plain(page(client, f"/sweeps/{sweep['id']}"))
    assert "Method linear Jobs" in shown
    assert "epochs" not in shown


@pytest.mark.parametrize("linear", [True, False])
def test_a_version_is_offered_in_the_formats_that_it_has(
    linear: bool, client: TestClient, publish: Publish, tmp_path: Path
) -> None:
    if linear:
        facts = {"spec": {"base": None, "method": LINEAR}, "metrics": {}}
        publish(made=make_linear_artifact(tmp_path / "made"), facts=facts)
    else:
        publish()
    found = plain(page(client, "/models/sentiment"))
    assert ("As a PEFT adapter" in found) is not linear
    assert ("models export sentiment --format peft" in found) is not linear
    assert "models export sentiment" in found
