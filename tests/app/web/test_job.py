"""The page of a job in each of its states: what it shows, and that texts stay texts."""

import re
from html import unescape
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from app.queue.transitions import Failed, Preempted, Waiting
from app.resources import Resources
from app.web.confusion import Confusion
from tests.app.jobs.fake_worker import FakeWorker
from tests.app.web.finished import HOSTILE, add, end, succeed
from tests.app.web.markup import plain
from tests.job_rows import change

PAGE = {"Accept": "text/html"}


def text(client: TestClient, job_id: str, query: str = "") -> str:
    answer = client.get(f"/jobs/{job_id}{query}", headers=PAGE)
    assert answer.status_code == 200, answer.text
    return answer.text


def live(page: str) -> set[str]:
    """Ids of the parts that look for news."""
    return set(re.findall(r'id="([a-z]+)"[^>]* data-live', page))


def test_a_job_that_waits(client: TestClient) -> None:
    ahead, job_id = add(client), add(client, name="mine", metadata={"ticket": "T-1"})
    page = text(client, job_id)
    assert "place 2 in the queue" in plain(page)
    assert f'data-call="POST /v1/jobs/{job_id}/cancel"' in page
    assert "Take this job out of the queue?" in page
    assert f'href="/jobs/new?from={job_id}"' in page
    assert f"DELETE /v1/jobs/{job_id}" not in page
    assert "T-1" in plain(page)
    assert live(page) == {"actions", "tagged", "status", "result", "outcome", "log"}
    assert "next in the queue" in plain(text(client, ahead))


def test_a_job_that_runs(client: TestClient, resources: Resources) -> None:
    job_id = add(client)
    worker = FakeWorker(resources.database)
    lease = worker.claim().lease
    assert "getting ready" in plain(text(client, job_id))
    worker.log(lease, step=5, points={"loss": 0.5})
    worker.note(lease, "3 % of the texts were cut.", step=5)
    page = text(client, job_id)
    assert "step 5 of 20 · about" in plain(page)
    assert re.search(r'<progress id="progress" max="1" value="0.25"', page)
    assert "Stop this job?" in page
    assert "warning 3 % of the texts were cut." in plain(page)
    worker.beat(lease, step=20)
    assert "step 20 of 20 · evaluating and saving" in plain(text(client, job_id))
    client.post(f"/v1/jobs/{job_id}/cancel")
    page = text(client, job_id)
    assert 'class="state stopping"' in page
    assert re.search(r"/cancel\"[^>]* disabled>", page)


def test_a_job_that_failed_says_why_and_what_to_do(
    client: TestClient, resources: Resources
) -> None:
    job_id = add(client, name="too fast")
    end(resources, Failed("non_finite", f"The loss became {HOSTILE}.", {"learning_rate": 9.5}))
    page = text(client, job_id)
    assert f"Why it failed The loss became {HOSTILE}. Code non_finite" in plain(page)
    assert "learning_rate 9.5" in plain(page)
    assert f'<a href="/jobs/new?from={job_id}">Change its settings' in page
    assert f'data-call="DELETE /v1/jobs/{job_id}"' in page
    assert "/cancel" not in page
    assert live(page) == set()
    assert HOSTILE not in page


def test_a_job_that_failed_with_a_checkpoint_can_be_retried(
    client: TestClient, resources: Resources
) -> None:
    job_id = add(client)
    worker = FakeWorker(resources.database)
    lease = worker.claim().lease
    worker.save(lease, step=5)
    button = f'data-call="POST /v1/jobs/{job_id}/retry"'
    assert button not in text(client, job_id)
    worker.finish(lease, Failed("non_finite", "The loss is NaN."))
    page = text(client, job_id)
    assert button in page
    assert "the checkpoint of step 5?" in page
    end_of = add(client)
    end(resources, Failed("one_class", "Only one label."))
    assert "/retry" not in text(client, end_of)


def test_a_job_that_waits_for_something_says_for_what(
    client: TestClient, resources: Resources
) -> None:
    job_id = add(client)
    end(resources, Waiting("disk_full", "Too little disk is free.", 60))
    assert "Too little disk is free. disk_full" in plain(text(client, job_id))


def test_a_job_that_was_interrupted_says_so(client: TestClient, resources: Resources) -> None:
    job_id = add(client)
    end(resources, Preempted())
    FakeWorker(resources.database).claim()
    assert "attempt 2" in plain(text(client, job_id))


def test_a_job_that_succeeded_shows_what_came_of_it(
    client: TestClient, resources: Resources
) -> None:
    job_id = succeed(client, resources, right=7, of=10, name=HOSTILE, register_as="mine")
    page = text(client, job_id)
    read = plain(page)
    assert HOSTILE not in page
    assert f"<h1>{HOSTILE}</h1>" in unescape(page)
    assert "Accuracy 70.0 %" in read
    assert "Accuracy of the linear rival 55.0 %" in read
    assert "Balanced accuracy 60.0 %" in read
    assert "1,234 of 5,678 parameters trained in 3.0 s; the weights of step 2 were kept." in read
    assert "True no yes no 4 1 yes 2 3 Label" in read  # of even places 8 is wrong
    assert "no 5 50.0 % 25.0 % 75.0 % yes 5 50.0 % 25.0 % 75.0 %" in read
    assert 'data-rival="0.45"' in page
    assert "data-ended" in page


def test_what_it_gets_most_wrong_stands_as_text(client: TestClient, resources: Resources) -> None:
    page = text(client, succeed(client, resources, right=8, of=10))
    read = plain(page.partition('id="mistakes"')[2].partition("</ol>")[0])
    assert read.startswith(f'class="mistakes" start="1"> text 9 {HOSTILE} It says no with 94.8 %')
    assert "the label is yes . Row 10." in read
    assert f"text 8 {HOSTILE}" in read
    assert "text 7" not in read


def test_more_mistakes_are_folded_and_all_can_be_downloaded(
    client: TestClient, resources: Resources
) -> None:
    job_id = succeed(client, resources, right=15, of=20)
    page = text(client, job_id)
    shown, _, folded = page.partition('id="mistakes"')[2].partition('<details id="more-mistakes">')
    assert [f"text {i} " in shown for i in (19, 18, 17, 16)] == [True, True, True, False]
    assert 'start="4"' in folded
    assert "text 15 " in folded
    assert "<summary>2 more</summary>" in folded
    links = re.findall(r'href="(/v1/jobs/[^"]+/mistakes/download[^"]+)"', page)
    csv, jsonl = (client.get(unescape(link)) for link in links)
    assert len(jsonl.text.splitlines()) == 5
    assert len(csv.text.splitlines()) == 6


def test_a_long_text_is_cut(client: TestClient, resources: Resources) -> None:
    page = text(client, succeed(client, resources, right=9, texts="long " * 1000))
    assert "long …" in page
    assert 79 < page.count("long ") < 82


def test_tags_lead_to_their_jobs_and_notes_are_text(client: TestClient) -> None:
    job_id = add(client, tags=["50 % & more"], notes=f"First line.\n{HOSTILE}")
    page = text(client, job_id)
    assert HOSTILE not in page
    assert unescape(page).count(f"First line.\n{HOSTILE}") == 2  # to be read, and to be edited
    assert 'value="50 % &amp; more"' in page
    (link,) = set(re.findall(r'<a class="chip" href="([^"]+)"', page))
    add(client, name="another")
    listed = client.get(unescape(link)).text
    assert f'href="/jobs/{job_id}"' in listed
    assert "another" not in listed
    assert link in listed
    assert "Add tags or notes" in text(client, add(client))


def test_its_model_can_be_downloaded_registered_and_promoted(
    client: TestClient, resources: Resources
) -> None:
    job_id = succeed(client, resources)
    page = text(client, job_id)
    artifact = client.get(f"/v1/jobs/{job_id}").json()["artifact_id"]
    assert f'href="/v1/artifacts/{artifact}/archive"' in page
    for address in re.findall(rf'href="(/v1/artifacts/{artifact}/files/[^"]+)"', page):
        assert client.get(address).status_code == 200
    assert "predictions/test.jsonl" in page
    assert "Register as a model" in plain(page)
    body = {"job_id": job_id}
    assert client.post("/v1/models/mine/versions", json=body).status_code == 201
    page = text(client, job_id)
    assert "Registered as mine:1 Promote" in plain(page)
    assert 'data-call="PUT /v1/models/mine/aliases/production"' in page
    assert 'data-body="{&#34;version&#34;: 1}"' in page
    assert "Register also as" in plain(page)


def test_the_part_can_be_chosen(client: TestClient, resources: Resources) -> None:
    job_id = succeed(client, resources)
    # This job has answers to test texts alone.
    assert text(client, job_id, "?part=validation").count('id="confusion"') == 1
    answer = client.get(f"/jobs/{job_id}?part=train", headers=PAGE)
    assert answer.status_code == 422
    assert "<code>validation_failed</code>" in answer.text


def test_files_that_are_damaged_leave_the_rest_readable(
    client: TestClient, resources: Resources
) -> None:
    job_id = succeed(client, resources)
    next(resources.settings.data_dir.rglob("mistakes/test.jsonl")).write_text("{}")
    read = plain(text(client, job_id))
    assert "are damaged: mistakes/test.jsonl has changed" in read
    assert "Accuracy 80.0 %" in read


def test_where_it_comes_from_leads_there(client: TestClient, resources: Resources) -> None:
    first, job_id = add(client), add(client)
    sweep = "0198c0de-0000-7000-8000-000000000001"
    change(resources.database, UUID(job_id), sweep_id=UUID(sweep), continues=UUID(first))
    change(resources.database, UUID(job_id), dataset_ids={"all": sweep}, base="mine:3")
    page = text(client, job_id)
    for address in (f"/jobs/{first}", f"/sweeps/{sweep}", f"/datasets/{sweep}", "/models/mine"):
        assert f'href="{address}"' in page


@pytest.mark.parametrize("address", ["/jobs/x", "/jobs/0198c0de-0000-7000-8000-000000000000"])
def test_a_job_that_is_not_there(client: TestClient, address: str) -> None:
    answer = client.get(address, headers=PAGE)
    assert answer.status_code == 404
    assert "<code>job_not_found</code>" in answer.text


def test_many_labels_are_a_map_and_the_most_frequent_mistakes() -> None:
    labels = [f"label {i}" for i in range(20)]
    matrix = [[9 if i == j else i if j == 0 else 0 for j in range(20)] for i in range(20)]
    one = {"precision": 0, "recall": 0, "f1": 0}
    figures = {"confusion_matrix": matrix, "per_class": dict.fromkeys(labels, one)}
    found = Confusion.of(labels, figures)
    assert not found.small
    assert found.pairs[0] == ("label 19", "label 0", 19)
    assert len(found.pairs) == 12
    assert (found.texts, found.wrong) == (20 * 9 + 190, 190)
    assert [(each.x, each.y, each.texts) for each in found.squares[:2]] == [
        (0, 19, 19),
        (0, 18, 18),
    ]
    assert len(found.squares) == 39  # those that are not empty
    assert {each.right for each in found.squares if each.x == each.y} == {True}
    assert min(each.shade for each in found.squares) == 1


def test_a_cell_is_shaded_by_its_share_of_the_row() -> None:
    one = {"precision": 0, "recall": 0, "f1": 0}
    figures = {"confusion_matrix": [[90, 10], [0, 0]], "per_class": {"a": one, "b": one}}
    found = Confusion.of(["a", "b"], figures)
    assert [[cell.shade for cell in row.cells] for row in found.rows] == [[8, 1], [0, 0]]
