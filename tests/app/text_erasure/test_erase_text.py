"""Forgetting leaves a text nowhere but in what it reports."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from sqlalchemy import insert, select, update
from starlette.testclient import TestClient

from app.database.base import new_id
from app.database.engines import Database
from app.datasets import service as datasets
from app.http.dependencies import get_app_state
from app.privacy import repository as privacy
from app.privacy.text_hashes import TextHasher
from app.queue.enums import JobKind, JobState
from app.queue.tables import Job
from app.registry.service import add_version
from app.registry.tables import ModelVersion
from app.resources import Resources
from app.settings import Settings
from app.text_erasure import repository, service
from app.traffic.tables import KeptPrediction
from lora_core.data.data_report import RowExcerpt
from lora_core.data.rows import TextRow
from tests.app.text_erasure.conftest import Publish, Serving
from tests.app.traffic.test_traffic import files_with, flush, rows_with
from tests.job_rows import MANIFEST, add_job
from tests.kept_predictions import add_prediction, all_feedback, kept_predictions
from tests.labeling_rows import LabeledRow, add_labels, create_project, make_pool, text_of
from tests.stored_artifact import store_artifact
from tests.tiny_artifact import make_artifact, make_regression_artifact

CANARY = "Mrs. Ødegård of 7 Elm Street called about her thyroid"
ROUTE = "/v1/forget"


def forget(client: TestClient, **body: Any) -> dict[str, Any]:
    sent = client.post(ROUTE, json=body)
    assert sent.status_code == 200, sent.text
    found: dict[str, Any] = sent.json()
    return found


def predict(client: TestClient, inputs: Any = CANARY, model: str = "sentiment") -> str:
    sent = client.post(f"/models/{model}/predict", json={"inputs": inputs})
    assert sent.status_code == 200, sent.text
    return sent.headers["X-Prediction-Id"]


def add_feedback(client: TestClient, label: str = "bad", **more: Any) -> None:
    sent = client.post("/v1/feedback", json={"label": label, **more})
    assert sent.status_code == 200, sent.text


def upload(client: TestClient, texts: list[str], name: str = "mail", **headers: str) -> Any:
    rows = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(texts)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    files = {"file": (f"{name}.jsonl", content)}
    sent = client.post("/v1/datasets", files=files, headers=headers)
    assert sent.status_code == 201, sent.text
    return sent.json()


def test_no_trace_is_left(
    keeping: TestClient, publish: Publish, database: Database, settings: Settings
) -> None:
    publish()
    prediction_id = predict(keeping)
    add_feedback(keeping, prediction_id=prediction_id)
    add_feedback(keeping, text=f" {CANARY}\n", model="sentiment", by="ada")
    for text in ("another text", "one more", "a third"):
        add_feedback(keeping, text=text, model="sentiment", label="good")
    flush(keeping)
    assert set(rows_with(database, CANARY)) == {"kept_predictions", "feedback"}
    predict(keeping)  # it is still in memory
    result = forget(keeping, text=f"{CANARY} ")
    assert result == {
        "removed": {"predictions": 2, "feedback": 2, "labels": 0, "responses": 0},
        "searched": True,
        "datasets": [],
        "unsearched": [],
        "readers_of_deleted": [],
        "jobs": [],
        "models": [],
    }
    predict(keeping)  # nor is it kept again
    flush(keeping)
    refused = keeping.post(
        "/v1/feedback", json={"text": CANARY, "model": "sentiment", "label": "bad"}
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "text_forgotten")
    assert rows_with(database, CANARY) == []
    assert files_with(settings.data_dir / "artifacts", CANARY) == []
    assert list((settings.data_dir / "datasets").rglob("wanted.json")) == []
    assert forget(keeping, text=CANARY)["removed"]["predictions"] == 0


def test_deleted_bytes_are_overwritten(
    keeping: TestClient, publish: Publish, database: Database, settings: Settings
) -> None:
    """In the file of SQLite. PostgreSQL frees them with its next autovacuum."""
    publish()
    predict(keeping)
    add_feedback(keeping, text=CANARY, model="sentiment")
    flush(keeping)
    is_sqlite = database.write_engine.dialect.name == "sqlite"
    assert bool(files_with(settings.data_dir, CANARY)) is is_sqlite
    forget(keeping, text=CANARY)
    assert files_with(settings.data_dir, CANARY) == []


def test_feedback_datasets_leave_it_out(keeping: TestClient, publish: Publish) -> None:
    """Also where feedback was stored by a process that had not seen the request to forget."""
    publish()
    for text, label in ((CANARY, "bad"), ("one", "good"), ("two", "bad")):
        add_feedback(keeping, text=text, model="sentiment", label=label)
    first = keeping.post("/v1/models/sentiment/feedback/dataset", json={})
    assert first.json()["rows"] == 3
    result = forget(keeping, text=CANARY)
    assert [each["ref"] for each in result["datasets"]] == ["sentiment-feedback:1"]
    following = keeping.post("/v1/models/sentiment/feedback/dataset", json={}).json()
    assert (following["ref"], following["rows"]) == ("sentiment-feedback:2", 2)
    assert keeping.delete("/v1/datasets/sentiment-feedback:1").status_code == 204
    assert forget(keeping, text=CANARY)["datasets"] == []


def test_datasets_jobs_and_models_are_reported(
    client: TestClient, resources: Resources, database: Database, tmp_path: Path
) -> None:
    upload(client, ["one", "two", "three", "four"], "other")
    dataset = upload(client, ["one", CANARY, "two", f" {CANARY} ", "three", "four"])
    ids = {"all": dataset["id"]}
    trained, unregistered, other = (
        add_job(database, dataset_ids=each, state=JobState.SUCCEEDED, finished_at=1.0)
        for each in (ids, ids, {})
    )
    for name, job_id in (("first", trained), ("second", other), ("third", other)):
        directory = make_artifact(tmp_path / name)
        artifact = store_artifact(resources, directory, f"jobs/{job_id}/a{name}", job_id=job_id)
        with database.write() as session:
            add_version(session, name=name, artifact=artifact, manifest=MANIFEST)
    with database.write() as session:  # trained further from the first
        session.execute(
            update(ModelVersion).where(ModelVersion.job_id == other).values(base="first:1")
        )
    client.put("/v1/models/first/aliases/staging", json={"version": 1})
    result = forget(client, text=CANARY)
    assert result["datasets"] == [
        {"ref": "mail:1", "id": dataset["id"], "count": 2, "rows": [2, 4]}
    ]
    assert {UUID(each) for each in result["jobs"]} == {trained, unregistered}
    aliases = client.get("/v1/models/first").json()["aliases"]
    assert [(each["ref"], each["trained_on"]) for each in result["models"]] == [
        *(("first:1", "mail:1"), ("second:1", "first:1"), ("third:1", "first:1")),
    ]
    assert result["models"][0]["aliases"] == sorted(aliases)
    assert result["unsearched"] == []
    without = forget(client, text=CANARY, search_datasets=False)
    assert (without["searched"], without["datasets"], without["models"]) == (False, [], [])


def test_all_jobs_of_a_dataset_are_found(database: Database) -> None:
    job_id, dataset, jobs = add_job(database), new_id(), 10_001
    table = Job.metadata.tables[Job.__tablename__]
    with database.write() as session:
        row = session.execute(select(table).where(Job.id == job_id)).one()
        values = {**row._mapping, "dataset_ids": {"all": str(dataset)}}
        session.execute(insert(table), [{**values, "id": new_id()} for _ in range(jobs)])
    with database.read() as session:
        assert len(repository.list_job_dataset_pairs(session, [dataset])) == jobs


def test_by_prediction_id(
    serving: Serving, publish: Publish, database: Database, client: TestClient
) -> None:
    """Where only scores are kept, the hash is enough to remove, but not to search."""
    publish()
    scores = serving(keep_traffic="scores")
    first, _ = predict(scores), predict(scores)
    predict(scores, "another")
    upload(client, ["one", CANARY, "two", "three"])
    result = forget(scores, prediction_id=first)
    assert (result["removed"]["predictions"], result["searched"]) == (2, False)
    assert len(kept_predictions(database)) == 1

    brought = predict(scores, "it was brought")
    add_feedback(scores, prediction_id=brought, text="it was brought", model="sentiment")
    add_feedback(scores, prediction_id=brought, by="ada")
    upload(client, ["one", "it was brought", "two", "three"], name="brought")
    result = forget(scores, prediction_id=brought)
    assert (result["removed"]["predictions"], result["removed"]["feedback"]) == (1, 2)
    assert [each["ref"] for each in result["datasets"]] == ["brought:1"]

    texts = serving(keep_traffic="texts")
    prediction_id = predict(texts, ["other 1", "other 2"])
    add_feedback(texts, prediction_id=f"{prediction_id}-1")
    result = forget(texts, prediction_id=f"{prediction_id}-1")
    assert (result["removed"]["predictions"], result["removed"]["feedback"]) == (1, 1)
    assert result["searched"]
    ambiguous = texts.post(ROUTE, json={"prediction_id": prediction_id})
    assert (ambiguous.status_code, ambiguous.json()["code"]) == (422, "prediction_ambiguous")
    for unknown in (f"{prediction_id}-1", "0" * 32):
        refused = texts.post(ROUTE, json={"prediction_id": unknown})
        assert (refused.status_code, refused.json()["code"]) == (404, "prediction_unknown")


def test_pairs(keeping: TestClient, publish: Publish, database: Database, tmp_path: Path) -> None:
    """A text is forgotten in every pair; a pair only as this pair."""
    publish("stars", artifact=make_regression_artifact(tmp_path / "a", pairs=True))
    pairs = [(CANARY, "a"), ("b", CANARY), ("b", "a"), (CANARY, "b")]
    for first, second in pairs:
        predict(keeping, {"text": first, "text_pair": second}, "stars")
        sent = keeping.post(
            "/v1/feedback",
            json={"text": first, "text_pair": second, "model": "stars", "value": 1},
        )
        assert sent.status_code == 200
    result = forget(keeping, text=CANARY, text_pair="a")
    assert (result["removed"]["predictions"], result["removed"]["feedback"]) == (1, 1)
    assert {(row.text, row.text_pair) for row in kept_predictions(database)} == set(pairs[1:])
    predict(keeping, {"text": CANARY, "text_pair": "a"}, "stars")
    flush(keeping)
    assert len(kept_predictions(database)) == 3
    result = forget(keeping, text=CANARY)
    assert (result["removed"]["predictions"], result["removed"]["feedback"]) == (2, 2)
    assert [(row.text, row.text_pair) for row in all_feedback(database)] == [("b", "a")]
    predict(keeping, {"text": "new", "text_pair": CANARY}, "stars")
    flush(keeping)
    assert len(kept_predictions(database)) == 1


def test_stored_responses(client: TestClient, database: Database) -> None:
    """The response of an upload shows texts that the checks of the data point at."""
    texts = [CANARY, CANARY, "one", "two", "three", "four"]  # with both labels
    upload(client, texts, **{"Idempotency-Key": "a"})
    upload(client, ["five", "six", "seven", "eight"], "other", **{"Idempotency-Key": "b"})
    assert "idempotency_keys" in rows_with(database, CANARY)
    assert forget(client, text=CANARY)["removed"]["responses"] == 1
    assert rows_with(database, CANARY) == ["datasets"]  # which is reported
    assert client.delete("/v1/datasets/mail").status_code == 204
    assert rows_with(database, CANARY) == []


def test_labeling_projects(client: TestClient, resources: Resources, tmp_path: Path) -> None:
    make_pool(resources, tmp_path)
    url = f"/v1/labeling/{create_project(client)['name']}"
    sent = client.put(f"{url}/texts/7", json={"label": "good"})
    assert sent.status_code == 200, sent.text
    result = forget(client, text=f" {text_of(7)}", search_datasets=False)
    assert result["removed"]["labels"] == 1
    shown = set()
    while texts := client.post(f"{url}/next", json={"count": 20}).json()["texts"]:
        for each in texts:
            shown.add(each["row"])
            client.put(f"{url}/texts/{each['row']}", json={"label": "good"})
    assert shown == set(range(1, 61)) - {7}
    assert [each["ref"] for each in forget(client, text=text_of(7))["datasets"]] != []


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        ("short", True),
        ("a short story", False),
        ({"a": [1, None, {"b": " short "}]}, True),
        ({"short": 1}, True),
        ([], False),
    ],
)
def test_short_texts_are_recognized_as_a_whole(value: Any, holds: bool) -> None:
    assert service.contains_text_or_excerpt(value, text="short") is holds


def test_long_texts_are_recognized_in_part() -> None:
    for shown in (f"see: {CANARY}!", f"{CANARY[:30]}…", CANARY[:30]):
        assert service.contains_text_or_excerpt([shown], text=CANARY)
        assert service.contains_text_or_excerpt([shown], text=("other", CANARY))
    assert not service.contains_text_or_excerpt([CANARY[:10], "1" * 30], text=CANARY)


def test_a_text_of_several_lines_is_recognized_in_one_line() -> None:
    text = "The order arrived late.\n\nThe box\twas  broken. " + "Sad. " * 50
    row = RowExcerpt.from_row(TextRow(1, text, "a"))
    assert service.contains_text_or_excerpt(row.model_dump(mode="json"), text=text)
    assert service.contains_text_or_excerpt([f"see: {text}!"], text=text)


def test_what_cannot_be_searched_is_reported(
    client: TestClient, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = upload(client, ["one", CANARY, "two", "three"])
    upload(client, ["one", CANARY, "two", "three"], "other")
    resources.store.delete(f"uploads/{dataset['id']}/{dataset['id']}.jsonl")
    result = forget(client, text=CANARY)
    assert (result["unsearched"], [each["ref"] for each in result["datasets"]]) == (
        *(["mail:1"], ["other:1"]),
    )
    monkeypatch.setattr(service, "SEARCH_SECONDS", 0.0)
    assert forget(client, text=CANARY)["unsearched"] == ["other:1", "mail:1"]


def test_files_of_jobs_on_deleted_datasets_are_reported(
    client: TestClient, resources: Resources, database: Database, tmp_path: Path
) -> None:
    dataset = upload(client, ["one", CANARY, "two", "three"])
    key = f"jobs/{new_id()}/a1"
    artifact = store_artifact(resources, make_artifact(tmp_path / "a"), key, job_id=None)
    fields: dict[str, Any] = {
        "dataset_ids": {"train": dataset["id"], "test": dataset["id"]},
        "state": JobState.SUCCEEDED,
        "finished_at": 1.0,
    }
    jobs = {
        kind.value: add_job(database, kind=kind, artifact_id=artifact.id, **fields)
        for kind in JobKind
    }
    add_job(database, **fields)  # its files have expired
    assert forget(client, text=CANARY)["readers_of_deleted"] == []
    assert client.delete("/v1/datasets/mail:1").status_code == 204
    assert forget(client, text=CANARY)["readers_of_deleted"] == [
        {"job_id": str(jobs[kind]), "kind": kind, "dataset": "mail:1"}
        for kind in ("training", "prediction")
    ]


def test_the_audit_log_has_no_text(
    keeping: TestClient, publish: Publish, capsys: pytest.CaptureFixture[str]
) -> None:
    publish()
    predict(keeping)
    forget(keeping, text=CANARY)
    logged = capsys.readouterr().err
    (line,) = (each for each in logged.splitlines() if "text_forgotten" in each)
    assert json.loads(line)["predictions"] == 1
    assert "thyroid" not in logged


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": CANARY, "prediction_id": "0" * 32},
        {"text_pair": CANARY},
        {"text": " "},
        {"text": 3},
        {"prediction_id": "x"},
        {"text": CANARY, "search_datasets": "yes"},
        {"text": CANARY, "everything": True},
    ],
)
def test_bad_bodies(body: dict[str, Any], client: TestClient) -> None:
    refused = client.post(ROUTE, json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")


def test_another_pepper_gives_other_hashes(database: Database) -> None:
    one, same, other = (TextHasher(each) for each in (b"a" * 32, b"a" * 32, b"b" * 32))
    assert one.hash_text("x") == same.hash_text(" x\n") == same.hash_input("x").whole
    assert one.hash_text("x") != other.hash_text("x")
    assert one.hash_text("caf\u00e9") == one.hash_text("cafe\u0301")
    pair = one.hash_input(("x", "y"))
    assert pair.all == (pair.whole, one.hash_text("x"), one.hash_text("y"))
    assert pair.whole != one.hash_input(("y", "x")).whole


def test_a_prediction_that_expired_is_still_known_by_its_feedback(
    keeping: TestClient, publish: Publish, database: Database
) -> None:
    publish()
    prediction_id = add_prediction(database, text=CANARY)
    add_feedback(keeping, prediction_id=prediction_id.hex)
    app: FastAPI = keeping.app  # type: ignore[assignment]
    get_app_state(app).traffic.flush()
    with database.write() as session:
        for row in kept_predictions(database):
            session.delete(row)
    result = forget(keeping, prediction_id=prediction_id.hex)
    assert (result["removed"]["feedback"], result["searched"]) == (1, True)


def test_an_expired_prediction_of_several_texts_is_ambiguous(
    keeping: TestClient, publish: Publish, database: Database
) -> None:
    publish()
    prediction_id = predict(keeping, ["one", "two"])
    for position in range(2):
        add_feedback(keeping, prediction_id=f"{prediction_id}-{position}")
    with database.write() as session:
        for row in kept_predictions(database):
            session.delete(row)
    refused = keeping.post(ROUTE, json={"prediction_id": prediction_id})
    assert (refused.status_code, refused.json()["code"]) == (422, "prediction_ambiguous")
    assert len(all_feedback(database)) == 2
    assert forget(keeping, prediction_id=f"{prediction_id}-1")["removed"]["feedback"] == 1
    refused = keeping.post(ROUTE, json={"prediction_id": f"{prediction_id}-1"})
    assert (refused.status_code, refused.json()["code"]) == (404, "prediction_unknown")


def test_forgetting_waits_for_those_who_are_storing_the_text(
    keeping: TestClient, publish: Publish, database: Database, settings: Settings
) -> None:
    """Otherwise the text would be stored by a transaction that does not see the request."""
    publish()
    hashes = TextHasher.from_settings(settings).hash_input(CANARY)
    stored, forgotten = Event(), Event()

    def store() -> None:
        with database.write() as session:
            privacy.lock_text_storage(session)
            assert privacy.find_forgotten_hashes(session, hashes.all) == set()
            session.add(
                KeptPrediction(
                    prediction_id=new_id(),
                    position=0,
                    texts=1,
                    model="sentiment",
                    number=1,
                    task="single_label",
                    text_hash=hashes.whole,
                    text=CANARY,
                    answer="good",
                    scores={},
                    confidence={},
                )
            )
            session.flush()
            stored.set()
            assert not forgotten.wait(1.0)

    with ThreadPoolExecutor(2) as pool:
        storing = pool.submit(store)
        assert stored.wait(20)
        result = forget(keeping, text=CANARY, search_datasets=False)
        forgotten.set()
        storing.result(20)
    assert result["removed"]["predictions"] == 1
    assert kept_predictions(database) == []


def test_others_can_write_while_stored_responses_are_read(
    client: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they store then is found too."""
    texts = [CANARY, CANARY, "one", "two", "three", "four"]
    upload(client, texts, **{"Idempotency-Key": "a"})
    contains = service.contains_text_or_excerpt
    late: list[Any] = []

    def upload_and_look(value: Any, *, text: Any) -> bool:
        if not late:
            late.append(None)
            late.append(upload(client, texts, "late", **{"Idempotency-Key": "b"}))
        return contains(value, text=text)

    monkeypatch.setattr(service, "contains_text_or_excerpt", upload_and_look)
    assert forget(client, text=CANARY, search_datasets=False)["removed"]["responses"] == 2
    assert len(late) == 2
    assert rows_with(database, CANARY) == ["datasets"]


@pytest.mark.parametrize("source", ["feedback", "labels"])
def test_no_new_dataset_has_a_text_that_is_forgotten_while_it_is_made(
    client: TestClient,
    publish: Publish,
    resources: Resources,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
) -> None:
    if source == "feedback":
        publish()
        for text, label in ((text_of(1), "good"), (text_of(2), "bad"), (text_of(3), "good")):
            add_feedback(client, label, text=text, model="sentiment")
        route = "/v1/models/sentiment/feedback/dataset"
    else:
        make_pool(resources, tmp_path)
        create_project(client)
        add_labels(resources, [LabeledRow(row, ("bad", "good")[row % 2]) for row in (1, 2, 3)])
        route = "/v1/labeling/mood/dataset"
    profile = datasets.validate_and_set_profile

    def profile_and_forget(*args: Any) -> None:
        profile(*args)
        forget(client, text=text_of(3), search_datasets=False)

    with monkeypatch.context() as patch:
        patch.setattr(datasets, "validate_and_set_profile", profile_and_forget)
        refused = client.post(route, json={"name": "made"})
    assert (refused.status_code, refused.json()["code"]) == (409, "text_forgotten_meanwhile")
    assert client.get("/v1/datasets/made").status_code == 404
    again = client.post(route, json={"name": "made"})
    assert (again.status_code, again.json()["rows"]) == (201, 2)
