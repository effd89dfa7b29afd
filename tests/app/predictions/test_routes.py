"""Prediction runs over HTTP."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from app.auth.service import CreatedKey
from app.database.engines import Database
from app.queue import leases
from app.queue.transitions import PermanentFailure
from app.registry import service as registry
from app.resources import Resources
from lora_core import manifest
from tests.app.predictions.conftest import (
    MULTI_LABEL,
    REGRESSION,
    ROWS,
    SEVERAL_TARGETS,
    SUMMARY,
    Answer,
    predicted_rows,
    store_results,
)
from tests.job_rows import claim_next, get_job, update_job
from tests.prediction_rows import add_model

URL = "/v1/predictions"

pytestmark = pytest.mark.usefixtures("model", "texts")


def submit(client: TestClient, **body: Any) -> dict[str, Any]:
    sent = client.post(URL, json={"dataset": "texts", **body})
    assert sent.status_code == 202, sent.text
    run: dict[str, Any] = sent.json()
    return run


def test_only_the_dataset_is_required(client: TestClient) -> None:
    sent = client.post(URL, json={"dataset": "texts"})
    assert sent.status_code == 202, sent.text
    run = sent.json()
    assert sent.headers["Location"] == f"{URL}/{run['id']}"
    assert client.get(sent.headers["Location"]).json() == run
    assert (run["model"], run["dataset"], run["text_column"]) == ("sentiment:1", "texts:1", "body")
    assert (run["state"], run["queue_position"]) == ("queued", 1)
    assert (run["rows_done"], run["rows"], run["progress"]) == (0, 3, 0.0)
    assert (run["summary"], run["error"], run["has_results"]) == (None, None, False)


def test_the_version_is_pinned_when_the_run_is_created(
    client: TestClient, resources: Resources, tmp_path: Path
) -> None:
    before = submit(client, model="sentiment@production")
    (tmp_path / "next").mkdir()
    manifest.create_and_save(tmp_path / "next", {"format": 1, "second": True})
    assert add_model(resources, tmp_path / "next") == "sentiment:2"
    assert client.get(f"{URL}/{before['id']}").json()["model"] == "sentiment:1"
    assert claim_next(resources.database).spec["model"] == "sentiment:1"
    assert submit(client)["model"] == "sentiment:2"
    assert submit(client, model="sentiment:1")["model"] == "sentiment:1"


def test_one_idempotency_key_creates_one_run(client: TestClient) -> None:
    headers = {"Idempotency-Key": "once"}
    first = client.post(URL, json={"dataset": "texts"}, headers=headers)
    again = client.post(URL, json={"dataset": "texts"}, headers=headers)
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["Location"] == first.headers["Location"]
    other = client.post(URL, json={"dataset": "texts", "priority": 1}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(client.get(URL).json()["data"]) == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "validation_failed"),
        ({"dataset": "nothing"}, 404, "dataset_not_found"),
        ({"dataset": "texts:2"}, 404, "dataset_not_found"),
        ({"dataset": "texts", "model": "nothing"}, 404, "model_not_found"),
        ({"dataset": "texts", "model": "sentiment:9"}, 404, "model_not_found"),
        ({"dataset": "texts", "model": "Sentiment!"}, 422, "invalid_model_ref"),
        ({"dataset": "texts", "text_column": "body"}, 422, "validation_failed"),
        ({"dataset": "texts", "priority": 101}, 422, "validation_failed"),
    ],
)
def test_an_invalid_run_is_rejected_at_once(
    client: TestClient, body: dict[str, Any], status: int, code: str
) -> None:
    sent = client.post(URL, json=body)
    assert (sent.status_code, sent.json()["code"]) == (status, code), sent.text
    assert client.get(URL).json()["data"] == []


def test_without_a_model_in_production_one_must_be_named(
    client: TestClient, database: Database
) -> None:
    with database.write() as session:
        registry.delete_alias(session, name="sentiment", alias="production")
    sent = client.post(URL, json={"dataset": "texts"})
    assert (sent.status_code, sent.json()["code"]) == (404, "no_model_promoted")
    assert submit(client, model="sentiment:1")["model"] == "sentiment:1"


def test_results_are_the_rows_with_their_predictions(client: TestClient, answer: Answer) -> None:
    run = submit(client)
    answer()
    shown = client.get(f"{URL}/{run['id']}").json()
    assert (shown["state"], shown["summary"], shown["progress"]) == ("succeeded", SUMMARY, 1.0)
    assert shown["has_results"]
    got = client.get(f"{URL}/{run['id']}/results")
    assert got.headers["content-type"].startswith("application/jsonl")
    assert [json.loads(line) for line in got.text.splitlines()] == predicted_rows()


def test_formulas_are_escaped_for_a_spreadsheet(
    client: TestClient, resources: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ROWS[0], "body", "=HYPERLINK(1)")
    run = submit(client)
    store_results(resources, tmp_path / "results")

    def body(**params: Any) -> str:
        got = client.get(f"{URL}/{run['id']}/results", params={"format": "csv", **params})
        return next(csv.DictReader(io.StringIO(got.text)))["body"]

    assert body() == "=HYPERLINK(1)"
    assert body(spreadsheet=True) == "'=HYPERLINK(1)"


def test_results_as_csv_have_a_column_for_each_label(client: TestClient, answer: Answer) -> None:
    run = submit(client)
    answer()
    got = client.get(f"{URL}/{run['id']}/results", params={"format": "csv"})
    assert got.headers["content-type"].startswith("text/csv")
    assert got.headers["content-disposition"] == f'attachment; filename="{run["id"]}.csv"'
    first, second = csv.DictReader(io.StringIO(got.text))
    assert first == {
        "id": "1", "body": "good, and more", "share": "0.5", "seen": "true", "tags": '["a", "b"]',
        "predicted_label": "good", "predicted_score": "0.75",
        "predicted_scores.bad": "0.25", "predicted_scores.good": "0.75",
    }  # fmt: skip
    assert (second["share"], second["seen"], second["tags"]) == ("", "false", "")


def test_results_of_other_tasks_as_csv(
    client: TestClient, resources: Resources, tmp_path: Path
) -> None:
    def results(name: str, facts: dict[str, Any]) -> list[list[str]]:
        run = submit(client)
        store_results(resources, tmp_path / name, **facts)
        assert client.get(f"{URL}/{run['id']}").json()["summary"] == facts["summary"]
        got = client.get(f"{URL}/{run['id']}/results", params={"format": "csv"})
        return list(csv.reader(io.StringIO(got.text)))

    assert results("sets", MULTI_LABEL) == [
        ["id", "predicted_labels", "predicted_scores.bad", "predicted_scores.good"],
        ["1", '["bad", "good"]', "0.5", "0.75"],
        ["2", "[]", "0.25", "0.0"],
    ]
    assert results("numbers", REGRESSION) == [
        ["id", "predicted_value", "predicted_low", "predicted_high"],
        ["1", "3.5", "3.0", "4.0"],
        ["2", "-1.0", "", ""],
    ]
    header, row = results("several", SEVERAL_TARGETS)
    assert dict(zip(header, row, strict=True)) == {
        "id": "1",
        "stars.predicted_value": "3.5", "stars.predicted_low": "", "stars.predicted_high": "",
        "topic.predicted_label": "good", "topic.predicted_score": "0.75",
        "topic.predicted_scores.bad": "0.25", "topic.predicted_scores.good": "0.75",
    }  # fmt: skip


@pytest.mark.parametrize("state", ["queued", "failed"])
def test_only_a_run_that_succeeded_has_results(
    client: TestClient, database: Database, state: str
) -> None:
    run = submit(client)
    if state == "failed":
        claimed = claim_next(database)
        with database.write() as session:
            leases.finish_attempt(
                session, claimed.lease, PermanentFailure("reserved_column", "No.", {})
            )
        shown = client.get(f"{URL}/{run['id']}").json()
        assert shown["error"] == {"code": "reserved_column", "message": "No.", "detail": {}}
    got = client.get(f"{URL}/{run['id']}/results")
    assert (got.status_code, got.json()["code"]) == (409, "no_results")
    assert state in got.json()["detail"]


def test_damaged_results_are_not_returned(
    client: TestClient, answer: Answer, resources: Resources
) -> None:
    run = submit(client)
    answer()
    [file] = resources.settings.artifacts_dir.rglob("results.jsonl")
    file.chmod(0o600)
    file.write_text("{}\n")
    got = client.get(f"{URL}/{run['id']}/results")
    assert (got.status_code, got.json()["code"]) == (409, "artifact_corrupt")


def test_a_queued_run_is_cancelled_and_a_running_one_is_requested_to_stop(
    client: TestClient, database: Database
) -> None:
    run = submit(client)
    predicted_rows = client.post(f"{URL}/{run['id']}/cancel")
    assert (predicted_rows.status_code, predicted_rows.json()["state"]) == (200, "cancelled")
    run = submit(client)
    claim_next(database)
    predicted_rows = client.post(f"{URL}/{run['id']}/cancel")
    assert (predicted_rows.status_code, predicted_rows.json()["state"]) == (202, "running")
    assert predicted_rows.json()["cancel_requested_at"] is not None


def test_deleting_a_run_deletes_its_results(
    client: TestClient, answer: Answer, resources: Resources
) -> None:
    run = submit(client)
    refused = client.delete(f"{URL}/{run['id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "prediction_not_finished")
    answer()
    assert client.delete(f"{URL}/{run['id']}").status_code == 204
    assert list(resources.settings.artifacts_dir.rglob("results.jsonl")) == []
    for call in (client.get, client.delete):
        gone = call(f"{URL}/{run['id']}")
        assert (gone.status_code, gone.json()["code"]) == (404, "prediction_not_found")


def test_a_dataset_cannot_be_deleted_while_a_run_reads_it(
    client: TestClient, answer: Answer
) -> None:
    dataset = client.get("/v1/datasets/texts").json()["id"]
    submit(client)
    refused = client.delete(f"/v1/datasets/{dataset}")
    assert (refused.status_code, refused.json()["code"]) == (409, "dataset_in_use")
    answer()
    assert client.delete(f"/v1/datasets/{dataset}").status_code == 204


def test_a_version_cannot_be_deleted_while_a_run_predicts_with_it(
    client: TestClient, answer: Answer
) -> None:
    name, number = submit(client)["model"].split(":")
    version = f"/v1/models/{name}/versions/{number}"
    for alias in client.get(f"/v1/models/{name}").json()["aliases"]:
        client.delete(f"/v1/models/{name}/aliases/{alias}")
    refused = client.delete(version)
    assert (refused.status_code, refused.json()["code"]) == (409, "version_read_by_jobs")
    answer()
    assert client.delete(version).status_code == 204


def test_runs_are_listed_by_state_the_newest_first(client: TestClient, answer: Answer) -> None:
    done = submit(client)["id"]
    answer()
    ids = [submit(client)["id"] for _ in range(2)]
    first = client.get(URL, params={"limit": 2}).json()
    assert [run["id"] for run in first["data"]] == ids[::-1]
    rest = client.get(URL, params={"limit": 2, "after": first["next"]}).json()
    assert [run["id"] for run in rest["data"]] == [done]
    succeeded = client.get(URL, params={"state": "succeeded"}).json()["data"]
    assert [run["id"] for run in succeeded] == [done]


def test_a_run_is_not_a_job(client: TestClient, answer: Answer, database: Database) -> None:
    run_id = submit(client)["id"]
    for method, path in (
        ("GET", f"/v1/jobs/{run_id}"),
        ("GET", f"/v1/jobs/{run_id}/events"),
        ("GET", f"/v1/jobs/{run_id}/stream"),
        ("POST", f"/v1/jobs/{run_id}/cancel"),
        ("DELETE", f"/v1/jobs/{run_id}"),
    ):
        gone = client.request(method, path)
        assert (gone.status_code, gone.json()["code"]) == (404, "job_not_found"), path
    assert client.get("/v1/jobs").json()["data"] == []
    assert client.get(f"{URL}/{run_id}").json()["state"] == "queued"
    artifact_id = get_job(database, answer()).artifact_id
    assert client.get(f"/v1/artifacts/{artifact_id}").status_code == 404
    made = client.post("/v1/models/odd/versions", json={"job_id": run_id})
    assert (made.status_code, made.json()["code"]) == (409, "job_without_model")


def test_a_run_shows_that_it_waits_for_the_store(client: TestClient, database: Database) -> None:
    run = submit(client)
    update_job(
        database, UUID(run["id"]), waiting_since=1.0, waiting_code="storage_unavailable",
        waiting_message="Away.",
    )  # fmt: skip
    waiting = client.get(f"{URL}/{run['id']}").json()["waiting"]
    assert (waiting["code"], waiting["message"]) == ("storage_unavailable", "Away.")


@pytest.mark.parametrize("run_id", ["nonsense", "0197c5d2-7a3e-7000-8000-000000000002"])
def test_an_unknown_run_is_not_found(client: TestClient, run_id: str) -> None:
    for path in (f"{URL}/{run_id}", f"{URL}/{run_id}/results"):
        gone = client.get(path)
        assert (gone.status_code, gone.json()["code"]) == (404, "prediction_not_found")


def test_reading_and_writing_have_separate_scopes(
    anonymous_client: TestClient, new_key: Callable[..., CreatedKey]
) -> None:
    def sent(method: str, *scopes: str) -> int:
        headers = {"Authorization": f"Bearer {new_key(*scopes).text}"}
        body = {"dataset": "texts"} if method == "POST" else None
        return anonymous_client.request(method, URL, json=body, headers=headers).status_code

    assert sent("GET", "predictions:read") == 200
    assert sent("POST", "predictions:write") == 202
    assert sent("POST", "predictions:read") == 403
    assert sent("GET", "predict", "jobs:read") == 403
