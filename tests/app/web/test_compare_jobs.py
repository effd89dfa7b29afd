"""The job comparison page."""

import json
import re
from html import unescape

import pytest
from starlette.testclient import TestClient

from app.jobs.schemas import PairedComparisonView, SplitResultView, UnpairedReason
from app.resources import Resources
from app.web import compare_jobs
from tests.app.web.finished_jobs import HOSTILE, add, succeed
from tests.app.web.html_elements import visible_text

PAGE = {"Accept": "text/html"}


def compared(client: TestClient, *jobs: str, **more: str) -> str:
    answer = client.get("/compare", params={"job": jobs, **more}, headers=PAGE)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_without_jobs_it_offers_a_choice(client: TestClient) -> None:
    page = compared(client)
    assert "Select two or more jobs" in visible_text(page)
    assert 'href="/jobs/new">Start a job</a>' in page
    job_id = add(client, name="first")
    page = compared(client)
    assert f'name="job" value="{job_id}"' in page
    assert "Start a job" not in page


def test_each_job_is_compared_with_the_first(client: TestClient, resources: Resources) -> None:
    jobs = [
        succeed(client, resources, right=right, of=100, name=name)
        for name, right in (("plain", 70), (HOSTILE, 90))
    ]
    page = compared(client, *jobs)
    read = visible_text(page)
    assert HOSTILE not in page
    assert "plain succeeded baseline 70.0% 60.4 to 78.1" in read
    assert f"{HOSTILE} succeeded baseline 90.0% 82.6 to 94.5 +20.0 points < 0.001" in read
    assert f"{HOSTILE} is 20.0 points better than plain on 100 test texts" in read
    assert f"Only {HOSTILE} is right on 20 of them, only plain on 0." in read
    assert "The difference is statistically significant (p < 0.001)." in read
    assert "data-live" not in page  # both have ended
    found = re.search(r'data-jobs="([^"]*)"', page)
    assert found is not None
    shown = json.loads(unescape(found[1]))
    assert [each["id"] for each in shown] == jobs
    assert shown[1]["result"][0] == 0.9
    reversed_page = compared(client, *reversed(jobs))
    assert f"plain is 20.0 points worse than {HOSTILE}" in visible_text(reversed_page)


def test_links_remove_a_job_and_change_the_reference(
    client: TestClient, resources: Resources
) -> None:
    first, second = (succeed(client, resources, name=name) for name in "ab")
    add(client)
    page = unescape(compared(client, first, second))
    assert f'href="?job={second}&part=test" aria-label="Remove a"' in page
    assert f'href="?job={second}&job={first}&part=test" aria-label="Use b as reference"' in page
    assert f'<input type="hidden" name="job" value="{first}">' in page


def test_different_settings_are_listed(client: TestClient) -> None:
    jobs = [
        add(client, method={"type": "lora", "r": r, "targets": targets}, name=f"r{r}")
        for r, targets in ((4, ["query", "value"]), (16, ["query"]))
    ]
    page = compared(client, *jobs)
    read = visible_text(page)
    assert "method.r 4 16" in read
    assert "method.targets query+value query" in read
    assert "optim.epochs" not in read
    assert "data-live" in page  # they have not ended
    assert "r16 has no saved predictions for test texts." in read
    assert "All settings are the same." in visible_text(compared(client, add(client), add(client)))


def test_one_job_alone_can_be_extended(client: TestClient, resources: Resources) -> None:
    job_id, other = succeed(client, resources, name="alone"), add(client, name="other")
    page = compared(client, job_id)
    assert "alone succeeded" in visible_text(page)
    assert "Add another job to compare settings." in visible_text(page)
    assert f'type="checkbox" name="job" value="{other}"' in page
    assert f'type="checkbox" name="job" value="{job_id}"' not in page


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("job=x", 404, "job_not_found"),
        ("job={0}&job={0}", 422, "duplicate_job"),
        ("job={0}&part=train", 422, "validation_failed"),
    ],
)
def test_invalid_comparisons_render_an_error_page(
    client: TestClient, query: str, status: int, code: str
) -> None:
    answer = client.get(f"/compare?{query.format(add(client))}", headers=PAGE)
    assert answer.status_code == status
    assert f"<code>{code}</code>" in answer.text


def test_too_many_jobs_are_left_out(client: TestClient) -> None:
    page = compared(client, *(add(client) for _ in range(21)))
    assert "Of 21 selected jobs, the first 20 are shown." in visible_text(page)


def part(
    pair: PairedComparisonView | None = None, unpaired: UnpairedReason | None = None
) -> SplitResultView:
    return SplitResultView(
        metric="accuracy",
        value=0.8,
        accuracy=0.8,
        low=0.7,
        high=0.9,
        texts=1000,
        against_first=pair,
        unpaired=unpaired,
    )


def pair(difference: float, p: float) -> PairedComparisonView:
    return PairedComparisonView(
        difference=difference,
        low=-0.0004,
        high=0.05,
        significant=p < 0.05,
        p=p,
        only_this=3,
        only_first=2,
    )


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        (None, "b has no saved predictions for test texts."),
        (
            part(unpaired="other_texts"),
            "b and a predicted different test texts, or the labels of these",
        ),
        (part(unpaired="first_has_none"), "a has no saved predictions for test texts"),
        (part(pair(0.012, 0.31)), "b is 1.2 points better than a on 1,000 test texts"),
        (part(pair(0.012, 0.31)), "(95% interval +0.0 to +5.0)"),
        (part(pair(0.012, 0.31)), "The difference is within noise (p = 0.31)"),
        (part(pair(0.012, 0.05)), "The difference is within noise (p = 0.05)"),
        (part(pair(-0.012, 0.0499)), "b is 1.2 points worse than a"),
        (part(pair(-0.012, 0.0499)), "The difference is statistically significant (p = 0.05)."),
        (part(pair(0.0, 1.0)), "b is exactly as accurate as a"),
    ],
)
def test_comparison_summary(on: SplitResultView | None, expected: str) -> None:
    assert expected in compare_jobs.describe_paired_test("b", "a", on, "test")
