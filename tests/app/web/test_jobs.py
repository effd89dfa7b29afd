"""The list of jobs: what it shows, and what it is narrowed to."""

from html import unescape

import pytest
from starlette.testclient import TestClient

from app.web.jobs import SAMPLE

HOSTILE = "<img src=x onerror=alert(1)>"


def add(client: TestClient, name: str | None = None, **more: object) -> str:
    body = {"name": name, "method": {"type": "baseline"}, **more}
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    made: str = answer.json()["id"]
    return made


def test_the_first_visit_says_what_to_do(client: TestClient) -> None:
    page = client.get("/").text
    assert "Nothing here yet" in page
    assert 'data-call="POST /v1/jobs"' in page
    assert client.post("/v1/jobs", json=SAMPLE).status_code == 202  # what the button sends
    assert "Nothing here yet" not in client.get("/").text


def test_a_job_is_shown_with_what_it_is(client: TestClient) -> None:
    job_id = add(client, "first", method={"type": "lora", "r": 4, "alpha": 8, "variant": "dora"})
    page = client.get("/").text
    assert f'href="/jobs/{job_id}">first</a>' in page
    assert "dora r 4 \N{GREEK SMALL LETTER ALPHA} 8" in page
    assert 'class="state queued"' in page
    assert "rotten-tomatoes" in page


def test_a_name_is_text(client: TestClient) -> None:
    add(client, HOSTILE)
    page = client.get("/").text
    assert HOSTILE not in page
    assert HOSTILE in unescape(page)


def test_a_tag_narrows_the_list_also_while_it_is_typed(client: TestClient) -> None:
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
def test_it_is_narrowed(client: TestClient, query: str, found: set[str]) -> None:
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


def test_long_lists_have_pages(client: TestClient) -> None:
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
