"""The list of sweeps, and the page of a sweep as its trials finish."""

import json
import re
from collections.abc import Callable
from html import escape, unescape
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from app.auth.service import CreatedKey
from app.queue.transitions import PermanentFailure
from app.resources import Resources
from tests.app.sweeps.conftest import JOB, SPACE
from tests.app.sweeps.fake_worker import FakeSweepWorker
from tests.app.web.html_elements import elements

PAGE = {"Accept": "text/html"}
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def worker(resources: Resources) -> FakeSweepWorker:
    return FakeSweepWorker(resources)


def start(client: TestClient, **fields: Any) -> str:
    """Start a sweep, by default a grid of 12 trials; return its id."""
    answer = client.post("/v1/sweeps", json={"job": JOB, "space": SPACE, **fields})
    assert answer.status_code == 202, answer.text
    sweep_id: str = answer.json()["id"]
    return sweep_id


def get_page(client: TestClient, sweep_id: str, query: str = "") -> str:
    answer = client.get(f"/sweeps/{sweep_id}{query}", headers=PAGE)
    assert answer.status_code == 200
    return answer.text


def html_of(page: str, name: str) -> str:
    """Return the HTML from the element with this id to the end of its section."""
    return page.partition(f'id="{name}"')[2].partition("</section>")[0]


def button_actions(page: str) -> set[str]:
    """Return the last path segments (or methods) of the buttons' API calls."""
    return {
        unescape(each).rpartition("/")[2] if "POST" in each else each.partition(" ")[0]
        for each in re.findall(r'<button[^>]* data-request="([^"]*)"', page)
    }


def grid_cells(page: str) -> list[str]:
    """Return the texts of the grid cells."""
    table = html_of(page, "grid").partition("</table>")[0]
    found = re.findall(r"<td[^>]*>(.*?)</td>", table, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]*>", " ", each).split()) for each in found]


def trial_numbers(page: str) -> list[str]:
    """Return the trial numbers of the table, in its order."""
    body = html_of(page, "trials").partition("<tbody>")[2]
    return re.findall(r'<th scope="row"[^>]*>(?:<a[^>]*>)?(\d+)', body)


def test_empty_state_explains_how_to_start(client: TestClient) -> None:
    page = client.get("/sweeps").text
    assert "No sweeps yet" in page
    assert 'href="/sweeps/new"' in page
    assert "loraworks sweep preset seed-grid" in page
    start(client)
    assert "No sweeps yet" not in client.get("/sweeps").text


def test_list_shows_progress_and_the_best_score(
    client: TestClient, worker: FakeSweepWorker
) -> None:
    sweep_id = start(client, name="ranks")
    by_loss = start(client, name="by loss", objective="loss")
    worker.run_jobs(9)
    page = client.get("/sweeps").text
    assert f'href="/sweeps/{sweep_id}">ranks</a>' in page
    first = html_of(page, f"sweep-{sweep_id}")
    assert "alpha × r · rotten-tomatoes" in first  # noqa: RUF001
    assert "9 of 12" in first
    assert '<progress value="0.75"' in first
    assert "90.8%<small>accuracy</small>" in first
    assert "0.092<small>loss</small>" in html_of(page, f"sweep-{by_loss}").partition("</tr>")[0]


def test_sampled_search_counts_trials_to_come(client: TestClient, worker: FakeSweepWorker) -> None:
    start(client, strategy={"type": "tpe", "trials": 6, "batch": 2})
    worker.run_jobs(2)
    assert "2 of 6" in client.get("/sweeps").text


def test_filter_and_pagination(client: TestClient) -> None:
    ids = [start(client, name=f"n{number}-", space={"method.r": [2]}) for number in range(22)]
    client.post(f"/v1/sweeps/{ids[0]}/pause")
    page = client.get("/sweeps?state=running").text
    assert "n21-" in page
    assert "n0-" not in page
    assert "n1-" not in page
    older = unescape(page.partition('rel="next"')[0].rpartition('href="')[2].partition('"')[0])
    assert "n1-" in client.get(f"/sweeps{older}").text
    assert "No sweeps match these filters" in client.get("/sweeps?state=stopped").text


def test_names_and_errors_are_escaped(client: TestClient, worker: FakeSweepWorker) -> None:
    sweep_id = start(client, name=HOSTILE)
    worker.finish(worker.claim().lease, PermanentFailure("non_finite", HOSTILE))
    assert f">{escape(HOSTILE)}</td>" in html_of(get_page(client, sweep_id), "trials")
    one = f"/sweeps/{sweep_id}"
    for path in ("/sweeps", one, f"{one}/extend", f"/sweeps/new?like={sweep_id}"):
        page = client.get(path).text
        assert HOSTILE not in page
        assert HOSTILE in unescape(page)


def test_grid_shows_trial_scores(client: TestClient, worker: FakeSweepWorker) -> None:
    sweep_id = start(client)
    running = worker.claim_next()
    assert running is not None
    page = get_page(client, sweep_id)
    assert grid_cells(page) == ["running", *["waiting"] * 11]
    assert f'href="/jobs/{running.lease.job_id}"' in html_of(page, "sweep")  # runs now
    assert "0 of 12 trials finished" in page
    worker.run_job(running)
    worker.run_jobs()
    page = get_page(client, sweep_id)
    # The rows are those of alpha, the columns those of r.
    assert grid_cells(page)[6:9] == ["90.2%", "90.4%", "90.8%"]
    assert len(grid_cells(page)) == 12
    assert "12 of 12 trials finished" in page
    assert 'class="score-level-8"' in html_of(page, "grid")
    assert "running" not in html_of(page, "sweep")


def test_trials_share_grid_cells_and_axes_can_be_selected(
    client: TestClient, worker: FakeSweepWorker
) -> None:
    sweep_id = start(client, space={**SPACE, "runtime.seed": [1, 2]})
    worker.run_jobs(3)
    page = get_page(client, sweep_id)
    assert grid_cells(page)[:2] == ["70.2% 2 of 2", "70.4% 1 of 2"]
    assert "of the best trial with these settings" in page
    page = get_page(client, sweep_id, "?x=runtime.seed&y=method.r")
    assert len(grid_cells(page)) == 6
    assert grid_cells(page)[0] == "70.2% 1 of 4"
    # An unknown field, or the same field twice, is not an error.
    assert len(grid_cells(get_page(client, sweep_id, "?x=nothing&y=runtime.seed"))) == 6
    assert len(grid_cells(get_page(client, sweep_id, "?x=method.r&y=method.r"))) == 12


def test_continuous_ranges_show_one_tile_per_trial(
    client: TestClient, worker: FakeSweepWorker
) -> None:
    space = {
        "method.alpha": {"low": 1.0, "high": 64.0},
        "method.dropout": {"low": 0.0, "high": 0.5},
    }
    sweep_id = start(client, space=space, strategy={"type": "random", "trials": 20})
    worker.run_jobs(2)
    page = get_page(client, sweep_id)
    assert len(re.findall(r'id="tile-\d+"', page)) == 20
    assert len(re.findall(r'id="tile-\d+" class="score-level-\d"', page)) == 2


def test_partial_runs_show_their_budget(client: TestClient, worker: FakeSweepWorker) -> None:
    sweep_id = start(client, strategy={"type": "halving", "min_full_runs": 1})
    worker.run_jobs(12)
    assert grid_cells(get_page(client, sweep_id)).count("70.2% after 11.1%") == 1
    worker.run_jobs()
    page = get_page(client, sweep_id)
    assert grid_cells(page)[8] == "90.8%"
    assert "did not run with the full budget" in page


def test_winner_is_shown_with_its_reasons(client: TestClient, worker: FakeSweepWorker) -> None:
    sweep_id = start(client)
    page = get_page(client, sweep_id)
    assert "nothing to compare" in page
    assert re.search(r'id="promote-panel"[^>]* hidden', page)
    assert 'data-version=""' in page
    worker.run_jobs()
    page = get_page(client, sweep_id)
    assert "Trial 9 has the best validation accuracy, 90.8%" in page
    assert "The cheapest within noise is trial 7" in page
    assert not re.search(r'id="promote-panel"[^>]* hidden', page)
    assert re.findall(r'name="which" value="(\d*)"', page) == ["9", "7", ""]
    assert trial_numbers(page)[:2] == ["9", "8"]


def test_heatmap_is_omitted_if_the_grid_shows_the_same(client: TestClient) -> None:
    space = {"method.r": [2, 4], "method.alpha": [8, 16], "runtime.seed": [1, 2]}
    sweep_id = start(client, space=space)
    without = f'data-url="/v1/sweeps/{sweep_id}/charts?map=false"'
    assert without in get_page(client, sweep_id)
    assert without in get_page(client, sweep_id, "?x=method.alpha&y=method.r")
    assert without not in get_page(client, sweep_id, "?x=runtime.seed")
    wide = {"method.r": [2, 4], "method.alpha": [float(n) for n in range(1, 18)]}
    assert "map=false" not in get_page(client, start(client, space=wide))  # no grid of 17 columns


def test_charts_version_changes_only_with_results(
    client: TestClient, worker: FakeSweepWorker
) -> None:
    sweep_id = start(client)
    worker.run_jobs(4)

    def version() -> str:
        found = re.search(r'data-version="(\w*)"', get_page(client, sweep_id))
        assert found
        return found[1]

    first = version()
    claimed = worker.claim_next()  # a trial starts: charts do not change
    assert claimed is not None
    assert version() == first
    worker.run_job(claimed)
    assert version() != first


def test_trials_are_listed_by_state_and_link_to_their_jobs(
    client: TestClient, worker: FakeSweepWorker
) -> None:
    sweep_id = start(client)
    worker.should_fail = lambda spec: spec["method"]["r"] == 2
    worker.run_jobs()
    page = get_page(client, sweep_id)
    assert "8 succeeded" in page
    assert "4 failed" in page
    assert len(trial_numbers(page)) == 12
    page = get_page(client, sweep_id, "?state=failed")
    assert sorted(trial_numbers(page)) == ["1", "10", "4", "7"]
    assert "The loss is NaN." in page
    trials = client.get(f"/v1/sweeps/{sweep_id}/trials").json()
    for trial in trials:
        assert (f'href="/jobs/{trial["job_id"]}"' in html_of(page, "trials")) == (
            trial["state"] == "failed"
        )
    assert "No waiting trials" in get_page(client, sweep_id, "?state=waiting")


def test_trial_table_is_paginated(client: TestClient) -> None:
    sweep_id = start(client, space={"runtime.seed": list(range(250))})
    page = get_page(client, sweep_id)
    assert len(trial_numbers(page)) == 100
    assert "1 to 100 of 250" in page
    page = get_page(client, sweep_id, "?page=3")
    assert trial_numbers(page)[0] == "201"
    assert 'rel="next"' not in page
    assert "Too many trials" in get_page(
        client, start(client, space={"runtime.seed": list(range(401))})
    )


def test_actions_by_state(client: TestClient, worker: FakeSweepWorker) -> None:
    sweep_id = start(client)
    assert button_actions(get_page(client, sweep_id)) == {"pause", "stop"}
    client.post(f"/v1/sweeps/{sweep_id}/pause")
    assert button_actions(get_page(client, sweep_id)) == {"resume", "stop", "DELETE"}
    client.post(f"/v1/sweeps/{sweep_id}/stop")
    assert button_actions(get_page(client, sweep_id)) == {"resume", "DELETE"}
    client.post(f"/v1/sweeps/{sweep_id}/resume")
    worker.should_fail = lambda spec: spec["method"]["r"] == 2
    worker.run_jobs()
    page = get_page(client, sweep_id)
    assert button_actions(page) == {"retry", "DELETE"}
    assert "Retry 4 trials" in page
    assert client.post(f"/v1/sweeps/{sweep_id}/retry").status_code == 200


def test_results_can_be_downloaded(client: TestClient, worker: FakeSweepWorker) -> None:
    sweep_id = start(client)
    worker.run_jobs()
    for link in re.findall(r'class="button" href="(/v1/[^"]*)"', get_page(client, sweep_id)):
        assert client.get(unescape(link)).status_code == 200, link


@pytest.mark.parametrize("wrong", [str(UUID(int=1)), "x"])
@pytest.mark.parametrize("of", ["/sweeps/{}", "/sweeps/{}/extend", "/sweeps/new?like={}"])
def test_unknown_sweep(client: TestClient, wrong: str, of: str) -> None:
    answer = client.get(of.format(wrong), headers=PAGE)
    assert answer.status_code == 404
    assert "sweep_not_found" in answer.text


@pytest.mark.parametrize("query", ["?state=lost", "?page=0", "?page=x"])
def test_invalid_query(client: TestClient, query: str) -> None:
    answer = client.get(f"/sweeps/{start(client)}{query}", headers=PAGE)
    assert answer.status_code == 422
    assert f"query.{query[1:].partition('=')[0]}" in answer.text


def test_forms_need_the_write_scope(
    anonymous_client: TestClient, new_key: Callable[..., CreatedKey]
) -> None:
    headers = {"Authorization": f"Bearer {new_key('jobs:read').text}", **PAGE}
    assert anonymous_client.get("/sweeps", headers=headers).status_code == 200
    assert anonymous_client.get("/sweeps/new", headers=headers).status_code == 403
    assert anonymous_client.get("/sweeps", headers=PAGE, follow_redirects=False).status_code == 303


def test_promote_form(client: TestClient, worker: FakeSweepWorker) -> None:
    sweep_id = start(client)
    worker.run_jobs()
    page = get_page(client, sweep_id)
    found = re.search(r'data-request="POST ([^"]*)" data-redirect="([^"]*)"', page)
    assert found
    answer = client.post(found[1], json={"model": "ranks", "trial": 7, "alias": None})
    assert answer.status_code == 202
    assert json.loads(answer.text)["register_as"] == "ranks"
    assert found[2] == "/jobs/{id}"
    [form] = [each for each in elements(page, "form") if each.get("id") == "promote-form"]
    assert "verdict" in form["data-confirm-alias"]  # a trial has none, and is promoted at once
