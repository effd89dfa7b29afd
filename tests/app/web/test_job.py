"""The page of a job in each state, and escaping of user input."""

import re
import time
from html import unescape
from uuid import UUID, uuid4

import pytest
from starlette.testclient import TestClient

from app.queue.transitions import InfrastructureUnavailable, Paused, PermanentFailure, Preempted
from app.resources import Resources
from app.web.confusion_matrix import ConfusionMatrix
from tests.app.jobs.fake_worker import FakeWorker
from tests.app.web.finished_jobs import HOSTILE, add, end, make_verdict, succeed
from tests.app.web.html_elements import elements, visible_text
from tests.job_rows import update_job

CANDIDATE = {
    "method": {"type": "linear"},
    "folds": 5,
    "repeats": 1,
    "texts": 90,
    "value": 0.9,
    "low": 0.8,
    "high": 0.95,
    "seconds": 100.0,
}
PAGE = {"Accept": "text/html"}


def text(client: TestClient, job_id: str, query: str = "") -> str:
    answer = client.get(f"/jobs/{job_id}{query}", headers=PAGE)
    assert answer.status_code == 200, answer.text
    return answer.text


def live_ids(page: str) -> set[str]:
    """Return the ids of live-updated elements."""
    return set(re.findall(r'id="([a-z-]+)"[^>]* data-live', page))


def test_queued_job(client: TestClient) -> None:
    ahead, job_id = add(client), add(client, name="mine", metadata={"ticket": "T-1"})
    page = text(client, job_id)
    assert "position 2 in the queue" in visible_text(page)
    assert f'data-request="POST /v1/jobs/{job_id}/cancel"' in page
    assert "Remove this job from the queue?" in page
    assert f'href="/jobs/new?from={job_id}"' in page
    assert f"DELETE /v1/jobs/{job_id}" not in page
    assert "T-1" in visible_text(page)
    assert live_ids(page) == {"actions", "tags-and-notes", "status", "result", "evaluation", "log"}
    assert "next in the queue" in visible_text(text(client, ahead))


def test_running_job(client: TestClient, resources: Resources) -> None:
    job_id = add(client)
    worker = FakeWorker(resources.database)
    lease = worker.claim().lease
    assert "starting" in visible_text(text(client, job_id))
    worker.note(lease, "Training 3 of 9 parameters.", kind="training")
    worker.log(lease, step=5, points={"loss": 0.5})
    worker.note(lease, "3% of the texts were cut.", step=5)
    page = text(client, job_id)
    assert "step 5 of 20 · about" in visible_text(page)
    assert re.search(r'<progress id="progress" max="1" value="0.25"', page)
    assert "Cancel this running job?" in page
    assert "warning 3% of the texts were cut." in visible_text(page)
    worker.renew(lease, step=20)
    assert "step 20 of 20 · evaluating and saving" in visible_text(text(client, job_id))
    client.post(f"/v1/jobs/{job_id}/cancel")
    page = text(client, job_id)
    assert 'class="state stopping"' in page
    assert re.search(r"/cancel\"[^>]* disabled>", page)


def test_times_are_those_of_training(client: TestClient, resources: Resources) -> None:
    """Neither the pause before the attempt nor the comparison of methods counts."""
    job_id = add(client)
    worker, now = FakeWorker(resources.database), time.time()
    lease = worker.claim().lease
    update_job(resources.database, UUID(job_id), started_at=now - 9 * 3600)
    worker.note(lease, "Training lora.", kind="selected", at=now - 1000)
    worker.note(lease, "Resumed.", kind="resumed", step=10, at=now - 60, data={"step": 10})
    worker.note(lease, "Training.", kind="training", step=10, at=now - 60, data={})
    assert "evaluating and saving" not in visible_text(text(client, job_id))
    worker.renew(lease, step=15)
    assert re.search(r"step 15 of 20 · about 1 min \d s left", visible_text(text(client, job_id)))
    worker.finish(lease, PermanentFailure("non_finite", "The loss is NaN."))
    assert re.search(r"after \d\.\d s, just now", visible_text(text(client, job_id)))
    assert ">9 h 0 min</td>" not in client.get("/").text


def test_queued_job_is_paused_and_resumed(client: TestClient) -> None:
    job_id = add(client)
    assert re.search(rf'data-request="POST /v1/jobs/{job_id}/pause">', text(client, job_id))
    client.post(f"/v1/jobs/{job_id}/pause")
    page = text(client, job_id)
    assert 'class="state paused"' in page
    assert "It starts again once you resume it." in visible_text(page)
    assert "Waiting since" not in visible_text(page)
    assert "/pause" not in page
    assert f'data-request="POST /v1/jobs/{job_id}/resume"' in page
    assert 'class="state paused"' in client.get("/").text
    client.post(f"/v1/jobs/{job_id}/resume")
    assert "next in the queue" in visible_text(text(client, job_id))


def test_running_job_is_paused(client: TestClient, resources: Resources) -> None:
    job_id = add(client)
    worker = FakeWorker(resources.database)
    lease = worker.claim().lease
    assert "Pause this running job? It saves a checkpoint" in text(client, job_id)
    client.post(f"/v1/jobs/{job_id}/pause")
    page = text(client, job_id)
    assert 'class="state pausing"' in page
    assert f"/v1/jobs/{job_id}/resume" in page
    worker.renew(lease, step=7)
    worker.finish(lease, Paused())
    assert re.search(r"Paused .* at step 7\.", visible_text(text(client, job_id)))
    client.post(f"/v1/jobs/{job_id}/resume")
    worker.claim()
    client.post(f"/v1/jobs/{job_id}/cancel")
    page = text(client, job_id)
    assert 'class="state stopping"' in page
    assert "/pause" not in page
    assert "/resume" not in page


def test_interrupted_comparison_starts_over(client: TestClient, resources: Resources) -> None:
    methods = [{"method": {"type": name}} for name in ("linear", "probe")]
    job_id = add(client, method={"type": "auto", "candidates": methods})
    worker = FakeWorker(resources.database)
    for done in (2, 1):
        lease = worker.claim().lease
        for _ in range(done):
            worker.note(lease, "Compared.", kind="candidate", data={"result": CANDIDATE})
        update_job(resources.database, UUID(job_id), total_steps=None)
        page = text(client, job_id)
        assert f"comparing methods, {done} of 2 done" in visible_text(page)
        assert page.count("90.0%") == done
        assert "Pause this running job? It starts from the beginning" in page
        worker.finish(lease, Preempted())


def test_trial_has_no_button_to_pause(client: TestClient, resources: Resources) -> None:
    job_id = add(client)
    update_job(resources.database, UUID(job_id), sweep_id=uuid4())
    assert "/pause" not in text(client, job_id)


def test_failed_job_shows_the_error(client: TestClient, resources: Resources) -> None:
    job_id = add(client, name="too fast")
    end(
        resources,
        PermanentFailure("non_finite", f"The loss became {HOSTILE}.", {"learning_rate": 9.5}),
    )
    page = text(client, job_id)
    assert f"Error The loss became {HOSTILE}. Code non_finite" in visible_text(page)
    assert "learning_rate 9.5" in visible_text(page)
    assert f'<a href="/jobs/new?from={job_id}">Change the settings' in page
    assert f'data-request="DELETE /v1/jobs/{job_id}"' in page
    assert "/cancel" not in page
    assert live_ids(page) == set()
    assert HOSTILE not in page


def test_failed_job_with_a_checkpoint_can_be_retried(
    client: TestClient, resources: Resources
) -> None:
    job_id = add(client)
    worker = FakeWorker(resources.database)
    lease = worker.claim().lease
    worker.save(lease, step=5)
    button = f'data-request="POST /v1/jobs/{job_id}/retry"'
    assert button not in text(client, job_id)
    worker.finish(lease, PermanentFailure("non_finite", "The loss is NaN."))
    page = text(client, job_id)
    assert button in page
    assert "the checkpoint at step 5?" in page
    unretryable = add(client)
    end(resources, PermanentFailure("one_class", "Only one label."))
    assert "/retry" not in text(client, unretryable)


def test_waiting_job_shows_the_reason(client: TestClient, resources: Resources) -> None:
    job_id = add(client)
    end(
        resources,
        InfrastructureUnavailable("insufficient_disk_space", "Too little disk is free.", 60),
    )
    assert "Too little disk is free. insufficient_disk_space" in visible_text(text(client, job_id))


def test_preempted_job_shows_its_attempt(client: TestClient, resources: Resources) -> None:
    job_id = add(client)
    end(resources, Preempted())
    FakeWorker(resources.database).claim()
    assert "attempt 2" in visible_text(text(client, job_id))


def test_succeeded_job_shows_its_results(client: TestClient, resources: Resources) -> None:
    job_id = succeed(client, resources, right=7, of=10, name=HOSTILE, register_as="mine")
    page = text(client, job_id)
    read = visible_text(page)
    assert HOSTILE not in page
    assert f"<h1>{HOSTILE}</h1>" in unescape(page)
    assert "Accuracy 70.0%" in read
    assert "Accuracy of the linear model 55.0%" in read
    assert "Balanced accuracy 60.0%" in read
    assert "1,234 of 5,678 parameters trained in 3.0 s; the best checkpoint is step 2." in read
    assert "True no yes no 4 1 yes 2 3 Label" in read  # of even places 8 is wrong
    assert "no 5 50.0% 25.0% 75.0% yes 5 50.0% 25.0% 75.0%" in read
    assert 'data-linear-metric="0.45"' in page
    assert "data-ended" in page


@pytest.mark.parametrize("learned", [True, False])
def test_model_that_has_learned_nothing_does_not_look_like_a_success(
    client: TestClient, resources: Resources, learned: bool
) -> None:
    verdict = make_verdict(learned=learned)
    assert ("has learned nothing" in verdict.headline) is not learned
    job_id = succeed(client, resources, verdict=verdict)
    page = text(client, job_id)
    [headline] = [each for each in elements(page, "strong") if each.text == verdict.headline]
    assert headline.get("class") == (None if learned else "error")
    for each in (page, client.get("/").text):
        [state] = [span for span in elements(each, "span") if span.text == "succeeded"]
        assert state["class"] == ("state succeeded" if learned else "state succeeded neutral")
    assert client.get(f"/v1/jobs/{job_id}").json()["learned"] is learned


def test_misclassified_texts_are_escaped(client: TestClient, resources: Resources) -> None:
    page = text(client, succeed(client, resources, right=8, of=10))
    read = visible_text(page.partition('id="misclassified"')[2].partition("</ol>")[0])
    assert read.startswith(
        f'class="misclassified" start="1"> text 9 {HOSTILE} Predicted no with 94.8%'
    )
    assert "true label yes . Row 10." in read
    assert f"text 8 {HOSTILE}" in read
    assert "text 7" not in read


def test_more_misclassified_texts_are_folded_and_all_can_be_downloaded(
    client: TestClient, resources: Resources
) -> None:
    job_id = succeed(client, resources, right=15, of=20)
    page = text(client, job_id)
    shown, _, folded = page.partition('id="misclassified"')[2].partition(
        '<details id="more-misclassified">'
    )
    assert [f"text {i} " in shown for i in (19, 18, 17, 16)] == [True, True, True, False]
    assert 'start="4"' in folded
    assert "text 15 " in folded
    assert "<summary>2 more</summary>" in folded
    links = re.findall(r'href="(/v1/jobs/[^"]+/misclassified/download[^"]+)"', page)
    csv, jsonl = (client.get(unescape(link)) for link in links)
    assert len(jsonl.text.splitlines()) == 5
    assert len(csv.text.splitlines()) == 6


def test_long_texts_are_truncated(client: TestClient, resources: Resources) -> None:
    page = text(client, succeed(client, resources, right=9, texts="long " * 1000))
    assert "long …" in page
    assert 79 < page.count("long ") < 82


def test_tags_link_to_the_filtered_list_and_notes_are_escaped(client: TestClient) -> None:
    job_id = add(client, tags=["50% & more"], notes=f"First line.\n{HOSTILE}")
    page = text(client, job_id)
    assert HOSTILE not in page
    assert unescape(page).count(f"First line.\n{HOSTILE}") == 2  # to be read, and to be edited
    assert 'value="50% &amp; more"' in page
    (link,) = set(re.findall(r'<a class="chip" href="([^"]+)"', page))
    add(client, name="another")
    listed = client.get(unescape(link)).text
    assert f'href="/jobs/{job_id}"' in listed
    assert "another" not in listed
    assert link in listed
    assert "Add tags or notes" in text(client, add(client))


def test_model_can_be_downloaded_registered_and_promoted(
    client: TestClient, resources: Resources
) -> None:
    job_id = succeed(client, resources)
    page = text(client, job_id)
    artifact = client.get(f"/v1/jobs/{job_id}").json()["artifact_id"]
    assert f'href="/v1/artifacts/{artifact}/archive"' in page
    for address in re.findall(rf'href="(/v1/artifacts/{artifact}/files/[^"]+)"', page):
        assert client.get(address).status_code == 200
    assert "predictions/test.jsonl" in page
    assert "Register as a model" in visible_text(page)
    body = {"job_id": job_id}
    assert client.post("/v1/models/mine/versions", json=body).status_code == 201
    page = text(client, job_id)
    assert "Registered as mine:1 Promote" in visible_text(page)
    assert 'data-request="PUT /v1/models/mine/aliases/production"' in page
    assert 'data-body="{&#34;version&#34;: 1}"' in page
    assert "Register also as" in visible_text(page)


def test_split_can_be_selected(client: TestClient, resources: Resources) -> None:
    job_id = succeed(client, resources)
    # This job has saved predictions for test texts only.
    assert text(client, job_id, "?part=validation").count('id="confusion"') == 1
    answer = client.get(f"/jobs/{job_id}?part=train", headers=PAGE)
    assert answer.status_code == 422
    assert "<code>validation_failed</code>" in answer.text


def test_damaged_files_do_not_break_the_page(client: TestClient, resources: Resources) -> None:
    job_id = succeed(client, resources)
    next(resources.settings.data_dir.rglob("misclassified/test.jsonl")).write_text("{}")
    read = visible_text(text(client, job_id))
    assert "are damaged: misclassified/test.jsonl has changed" in read
    assert "Accuracy 80.0%" in read


def test_provenance_links(client: TestClient, resources: Resources) -> None:
    first, job_id = add(client), add(client)
    sweep = "0198c0de-0000-7000-8000-000000000001"
    update_job(resources.database, UUID(job_id), sweep_id=UUID(sweep), continues=UUID(first))
    update_job(resources.database, UUID(job_id), dataset_ids={"all": sweep}, base="mine:3")
    page = text(client, job_id)
    for address in (f"/jobs/{first}", f"/sweeps/{sweep}", f"/datasets/{sweep}", "/models/mine"):
        assert f'href="{address}"' in page


@pytest.mark.parametrize("address", ["/jobs/x", "/jobs/0198c0de-0000-7000-8000-000000000000"])
def test_unknown_job(client: TestClient, address: str) -> None:
    answer = client.get(address, headers=PAGE)
    assert answer.status_code == 404
    assert "<code>job_not_found</code>" in answer.text


def test_many_labels_become_a_heatmap_and_confused_pairs() -> None:
    labels = [f"label {i}" for i in range(20)]
    matrix = [[9 if i == j else i if j == 0 else 0 for j in range(20)] for i in range(20)]
    label_metrics = {"precision": 0, "recall": 0, "f1": 0}
    metrics = {"confusion_matrix": matrix, "per_class": dict.fromkeys(labels, label_metrics)}
    found = ConfusionMatrix.from_metrics(labels, metrics)
    assert not found.fits_table
    assert found.confused_pairs[0] == ("label 19", "label 0", 19)
    assert len(found.confused_pairs) == 12
    assert (found.total, found.incorrect) == (20 * 9 + 190, 190)
    assert [(each.x, each.y, each.count) for each in found.heatmap_cells[:2]] == [
        (0, 19, 19),
        (0, 18, 18),
    ]
    assert len(found.heatmap_cells) == 39  # nonempty cells
    assert {each.correct for each in found.heatmap_cells if each.x == each.y} == {True}
    assert min(each.shade for each in found.heatmap_cells) == 1


def test_cells_are_shaded_by_their_share_of_the_row() -> None:
    label_metrics = {"precision": 0, "recall": 0, "f1": 0}
    metrics = {
        "confusion_matrix": [[90, 10], [0, 0]],
        "per_class": {"a": label_metrics, "b": label_metrics},
    }
    found = ConfusionMatrix.from_metrics(["a", "b"], metrics)
    assert [[cell.shade for cell in row.cells] for row in found.rows] == [[8, 1], [0, 0]]
