"""The pages of sweeps: the list, and one of them as its cells fill up."""

import json
import re
from collections.abc import Callable
from html import escape, unescape
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from app.auth.service import NewKey
from app.queue.transitions import Failed
from app.resources import Resources
from tests.app.sweeps.conftest import JOB, SPACE
from tests.app.sweeps.stand_in import StandIn

PAGE = {"Accept": "text/html"}
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def worker(resources: Resources) -> StandIn:
    return StandIn(resources)


def start(client: TestClient, **fields: Any) -> str:
    """A grid of 12 cells unless said otherwise; its id."""
    answer = client.post("/v1/sweeps", json={"job": JOB, "space": SPACE, **fields})
    assert answer.status_code == 202, answer.text
    made: str = answer.json()["id"]
    return made


def look(client: TestClient, sweep_id: str, query: str = "") -> str:
    answer = client.get(f"/sweeps/{sweep_id}{query}", headers=PAGE)
    assert answer.status_code == 200
    return answer.text


def part(page: str, name: str) -> str:
    """The HTML of the element with this id, up to the next part of the page."""
    return page.partition(f'id="{name}"')[2].partition("</section>")[0]


def calls(page: str) -> set[str]:
    """What its buttons call, after the address of the sweep."""
    return {
        unescape(each).rpartition("/")[2] if "POST" in each else each.partition(" ")[0]
        for each in re.findall(r'data-call="([^"]*)"', page)
    }


def squares(page: str) -> list[str]:
    """What stands in the squares of the grid, in words."""
    table = part(page, "grid").partition("</table>")[0]
    found = re.findall(r"<td[^>]*>(.*?)</td>", table, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]*>", " ", each).split()) for each in found]


def rows(page: str) -> list[str]:
    """Numbers of the cells in the table, in its order."""
    body = part(page, "cells").partition("<tbody>")[2]
    return re.findall(r'<th scope="row"[^>]*>(?:<a[^>]*>)?(\d+)', body)


def test_before_the_first_it_says_how_to_start_one(client: TestClient) -> None:
    page = client.get("/sweeps").text
    assert "Nothing here yet" in page
    assert 'href="/sweeps/new"' in page
    assert "loraworks sweep preset seed-grid" in page
    start(client)
    assert "Nothing here yet" not in client.get("/sweeps").text


def test_the_list_tells_how_far_each_is_and_the_best_figure(
    client: TestClient, worker: StandIn
) -> None:
    sweep_id = start(client, name="ranks")
    by_loss = start(client, name="by loss", objective="loss")
    worker.work(9)
    page = client.get("/sweeps").text
    assert f'href="/sweeps/{sweep_id}">ranks</a>' in page
    first = part(page, f"sweep-{sweep_id}")
    assert "alpha × r · rotten-tomatoes" in first  # noqa: RUF001
    assert "9 of 12" in first
    assert '<progress value="0.75"' in first
    assert "90.8 %<small>accuracy</small>" in first
    assert "0.092<small>loss</small>" in part(page, f"sweep-{by_loss}").partition("</tr>")[0]


def test_cells_of_a_search_that_goes_on_are_counted_to_its_end(
    client: TestClient, worker: StandIn
) -> None:
    start(client, strategy={"type": "tpe", "cells": 6, "batch": 2})
    worker.work(2)
    assert "2 of 6" in client.get("/sweeps").text


def test_the_list_is_narrowed_and_has_pages(client: TestClient) -> None:
    ids = [start(client, name=f"n{number}-", space={"method.r": [2]}) for number in range(22)]
    client.post(f"/v1/sweeps/{ids[0]}/pause")
    page = client.get("/sweeps?state=running").text
    assert "n21-" in page
    assert "n0-" not in page
    assert "n1-" not in page
    older = unescape(page.partition('rel="next"')[0].rpartition('href="')[2].partition('"')[0])
    assert "n1-" in client.get(f"/sweeps{older}").text
    assert "No sweep is stopped" in client.get("/sweeps?state=stopped").text


def test_names_and_errors_are_text(client: TestClient, worker: StandIn) -> None:
    sweep_id = start(client, name=HOSTILE)
    worker.finish(worker.claim().lease, Failed("non_finite", HOSTILE))
    assert f">{escape(HOSTILE)}</td>" in part(look(client, sweep_id), "cells")
    one = f"/sweeps/{sweep_id}"
    for path in ("/sweeps", one, f"{one}/extend", f"/sweeps/new?like={sweep_id}"):
        page = client.get(path).text
        assert HOSTILE not in page
        assert HOSTILE in unescape(page)


def test_the_grid_fills_up(client: TestClient, worker: StandIn) -> None:
    sweep_id = start(client)
    running = worker.take()
    assert running is not None
    page = look(client, sweep_id)
    assert squares(page) == ["running", *["waiting"] * 11]
    assert f'href="/jobs/{running.lease.job_id}"' in part(page, "sweep")  # runs now
    assert "0 of 12 cells have ended" in page
    worker.end(running)
    worker.work()
    page = look(client, sweep_id)
    # The rows are those of alpha, the columns those of r.
    assert squares(page)[6:9] == ["90.2 %", "90.4 %", "90.8 %"]
    assert len(squares(page)) == 12
    assert "12 of 12 cells have ended" in page
    assert 'class="level-8"' in part(page, "grid")
    assert "running" not in part(page, "sweep")


def test_other_fields_share_a_square_and_can_be_chosen(client: TestClient, worker: StandIn) -> None:
    sweep_id = start(client, space={**SPACE, "runtime.seed": [1, 2]})
    worker.work(3)
    page = look(client, sweep_id)
    assert squares(page)[:2] == ["70.2 % 2 of 2", "70.4 % 1 of 2"]
    assert "of the best cell at each place" in page
    page = look(client, sweep_id, "?x=runtime.seed&y=method.r")
    assert len(squares(page)) == 6
    assert squares(page)[0] == "70.2 % 1 of 4"
    # A field that is not there, or the same one twice, is no error.
    assert len(squares(look(client, sweep_id, "?x=nothing&y=runtime.seed"))) == 6
    assert len(squares(look(client, sweep_id, "?x=method.r&y=method.r"))) == 12


def test_of_ranges_each_cell_has_a_square(client: TestClient, worker: StandIn) -> None:
    space = {
        "method.alpha": {"low": 1.0, "high": 64.0},
        "method.dropout": {"low": 0.0, "high": 0.5},
    }
    sweep_id = start(client, space=space, strategy={"type": "random", "cells": 20})
    worker.work(2)
    page = look(client, sweep_id)
    assert len(re.findall(r'id="tile-\d+"', page)) == 20
    assert len(re.findall(r'id="tile-\d+" class="level-\d"', page)) == 2


def test_parts_of_runs_say_how_far_they_went(client: TestClient, worker: StandIn) -> None:
    sweep_id = start(client, strategy={"type": "halving", "keep": 1})
    worker.work(12)
    assert squares(look(client, sweep_id)).count("70.2 % after 11.1 %") == 1
    worker.work()
    page = look(client, sweep_id)
    assert squares(page)[8] == "90.8 %"
    assert "ran a part of their steps" in page


def test_the_winner_is_told_with_why(client: TestClient, worker: StandIn) -> None:
    sweep_id = start(client)
    page = look(client, sweep_id)
    assert "nothing to compare" in page
    assert re.search(r'id="promotion"[^>]* hidden', page)
    assert 'data-version=""' in page
    worker.work()
    page = look(client, sweep_id)
    assert "Cell 9 has the best validation accuracy, 90.8 %" in page
    assert "The cheapest that is as good is cell 7" in page
    assert not re.search(r'id="promotion"[^>]* hidden', page)
    assert re.findall(r'name="which" value="(\d*)"', page) == ["9", "7", ""]
    assert rows(page)[:2] == ["9", "8"]


def test_the_map_is_not_drawn_where_the_grid_shows_the_same(client: TestClient) -> None:
    space = {"method.r": [2, 4], "method.alpha": [8, 16], "runtime.seed": [1, 2]}
    sweep_id = start(client, space=space)
    without = f'data-from="/v1/sweeps/{sweep_id}/pictures?map=false"'
    assert without in look(client, sweep_id)
    assert without in look(client, sweep_id, "?x=method.alpha&y=method.r")
    assert without not in look(client, sweep_id, "?x=runtime.seed")
    wide = {"method.r": [2, 4], "method.alpha": [float(n) for n in range(1, 18)]}
    assert "map=false" not in look(client, start(client, space=wide))  # no grid of 17 columns


def test_pictures_have_another_version_only_when_results_have_changed(
    client: TestClient, worker: StandIn
) -> None:
    sweep_id = start(client)
    worker.work(4)

    def version() -> str:
        found = re.search(r'data-version="(\w*)"', look(client, sweep_id))
        assert found
        return found[1]

    first = version()
    claimed = worker.take()  # a cell begins: nothing to draw anew
    assert claimed is not None
    assert version() == first
    worker.end(claimed)
    assert version() != first


def test_cells_are_listed_by_state_and_link_to_their_jobs(
    client: TestClient, worker: StandIn
) -> None:
    sweep_id = start(client)
    worker.fails = lambda spec: spec["method"]["r"] == 2
    worker.work()
    page = look(client, sweep_id)
    assert "8 succeeded" in page
    assert "4 failed" in page
    assert len(rows(page)) == 12
    page = look(client, sweep_id, "?state=failed")
    assert sorted(rows(page)) == ["1", "10", "4", "7"]
    assert "The loss is NaN." in page
    cells = client.get(f"/v1/sweeps/{sweep_id}/cells").json()
    for cell in cells:
        assert (f'href="/jobs/{cell["job_id"]}"' in part(page, "cells")) == (
            cell["state"] == "failed"
        )
    assert "No cell is waiting" in look(client, sweep_id, "?state=waiting")


def test_a_large_table_comes_in_pages(client: TestClient) -> None:
    sweep_id = start(client, space={"runtime.seed": list(range(250))})
    page = look(client, sweep_id)
    assert len(rows(page)) == 100
    assert "1 to 100 of 250" in page
    page = look(client, sweep_id, "?page=3")
    assert rows(page)[0] == "201"
    assert 'rel="next"' not in page
    assert "too many cells" in look(client, start(client, space={"runtime.seed": list(range(401))}))


def test_what_can_be_done_depends_on_the_state(client: TestClient, worker: StandIn) -> None:
    sweep_id = start(client)
    assert calls(look(client, sweep_id)) == {"pause", "stop"}
    client.post(f"/v1/sweeps/{sweep_id}/pause")
    assert calls(look(client, sweep_id)) == {"resume", "stop", "DELETE"}
    client.post(f"/v1/sweeps/{sweep_id}/stop")
    assert calls(look(client, sweep_id)) == {"resume", "DELETE"}
    client.post(f"/v1/sweeps/{sweep_id}/resume")
    worker.fails = lambda spec: spec["method"]["r"] == 2
    worker.work()
    page = look(client, sweep_id)
    assert calls(page) == {"retry", "DELETE"}
    assert "Retry 4 cells" in page
    assert client.post(f"/v1/sweeps/{sweep_id}/retry").status_code == 200


def test_results_can_be_taken_away(client: TestClient, worker: StandIn) -> None:
    sweep_id = start(client)
    worker.work()
    for link in re.findall(r'class="button" href="(/v1/[^"]*)"', look(client, sweep_id)):
        assert client.get(unescape(link)).status_code == 200, link


@pytest.mark.parametrize("wrong", [str(UUID(int=1)), "x"])
@pytest.mark.parametrize("of", ["/sweeps/{}", "/sweeps/{}/extend", "/sweeps/new?like={}"])
def test_an_unknown_sweep_is_told(client: TestClient, wrong: str, of: str) -> None:
    answer = client.get(of.format(wrong), headers=PAGE)
    assert answer.status_code == 404
    assert "sweep_not_found" in answer.text


@pytest.mark.parametrize("query", ["?state=lost", "?page=0", "?page=x"])
def test_a_query_that_means_nothing_is_told(client: TestClient, query: str) -> None:
    answer = client.get(f"/sweeps/{start(client)}{query}", headers=PAGE)
    assert answer.status_code == 422
    assert f"query.{query[1:].partition('=')[0]}" in answer.text


def test_who_may_only_read_sees_sweeps_and_no_form(
    locked_client: TestClient, new_key: Callable[..., NewKey]
) -> None:
    headers = {"Authorization": f"Bearer {new_key('jobs:read').text}", **PAGE}
    assert locked_client.get("/sweeps", headers=headers).status_code == 200
    assert locked_client.get("/sweeps/new", headers=headers).status_code == 403
    assert locked_client.get("/sweeps", headers=PAGE, follow_redirects=False).status_code == 303


def test_what_the_form_of_the_page_promotes(client: TestClient, worker: StandIn) -> None:
    sweep_id = start(client)
    worker.work()
    page = look(client, sweep_id)
    found = re.search(r'data-send="POST ([^"]*)" data-then="([^"]*)"', page)
    assert found
    answer = client.post(found[1], json={"model": "ranks", "cell": 7, "alias": None})
    assert answer.status_code == 202
    assert json.loads(answer.text)["register_as"] == "ranks"
    assert found[2] == "/jobs/{id}"
