"""Jobs side by side as a page."""

import json
import re
from html import unescape

import pytest
from starlette.testclient import TestClient

from app.jobs.results.comparison import PairView, PartView, Unpaired
from app.resources import Resources
from app.web import compare
from tests.app.web.finished import HOSTILE, add, succeed
from tests.app.web.markup import plain

PAGE = {"Accept": "text/html"}


def compared(client: TestClient, *jobs: str, **more: str) -> str:
    answer = client.get("/compare", params={"job": jobs, **more}, headers=PAGE)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_without_jobs_it_says_what_to_do(client: TestClient) -> None:
    page = compared(client)
    assert "Choose two jobs or more." in plain(page)
    assert 'href="/jobs/new">Start a job</a>' in page
    job_id = add(client, name="first")
    page = compared(client)
    assert f'name="job" value="{job_id}"' in page
    assert "Start a job" not in page


def test_each_job_is_tested_against_the_first(client: TestClient, resources: Resources) -> None:
    jobs = [
        succeed(client, resources, right=right, of=100, name=name)
        for name, right in (("plain", 70), (HOSTILE, 90))
    ]
    page = compared(client, *jobs)
    read = plain(page)
    assert HOSTILE not in page
    assert "plain succeeded baseline 70.0 % 60.4 to 78.1" in read
    assert f"{HOSTILE} succeeded baseline 90.0 % 82.6 to 94.5 +20.0 points < 0.001" in read
    assert f"{HOSTILE} is 20.0 points better than plain on 100 test texts" in read
    assert "It alone is right on 20 of them, plain alone on 0." in read
    assert "Chance hardly explains that (p < 0.001)." in read
    assert "data-live" not in page  # both have ended
    told = re.search(r'data-shown="([^"]*)"', page)
    assert told is not None
    shown = json.loads(unescape(told[1]))
    assert [each["id"] for each in shown] == jobs
    assert shown[1]["accuracy"][0] == 0.9
    turned = compared(client, *reversed(jobs))
    assert f"plain is 20.0 points worse than {HOSTILE}" in plain(turned)


def test_its_links_take_out_and_turn_round(client: TestClient, resources: Resources) -> None:
    first, second = (succeed(client, resources, name=name) for name in "ab")
    add(client)
    page = unescape(compared(client, first, second))
    assert f'href="?job={second}&part=test" aria-label="Take out a"' in page
    assert f'href="?job={second}&job={first}&part=test" aria-label="Test against it: b"' in page
    assert f'<input type="hidden" name="job" value="{first}">' in page


def test_settings_that_differ_stand_in_a_table(client: TestClient) -> None:
    jobs = [
        add(client, method={"type": "lora", "r": r, "targets": targets}, name=f"r{r}")
        for r, targets in ((4, ["query", "value"]), (16, ["query"]))
    ]
    page = compared(client, *jobs)
    read = plain(page)
    assert "method.r 4 16" in read
    assert "method.targets query+value query" in read
    assert "optim.epochs" not in read
    assert "data-live" in page  # they have not ended
    assert "r16 keeps no answers to test texts." in read
    assert "None: they differ by chance alone" in plain(compared(client, add(client), add(client)))


def test_one_job_waits_for_another(client: TestClient, resources: Resources) -> None:
    job_id, other = succeed(client, resources, name="alone"), add(client, name="other")
    page = compared(client, job_id)
    assert "alone succeeded" in plain(page)
    assert "Add another job to see them." in plain(page)
    assert f'type="checkbox" name="job" value="{other}"' in page
    assert f'type="checkbox" name="job" value="{job_id}"' not in page


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("job=x", 404, "job_not_found"),
        ("job={0}&job={0}", 422, "job_named_twice"),
        ("job={0}&part=train", 422, "validation_failed"),
        ("&".join(["job={0}"] * 21), 422, "validation_failed"),
    ],
)
def test_what_cannot_be_compared_is_told_on_a_page(
    client: TestClient, query: str, status: int, code: str
) -> None:
    answer = client.get(f"/compare?{query.format(add(client))}", headers=PAGE)
    assert answer.status_code == status
    assert f"<code>{code}</code>" in answer.text


def part(pair: PairView | None = None, unpaired: Unpaired | None = None) -> PartView:
    return PartView(
        accuracy=0.8, low=0.7, high=0.9, texts=1000, against_first=pair, unpaired=unpaired
    )


def pair(difference: float, p: float) -> PairView:
    return PairView(difference=difference, low=-0.0004, high=0.05, p=p, only_this=3, only_first=2)


@pytest.mark.parametrize(
    ("on", "told"),
    [
        (None, "b keeps no answers to test texts."),
        (part(unpaired="other_texts"), "b and a answered other test texts"),
        (part(unpaired="first_has_none"), "a keeps no answers to test texts"),
        (part(pair(0.012, 0.31)), "b is 1.2 points better than a on 1,000 test texts"),
        (part(pair(0.012, 0.31)), "(95 % interval +0.0 to +5.0)"),
        (part(pair(0.012, 0.31)), "Chance alone could explain that (p = 0.31)"),
        (part(pair(0.012, 0.05)), "Chance alone could explain that (p = 0.05)"),
        (part(pair(-0.012, 0.0499)), "b is 1.2 points worse than a"),
        (part(pair(-0.012, 0.0499)), "Chance hardly explains that (p = 0.05)."),
        (part(pair(0.0, 1.0)), "b is exactly as good as a"),
    ],
)
def test_the_paired_test_in_words(on: PartView | None, told: str) -> None:
    assert told in compare.sentence("b", "a", on, "test")
