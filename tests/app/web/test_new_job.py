"""The new job form matches the API fields and the command-line options."""

import json
import re
from collections.abc import Callable
from html import unescape
from typing import Any, get_args
from uuid import UUID, uuid4

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from app.auth.service import CreatedKey
from app.cli.spec_options import SPEC_OPTIONS, option_spellings
from app.cli.train import train
from app.database.engines import Database
from app.jobs.schemas import JobCreate
from app.queue.tables import Job
from lora_core.specs.method import MethodName
from tests.job_rows import claim_next

PAGE = {"Accept": "text/html"}
FIELD = re.compile(
    r'name="([\w.]+)"[^>]*data-flag="(--[\w-]+)"|data-flag="(--[\w-]+)"[^>]*name="([\w.]+)"'
)


def initial(page: str) -> dict[str, object]:
    found = re.search(r'data-initial="([^"]*)"', page)
    assert found
    read: dict[str, object] = json.loads(unescape(found[1]))
    return read


def value(page: str, path: str) -> str:
    found = re.search(rf'name="{re.escape(path)}"[^>]*? value="([^"]*)"', page)
    assert found, path
    return unescape(found[1])


def test_fields_and_options_exist_in_api_and_command_line(client: TestClient) -> None:
    fields = re.findall(
        r'name="([\w.]+)"[^>]*?data-flag="(--[\w-]+)"', client.get("/jobs/new").text
    )
    fields += [
        (name, flag)
        for name, flag in re.findall(
            r'name="([\w.]+)" value="\w+" data-flag="(--[\w-]+)"', client.get("/jobs/new").text
        )
    ]
    assert len(set(fields)) > 20
    for path, flag in set(fields):
        if path in ("name", "register_as", "priority"):
            assert path in JobCreate.model_fields
            assert flag == f"--{path.replace('_', '-')}"
            assert path in train.__signature__.parameters  # type: ignore[attr-defined]
        else:
            assert flag in option_spellings(SPEC_OPTIONS[path]), path


@pytest.mark.parametrize(
    "fields",
    [
        {"task": {"type": "multi_label", "class_weights": "balanced"}},
        {"task": {"type": "multi_label"}, "data": {"label_separator": ";"}},
        {
            "task": {"type": "multi_label"},
            "data": {"source": "flags", "label_columns": ["bad", "good"]},
        },
        {"task": {"type": "regression"}},
        {"task": {"ordered": True}},
    ],
    ids=str,
)
def test_a_copied_job_has_the_same_task(client: TestClient, fields: dict[str, Any]) -> None:
    rows = "text,bad,good\n" + "".join(f"text {i},{i % 2},{i % 3 % 2}\n" for i in range(60))
    files = {"file": ("flags.csv", rows)}
    upload = {"task": "multi_label", "label_columns": "bad,good"}
    client.post("/v1/datasets", files=files, data=upload).raise_for_status()
    job = client.post("/v1/jobs", json={"method": {"type": "lora"}, **fields}).json()
    page = client.get(f"/jobs/new?from={job['id']}").text
    again = client.post("/v1/jobs", json=initial(page)).json()
    assert again["spec"]["task"] == job["spec"]["task"]
    assert again["spec"]["data"] == job["spec"]["data"]
    selected = re.findall(r"<option selected>(\w+)", page)
    assert job["spec"]["task"].get("type") in [*selected, "single_label"]


def test_a_copied_job_has_the_same_targets(client: TestClient) -> None:
    targets = {
        "flags": {"type": "multi_label", "column": "label", "label_separator": ";"},
        "mood": {"column": "label", "weight": 2},
    }
    body = {"method": {"type": "lora"}, "task": {"targets": targets}}
    job = client.post("/v1/jobs", json=body).json()
    page = client.get(f"/jobs/new?from={job['id']}").text
    assert "several_targets" not in re.findall(r"<option selected>(\w+)", page)
    as_text = {"targets": value(page, "task.targets")}  # what the form sends
    for task in (initial(page)["task"], as_text):
        again = client.post("/v1/jobs", json=initial(page) | {"task": task})
        assert again.json()["spec"] == job["spec"]


def test_form_offers_every_method(client: TestClient) -> None:
    offered = re.findall(r'name="method.type" value="(\w+)"', client.get("/jobs/new").text)
    assert sorted(offered) == sorted(get_args(MethodName))


def test_an_empty_form_sends_the_defaults(client: TestClient) -> None:
    page = client.get("/jobs/new").text
    assert initial(page) == {"method": {"type": "auto"}}
    assert value(page, "method.r") == ""


def test_form_is_filled_from_a_job(client: TestClient) -> None:
    body = {
        "name": 'a "quoted" <b>',
        "method": {"type": "lora", "r": 4, "targets": ["query"], "head": "frozen"},
        "optim": {"epochs": 7, "warmup": 0.5},
        "data": {"source": "imdb", "train_size": 100, "max_length": 64},
    }
    job_id = client.post("/v1/jobs", json=body).json()["id"]
    page = client.get(f"/jobs/new?from={job_id}").text
    assert value(page, "method.r") == "4"
    assert value(page, "optim.epochs") == "7"
    assert value(page, "data.source") == "imdb"
    assert value(page, "name") == body["name"]
    again = client.post("/v1/jobs", json=initial(page))
    assert again.status_code == 202
    first = client.get(f"/v1/jobs/{job_id}").json()
    assert again.json()["spec"] == first["spec"]
    assert again.json()["name"] == body["name"]


def test_a_preset_is_copied_as_its_settings(client: TestClient) -> None:
    body = {"preset": "seed", "stop": {"evaluations_per_epoch": 2}}  # as by default
    job = client.post("/v1/jobs", json=body).json()
    copied = initial(client.get(f"/jobs/new?from={job['id']}").text)
    again = client.post("/v1/jobs", json=copied).json()
    assert again["spec"] == job["spec"] | {"preset": None}
    del copied["stop"]  # as the form does for `auto`
    plan = client.post("/v1/jobs?dry_run=true", json=copied | {"method": {"type": "auto"}})
    assert plan.status_code == 200, plan.text


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_what_was_chosen_for_the_job_is_not_copied(
    client: TestClient, database: Database, device: str
) -> None:
    """Not the worker's threads, nor the candidates of `auto` for its time and data."""
    body = {"method": {"type": "auto", "time_budget": 60}, "runtime": {"device": device}}
    job_id = UUID(client.post("/v1/jobs", json=body).json()["id"])
    with database.write() as session:
        job = session.get_one(Job, job_id)
        assert job.spec["method"]["candidates"]
        job.spec = {**job.spec, "runtime": {**job.spec["runtime"], "threads": 2}}
    claim_next(database)
    copied = initial(client.get(f"/jobs/new?from={job_id}").text)
    assert copied["method"] == {"type": "auto", "time_budget": 60}
    assert copied.get("runtime", {}) == ({} if device == "auto" else {"device": device})


def test_source_by_split_has_one_field_per_split(client: TestClient) -> None:
    body = {"method": {"type": "lora"}, "data": {"source": {"train": "imdb", "test": "imdb"}}}
    job_id = client.post("/v1/jobs", json=body).json()["id"]
    page = client.get(f"/jobs/new?from={job_id}").text
    shown = {
        split: value(page, f"data.source.{split}") for split in ("train", "validation", "test")
    }
    assert shown == {"train": "imdb", "validation": "", "test": "imdb"}
    assert 'name="data.source"' not in page
    again = client.post("/v1/jobs", json=initial(page)).json()
    assert again["spec"] == client.get(f"/v1/jobs/{job_id}").json()["spec"]


def test_form_is_filled_with_a_dataset(client: TestClient) -> None:
    page = client.get("/jobs/new", params={"data": "reviews<i>"}).text
    assert value(page, "data.source") == "reviews<i>"
    assert "reviews<i>" not in page


def test_unknown_job(client: TestClient) -> None:
    for wrong in (str(uuid4()), "x"):
        answer = client.get(f"/jobs/new?from={wrong}", headers=PAGE)
        assert answer.status_code == 404
        assert "job_not_found" in answer.text


@pytest.mark.parametrize("page", ["/jobs/new?from={}", "/sweeps/new?like={}", "/sweeps/{}/extend"])
def test_forms_show_settings_only_to_keys_that_may_read_them(
    anonymous_client: TestClient, new_key: Callable[..., CreatedKey], page: str
) -> None:
    def get(*scopes: str) -> Response:
        headers = {**PAGE, "Authorization": f"Bearer {new_key(*scopes).text}"}
        return anonymous_client.get(page.format(uuid4()), headers=headers)

    refused = get("jobs:write")
    assert refused.status_code == 403
    assert "jobs:read" in refused.text
    assert get("jobs:write", "jobs:read").status_code == 404
