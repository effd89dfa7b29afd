"""The rule of a model: set, read, delete; when it is due, and what cannot be retrained."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient

from app.auth.service import CreatedKey
from app.database.engines import Database
from app.main import create_app
from app.queue.tables import Job
from app.registry.tables import ModelVersion
from app.resources import Resources
from app.retraining import scheduler
from app.retraining.tables import RetrainingRule, RetrainingRun
from app.settings import Settings
from tests.app.retraining.conftest import MODEL, Retraining
from tests.app.serving.conftest import Publish, publish
from tests.kept_predictions import add_feedback
from tests.retraining_rows import add_rule, add_run, all_runs

__all__ = ["publish"]

PATH = "/v1/models/sentiment/retraining"


def test_set_read_and_delete(client: TestClient, publish: Publish) -> None:
    publish()
    missing = client.get(PATH)
    assert (missing.status_code, missing.json()["code"]) == (404, "retraining_rule_not_found")
    made = client.put(PATH, json={"new_labels": 200, "every_days": 7})
    assert made.status_code == 200, made.text
    rule = client.get(PATH).json()
    assert rule == made.json()
    assert rule["level"] == 0.05
    assert (rule["waiting_labels"], rule["tries"], rule["search"]) == (0, 0, None)
    changed = client.put(PATH, json={"enabled": False, "level": 0.01}).json()
    assert (changed["new_labels"], changed["every_days"], changed["due_at"]) == (None, None, None)
    assert changed["created_at"] == rule["created_at"]
    assert client.delete(PATH).status_code == 204
    assert client.delete(PATH).status_code == 404


def test_rule_is_deleted_with_its_model(
    client: TestClient, publish: Publish, database: Database
) -> None:
    """A new model of that name does not inherit it."""
    publish()
    add_rule(database)
    client.delete("/v1/models/sentiment/aliases/production")
    assert client.get(PATH).status_code == 200
    assert client.delete("/v1/models/sentiment").status_code == 204
    publish()
    assert client.get(PATH).json()["code"] == "retraining_rule_not_found"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"new_labels": 0},
        {"new_labels": 1.5},
        {"every_days": 0},
        {"every_days": 1000},
        {"new_labels": 5, "level": 0},
        {"new_labels": 5, "level": 0.9},
        {"new_labels": 5, "search": {}},
        {"new_labels": 5, "unknown": 1},
    ],
)
def test_bad_rules(client: TestClient, publish: Publish, body: dict[str, Any]) -> None:
    publish()
    assert client.put(PATH, json=body).status_code == 422


def test_unknown_model(client: TestClient) -> None:
    for method, path in (
        ("GET", PATH),
        ("PUT", PATH),
        ("DELETE", PATH),
        ("GET", f"{PATH}/runs"),
        ("POST", f"{PATH}/runs"),
    ):
        response = client.request(method, path, json={"new_labels": 5})
        assert (response.status_code, response.json()["code"]) == (404, "model_not_found"), path


def test_unknown_run(client: TestClient, publish: Publish, database: Database) -> None:
    publish()
    publish("other")
    run_id = add_run(database, "other")
    for each in ("nothing", str(run_id)):
        for response in (
            client.get(f"{PATH}/runs/{each}"),
            client.post(f"{PATH}/runs/{each}/cancel"),
        ):
            code = response.json()["code"]
            assert (response.status_code, code) == (404, "retraining_run_not_found")


def test_scopes(auth_settings: Settings, new_key: Callable[..., CreatedKey]) -> None:
    reader, other = new_key("models:read", name="a"), new_key("jobs:read", name="b")
    with TestClient(create_app(auth_settings)) as client:
        for key, path, method, expected in (
            (reader, PATH, "GET", 404),
            (reader, PATH, "PUT", 403),
            (reader, PATH, "DELETE", 403),
            (reader, f"{PATH}/runs", "POST", 403),
            (reader, f"{PATH}/runs", "GET", 404),
            (other, PATH, "GET", 403),
            (other, f"{PATH}/runs", "GET", 403),
        ):
            headers = {"Authorization": f"Bearer {key.text}"}
            response = client.request(method, path, headers=headers, json={"new_labels": 5})
            assert response.status_code == expected, (path, method)


def test_pages_of_runs(client: TestClient, publish: Publish, database: Database) -> None:
    publish()
    ids = [str(add_run(database)) for _ in range(3)]
    first = client.get(f"{PATH}/runs", params={"limit": 2}).json()
    assert [each["id"] for each in first["data"]] == ids[:0:-1]
    second = client.get(f"{PATH}/runs", params={"after": first["next"]}).json()
    assert [each["id"] for each in second["data"]] == ids[:1]
    assert client.get(f"{PATH}/runs/{ids[0]}").json() == second["data"][0]


# -- What is due ----------------------------------------------------------------------------------


def backdate(database: Database, days: float) -> None:
    """Let this much time pass."""
    with database.write() as session:
        for table in (RetrainingRule, RetrainingRun):
            session.execute(update(table).values(created_at=table.created_at - days * 86_400))


def test_due_by_new_labels(resources: Resources, publish: Publish, database: Database) -> None:
    publish()
    add_rule(database, new_labels=3)
    for _ in range(2):
        add_feedback(database)
    add_feedback(database, text=None)  # cannot train
    add_feedback(database, model="other")
    scheduler.start_due_runs(resources)
    assert all_runs(database) == []
    add_feedback(database)
    scheduler.start_due_runs(resources)
    scheduler.start_due_runs(resources)  # one run at a time
    (run,) = all_runs(database)
    assert (run.trigger, run.new_labels, run.current_number) == ("new_labels", 3, 1)


def test_due_by_time(resources: Resources, publish: Publish, database: Database) -> None:
    publish()
    add_rule(database, new_labels=None, every_days=7)
    backdate(database, 8)
    scheduler.start_due_runs(resources)
    assert all_runs(database) == []  # there is nothing new
    add_feedback(database)
    scheduler.start_due_runs(resources)
    (run,) = all_runs(database)
    assert run.trigger == "time"


def test_days_count_from_the_last_run(
    resources: Resources, publish: Publish, database: Database
) -> None:
    publish()
    add_rule(database, new_labels=None, every_days=7)
    add_run(database, state="failed", labels_until=0.0)
    add_feedback(database)
    scheduler.start_due_runs(resources)
    assert len(all_runs(database)) == 1
    backdate(database, 7.1)
    scheduler.start_due_runs(resources)
    assert len(all_runs(database)) == 2


def test_nothing_is_due_without_the_rule_or_production(
    resources: Resources, client: TestClient, publish: Publish, database: Database
) -> None:
    publish()
    add_feedback(database)
    add_rule(database, new_labels=1, enabled=False)
    scheduler.start_due_runs(resources)
    client.put(PATH, json={"new_labels": 1})
    client.delete("/v1/models/sentiment/aliases/production")
    scheduler.start_due_runs(resources)
    assert all_runs(database) == []


# -- What cannot be retrained ---------------------------------------------------------------------


def start(retraining: Retraining) -> tuple[int, str]:
    response = retraining.client.post(f"/v1/models/{MODEL}/retraining/runs")
    return response.status_code, response.json().get("code", "")


def test_start_on_request(mood: Retraining, database: Database) -> None:
    assert start(mood) == (404, "retraining_rule_not_found")
    mood.set_rule(enabled=False)
    assert start(mood) == (409, "retraining_no_labels")
    add_feedback(database, model=MODEL)
    path, headers = f"/v1/models/{MODEL}/retraining/runs", {"Idempotency-Key": "once"}
    first = mood.client.post(path, headers=headers)
    assert first.status_code == 202
    assert first.headers["Location"] == f"{path}/{first.json()['id']}"
    assert first.json()["trigger"] == "request"
    assert mood.client.post(path, headers=headers).json() == first.json()
    assert start(mood) == (409, "retraining_in_progress")


def test_versions_that_cannot_be_retrained(mood: Retraining, database: Database) -> None:
    mood.set_rule(enabled=False)
    add_feedback(database, model=MODEL)

    def change(**columns: Any) -> None:
        with database.write() as session:
            session.execute(update(Job).values(**columns))

    with database.read() as session:
        job = session.scalars(select(Job)).one()
        spec, ids = job.spec, job.dataset_ids
    hub = {**spec, "data": {**spec["data"], "source": "hub:imdb"}}
    change(spec=hub, dataset_ids={})
    assert start(mood) == (409, "retraining_hub_data")
    change(spec=spec, dataset_ids=ids)
    assert mood.client.delete("/v1/datasets/moods:1").status_code == 204
    assert start(mood) == (409, "retraining_dataset_deleted")
    with database.write() as session:
        session.execute(update(ModelVersion).values(job_id=None))
    assert start(mood) == (409, "retraining_imported_version")
    with database.write() as session:
        session.execute(update(ModelVersion).values(job_id=UUID(int=0)))
    assert start(mood) == (409, "retraining_job_deleted")
    mood.client.delete(f"/v1/models/{MODEL}/aliases/production")
    assert start(mood) == (404, "no_model_promoted")


def test_due_run_of_an_imported_version_fails(mood: Retraining, database: Database) -> None:
    with database.write() as session:
        session.execute(update(ModelVersion).values(job_id=None))
    mood.set_rule(new_labels=1)
    add_feedback(database, model=MODEL)
    run = mood.advance()
    assert (run["state"], run["error"]["code"]) == ("failed", "retraining_imported_version")
    mood.advance()
    assert len(mood.runs()) == 1
