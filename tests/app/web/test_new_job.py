"""The form of a new job: its fields are those of the API, its options those of the command line."""

import json
import re
from html import unescape
from uuid import uuid4

from starlette.testclient import TestClient

from app.cli.spec_flags import FLAGS, option_names
from app.cli.train import train
from app.jobs.schemas import JobCreate

PAGE = {"Accept": "text/html"}
FIELD = re.compile(
    r'name="([\w.]+)"[^>]*data-flag="(--[\w-]+)"|data-flag="(--[\w-]+)"[^>]*name="([\w.]+)"'
)


def given(page: str) -> dict[str, object]:
    found = re.search(r'data-given="([^"]*)"', page)
    assert found
    read: dict[str, object] = json.loads(unescape(found[1]))
    return read


def value(page: str, place: str) -> str:
    found = re.search(rf'name="{re.escape(place)}"[^>]*? value="([^"]*)"', page)
    assert found, place
    return unescape(found[1])


def test_each_field_is_one_of_the_api_and_its_option_one_of_the_command(client: TestClient) -> None:
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
    for place, flag in set(fields):
        if place in ("name", "register_as", "priority"):
            assert place in JobCreate.model_fields
            assert flag == f"--{place.replace('_', '-')}"
            assert place in train.__signature__.parameters  # type: ignore[attr-defined]
        else:
            assert flag in option_names(FLAGS[place]), place


def test_an_empty_form_sends_the_defaults(client: TestClient) -> None:
    page = client.get("/jobs/new").text
    assert given(page) == {"method": {"type": "auto"}}
    assert value(page, "method.r") == ""


def test_it_is_filled_with_the_settings_of_a_job(client: TestClient) -> None:
    said = {
        "name": 'a "quoted" <b>',
        "method": {"type": "lora", "r": 4, "targets": ["query"], "head": "frozen"},
        "optim": {"epochs": 7, "warmup": 0.5},
        "data": {"source": "imdb", "train_size": 100, "max_length": 64},
    }
    job_id = client.post("/v1/jobs", json=said).json()["id"]
    page = client.get(f"/jobs/new?from={job_id}").text
    assert value(page, "method.r") == "4"
    assert value(page, "optim.epochs") == "7"
    assert value(page, "data.source") == "imdb"
    assert value(page, "name") == said["name"]
    again = client.post("/v1/jobs", json=given(page))
    assert again.status_code == 202
    first = client.get(f"/v1/jobs/{job_id}").json()
    assert again.json()["spec"] == first["spec"]
    assert again.json()["name"] == said["name"]


def test_data_given_part_by_part_have_a_field_for_each(client: TestClient) -> None:
    said = {"method": {"type": "lora"}, "data": {"source": {"train": "imdb", "test": "imdb"}}}
    job_id = client.post("/v1/jobs", json=said).json()["id"]
    page = client.get(f"/jobs/new?from={job_id}").text
    shown = {part: value(page, f"data.source.{part}") for part in ("train", "validation", "test")}
    assert shown == {"train": "imdb", "validation": "", "test": "imdb"}
    assert 'name="data.source"' not in page
    again = client.post("/v1/jobs", json=given(page)).json()
    assert again["spec"] == client.get(f"/v1/jobs/{job_id}").json()["spec"]


def test_it_is_begun_with_a_data_set(client: TestClient) -> None:
    page = client.get("/jobs/new", params={"data": "reviews<i>"}).text
    assert value(page, "data.source") == "reviews<i>"
    assert "reviews<i>" not in page


def test_an_unknown_job_is_told(client: TestClient) -> None:
    for wrong in (str(uuid4()), "x"):
        answer = client.get(f"/jobs/new?from={wrong}", headers=PAGE)
        assert answer.status_code == 404
        assert "job_not_found" in answer.text
