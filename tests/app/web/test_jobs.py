"""The list of jobs and its filters."""

import re
from html import unescape

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from app.database.base import now
from app.database.engines import Database
from app.queue.tables import Attempt, Job
from app.web.jobs import SAMPLE_COMMAND, SAMPLE_JOB
from tests.app.web.html_elements import elements
from tests.job_rows import claim_next

HOSTILE = "<img src=x onerror=alert(1)>"


def add(client: TestClient, name: str | None = None, **more: object) -> str:
    body = {"name": name, "method": {"type": "baseline"}, **more}
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def test_empty_state_explains_how_to_start(client: TestClient) -> None:
    page = client.get("/").text
    assert "No jobs yet" in page
    assert 'data-request="POST /v1/jobs"' in page
    assert SAMPLE_COMMAND in page
    sample = client.post("/v1/jobs", json=SAMPLE_JOB)  # what the button sends
    assert (sample.status_code, sample.json()["method"]) == (202, "auto")
    assert "No jobs yet" not in client.get("/").text


def test_row_shows_the_job(client: TestClient) -> None:
    job_id = add(client, "first", method={"type": "lora", "r": 4, "alpha": 8, "variant": "dora"})
    page = client.get("/").text
    assert f'href="/jobs/{job_id}">first</a>' in page
    assert "dora r 4 \N{GREEK SMALL LETTER ALPHA} 8" in page
    assert 'class="state queued"' in page
    assert "rotten-tomatoes" in page


def test_time_of_a_running_job_has_no_waits(client: TestClient, database: Database) -> None:
    add(client)
    claim_next(database)
    with database.write() as session:
        session.execute(update(Job).values(started_at=now() - 86_400, running_seconds=100.0))
        session.execute(update(Attempt).values(started_at=now() - 25))
    assert re.search(r">2 min \d+ s</td>", client.get("/").text)


def test_names_are_escaped(client: TestClient) -> None:
    add(client, HOSTILE)
    page = client.get("/").text
    assert HOSTILE not in page
    assert HOSTILE in unescape(page)


def test_tag_filter_accepts_partly_typed_tags(client: TestClient) -> None:
    tagged = add(client, "first", tags=["night run"])
    other = add(client, "second")
    for typed, found in {
        "Night  run": True,
        "night": False,
        'night", "x': False,
        "a,": False,
    }.items():
        page = client.get("/", params={"tag": typed})
        assert page.status_code == 200
        assert (f"/jobs/{tagged}" in page.text) is found, typed
        assert f"/jobs/{other}" not in page.text
    for blank in ("", " "):
        assert f"/jobs/{other}" in client.get("/", params={"tag": blank}).text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=alpha", {"alpha"}),
        ("q=ALPHA", {"alpha"}),
        ("q=imdb", {"beta"}),
        ("q=%25", {"100%"}),
        ("q=_", set()),
        ("q=", {"alpha", "beta", "100%"}),
        ("method=lora", {"beta"}),
        ("state=cancelled", {"alpha"}),
        ("state=queued&method=baseline", {"100%"}),
    ],
)
def test_filters(client: TestClient, query: str, found: set[str]) -> None:
    first = add(client, "alpha")
    add(client, "beta", method={"type": "lora"}, data={"source": "imdb"})
    add(client, "100%")
    client.post(f"/v1/jobs/{first}/cancel")
    page = client.get(f"/?{query}").text
    assert {name for name in ("alpha", "beta", "100%") if f">{name}</a>" in page} == found
    same = client.get(
        "/v1/jobs",
        params=dict(
            part.split("=")
            for part in query.replace("q=", "search=").replace("%25", "%").split("&")
            if not part.endswith("=")
        ),
    ).json()["data"]
    assert {job["name"] for job in same} == found


def test_pagination(client: TestClient) -> None:
    for number in range(53):
        add(client, f"job-{number}-")
    page = client.get("/?state=queued").text
    assert "job-52-" in page
    assert "job-2-" not in page
    older = unescape(page.partition('rel="next"')[0].rpartition('href="')[2].partition('"')[0])
    second = client.get(f"/{older}").text
    assert "job-2-" in second
    assert "job-3-" not in second
    assert 'href="?state=queued">Newest' in second
    # A filter updates the element that lists the jobs only.
    [live] = [each for each in elements(page, "div") if each.get("id") == "jobs"]
    assert "Older" in live.text
    assert "Compare selected" in live.text
