"""Tests of labeling projects: creating, listing, updating and deleting them."""

import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.auth import service as keys
from app.auth.errors import KeyNameInvalid
from app.database.engines import Database
from app.datasets.tables import Dataset
from app.labeling import repository, service
from app.labeling.pools import LabelingPools
from app.labeling.tables import LabelingChosenText
from app.labeling.views import project_view
from app.queue.enums import JobKind, JobState
from app.queue.tables import Job
from app.resources import Resources
from lora_core.specs.embed import VECTORS_FILE
from tests.labeling_rows import (
    LabeledRow,
    add_labels,
    create_project,
    label_next,
    label_of,
    make_pool,
    next_rows,
    put,
    store_vectors,
    vectors_of,
)
from tests.waiting import wait_for_a_waiter


def problem(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def test_a_project_is_created_with_a_job_that_computes_its_vectors(
    client: TestClient, pool: Dataset, database: Database
) -> None:
    body = {"name": "mood", "dataset": "reviews:1", "labels": [" good ", "bad"]}
    response = client.post("/v1/labeling", json=body)
    assert response.status_code == 201
    assert response.headers["location"] == "/v1/labeling/mood"
    project = response.json()
    assert project["task"] == {"type": "single_label", "ordered": False}
    assert project["labels"] == [{"name": "good", "texts": 0}, {"name": "bad", "texts": 0}]
    assert (project["texts"], project["labeled"], project["skipped"]) == (60, 0, 0)
    assert project["base"] == "minilm-l6"
    assert (project["accuracy"], project["agreement"]) == (None, None)
    assert project["vectors"]["state"] == "queued"
    assert client.get("/v1/labeling/mood").json() == project
    with database.read() as session:
        [job] = session.scalars(select(Job))
    assert (job.kind, job.method, job.total_steps) == (JobKind.EMBEDDING, "embed", 60)
    assert job.dataset_ids == {"all": str(pool.id)}
    assert str(job.id) == project["vectors"]["job"]


def test_a_job_of_vectors_is_neither_a_job_nor_a_prediction_run(
    client: TestClient, project: dict[str, Any]
) -> None:
    job = project["vectors"]["job"]
    assert client.get("/v1/jobs").json()["data"] == []
    assert client.get("/v1/predictions").json()["data"] == []
    for path, code in (("jobs", "job_not_found"), ("predictions", "prediction_not_found")):
        assert problem(client.get(f"/v1/{path}/{job}")) == (404, code)
        assert problem(client.post(f"/v1/{path}/{job}/cancel")) == (404, code)
    for action in ("pause", "resume", "retry"):
        assert problem(client.post(f"/v1/jobs/{job}/{action}")) == (404, "job_not_found")
    assert client.get(f"/v1/labeling/{project['name']}").json()["vectors"]["state"] == "queued"
    assert client.get("/jobs").text.count(job) == 0


def test_vectors_of_the_same_texts_are_used_again(
    client: TestClient, project: dict[str, Any], resources: Resources, tmp_path: Path
) -> None:
    again = create_project(client, "second")
    assert again["vectors"]["job"] == project["vectors"]["job"]
    store_vectors(resources, tmp_path / "vectors", vectors_of(60))
    third = create_project(client, "third")
    assert third["vectors"] == {
        "state": "ready",
        "job": project["vectors"]["job"],
        "progress": third["vectors"]["progress"],
        "error": None,
    }
    make_pool(resources, tmp_path, texts=5, name="others")
    other = create_project(client, "other", dataset="others")
    assert other["vectors"]["job"] != project["vectors"]["job"]


def test_ranks_are_in_the_order_in_which_training_reads_them(
    client: TestClient, pool: Dataset
) -> None:
    project = create_project(
        client, task={"type": "single_label", "ordered": True}, labels=["10", "9", "1"]
    )
    assert [each["name"] for each in project["labels"]] == ["1", "9", "10"]
    changed = client.patch("/v1/labeling/mood", json={"add_labels": ["2", "9"]}).json()
    assert [each["name"] for each in changed["labels"]] == ["1", "2", "9", "10"]


def test_labels_are_added(client: TestClient, project: dict[str, Any]) -> None:
    changed = client.patch("/v1/labeling/mood", json={"add_labels": ["mixed", "good"]}).json()
    assert [each["name"] for each in changed["labels"]] == ["bad", "good", "mixed"]
    assert put(client, 1, label="mixed")["label"] == "mixed"


def test_what_cannot_be_a_project_is_refused(
    client: TestClient, project: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(**body: Any) -> tuple[int, str]:
        fields = {"name": "new", "dataset": "reviews", "labels": ["a", "b"], **body}
        return problem(client.post("/v1/labeling", json=fields))

    assert create(name="mood") == (409, "labeling_name_taken")
    assert create(dataset="nothing") == (404, "dataset_not_found")
    assert create(base="no-such-base") == (422, "base_not_found")
    ranks: dict[str, Any] = {"task": {"type": "single_label", "ordered": True}}
    assert create(**ranks, labels=["low", "medium", "high"]) == (422, "ranks_not_in_order")
    for wrong in (
        {"name": "Not a slug"},
        {"labels": ["a", "a"]},
        {"labels": ["a", " "]},
        {"labels": [f"label {n}" for n in range(1001)]},
        {"random_share": 1.5},
        {"overlap": -0.1},
        {"task": {"type": "regression"}},  # it has no labels
        {"task": {"type": "multi_label", "ordered": True}},
        {"task": {"type": "several_targets"}},
    ):
        assert create(**wrong) == (422, "validation_failed"), wrong
    monkeypatch.setattr("app.labeling.service.MAX_TEXTS", 59)
    assert create() == (422, "labeling_pool_too_large")


def test_a_dataset_with_labels_is_refused(client: TestClient) -> None:
    rows = "text,label\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(20))
    client.post("/v1/datasets", files={"file": ("labeled.csv", rows.encode())})
    response = client.post("/v1/labeling", json={"name": "new", "dataset": "labeled"})
    assert problem(response) == (422, "dataset_has_labels")
    assert "labeled:1" in response.json()["detail"]


def test_labels_that_cannot_be_added_are_refused(
    client: TestClient, project: dict[str, Any]
) -> None:
    many = [f"label {n}" for n in range(999)]
    response = client.patch("/v1/labeling/mood", json={"add_labels": many})
    assert problem(response) == (422, "too_many_labels")
    create_project(client, "stars", task={"type": "regression"}, labels=[])
    response = client.patch("/v1/labeling/stars", json={"add_labels": ["a"]})
    assert problem(response) == (422, "numbers_have_no_labels")
    response = client.patch("/v1/labeling/mood", json={"add_labels": []})
    assert problem(response) == (422, "validation_failed")


def test_projects_are_listed_newest_first(client: TestClient, project: dict[str, Any]) -> None:
    for name in ("second", "third"):
        create_project(client, name)
    put(client, 1, skipped=True)
    put(client, 2)
    first = client.get("/v1/labeling?limit=2").json()
    assert [each["name"] for each in first["data"]] == ["third", "second"]
    last = client.get("/v1/labeling", params={"after": first["next"]}).json()
    [listed] = last["data"]
    assert (listed["name"], listed["labeled"], listed["skipped"]) == ("mood", 1, 1)
    assert last["next"] is None


def test_a_deleted_project_is_gone_with_its_labels(
    client: TestClient, project: dict[str, Any], database: Database
) -> None:
    label_next(client, 3)
    assert client.delete("/v1/labeling/mood").status_code == 204
    for method, path, body in (
        ("GET", "", None),
        ("PATCH", "", {"add_labels": ["x"]}),
        ("DELETE", "", None),
        ("POST", "/next", {}),
        ("PUT", "/texts/1", {"label": "good"}),
        ("DELETE", "/texts/1", None),
        ("GET", "/annotations", None),
        ("POST", "/dataset", {}),
    ):
        response = client.request(method, f"/v1/labeling/mood{path}", json=body)
        assert problem(response) == (404, "labeling_project_not_found"), (method, path)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(LabelingChosenText)) == 0
        [job] = session.scalars(select(Job))
    assert job.state == JobState.CANCELLED  # nobody needs the vectors
    again = create_project(client)  # the name is free
    assert again["labeled"] == 0
    assert again["vectors"]["job"] != project["vectors"]["job"]


def test_the_job_of_vectors_that_another_project_needs_is_not_cancelled(
    client: TestClient, project: dict[str, Any]
) -> None:
    create_project(client, "second")
    client.delete("/v1/labeling/mood")
    assert client.get("/v1/labeling/second").json()["vectors"]["state"] == "queued"


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_vectors_that_another_project_is_about_to_need_are_not_cancelled(
    client: TestClient,
    project: dict[str, Any],
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first project is deleted before the second one, which found its job, is committed."""
    deletes: list[Future[Any]] = []

    def delete_the_first(*args: Any) -> Any:
        deletes.append(threads.submit(client.delete, "/v1/labeling/mood"))
        wait_for_a_waiter(database)
        return project_view(*args)

    with ThreadPoolExecutor(1) as threads:
        with monkeypatch.context() as patched:
            patched.setattr("app.labeling.service.project_view", delete_the_first)
            second = create_project(client, "second")
        assert deletes[0].result().status_code == 204
    assert second["vectors"]["job"] == project["vectors"]["job"]
    assert client.get("/v1/labeling/second").json()["vectors"]["state"] == "queued"


def test_labels_outlive_their_dataset(
    client: TestClient, project: dict[str, Any], resources: Resources, tmp_path: Path
) -> None:
    store_vectors(resources, tmp_path / "vectors", vectors_of(60))
    [row] = next_rows(client)
    put(client, row)
    assert client.delete("/v1/datasets/reviews:1").status_code == 204
    view = client.get("/v1/labeling/mood").json()
    assert (view["dataset_deleted"], view["labeled"]) == (True, 1)
    [annotation] = client.get("/v1/labeling/mood/annotations").json()["data"]
    assert (annotation["row"], annotation["label"], annotation["text"]) == (
        row, label_of(row), None,
    )  # fmt: skip
    for method, path, body in (
        ("POST", "/next", {}),
        ("PUT", f"/texts/{row % 60 + 1}", {"label": "good"}),
    ):
        response = client.request(method, f"/v1/labeling/mood{path}", json=body)
        assert problem(response) == (409, "labeling_dataset_deleted"), (method, path)


def test_failed_vectors_are_reported(
    client: TestClient, project: dict[str, Any], database: Database
) -> None:
    with database.write() as session:
        job = session.scalars(select(Job)).one()
        job.state, job.error_message, job.finished_at = "failed", "The hub is down.", 1.0
    vectors = client.get("/v1/labeling/mood").json()["vectors"]
    assert (vectors["state"], vectors["error"]) == ("failed", "The hub is down.")
    label_next(client, 3)  # texts are chosen at random
    retried = client.patch("/v1/labeling/mood", json={"retry_vectors": True}).json()["vectors"]
    assert (retried["state"], retried["job"] != vectors["job"]) == ("queued", True)
    again = client.patch("/v1/labeling/mood", json={"retry_vectors": True}).json()["vectors"]
    assert again["job"] == retried["job"]  # it is queued already


def test_vectors_that_were_deleted_are_computed_again(
    client: TestClient, project: dict[str, Any], resources: Resources, tmp_path: Path
) -> None:
    store_vectors(resources, tmp_path / "vectors", vectors_of(60))
    with resources.database.write() as session:
        session.scalars(select(Job)).one().artifact_id = None
    vectors = client.get("/v1/labeling/mood").json()["vectors"]
    assert (vectors["state"], "retry_vectors" in vectors["error"]) == ("failed", True)
    retried = client.patch("/v1/labeling/mood", json={"retry_vectors": True}).json()["vectors"]
    assert retried["state"] == "queued"
    client.delete("/v1/datasets/reviews:1")  # refused: the job reads it
    store_vectors(resources, tmp_path / "again", vectors_of(60))
    assert client.delete("/v1/datasets/reviews:1").status_code == 204
    response = client.patch("/v1/labeling/mood", json={"retry_vectors": True})
    assert problem(response) == (409, "labeling_dataset_deleted")


@pytest.mark.parametrize("is_missing", [False, True])
def test_damaged_vectors_stop_nobody_and_are_computed_again(
    client: TestClient,
    project: dict[str, Any],
    resources: Resources,
    tmp_path: Path,
    is_missing: bool,
) -> None:
    store_vectors(resources, tmp_path / "vectors", vectors_of(60))
    [file] = resources.settings.data_dir.rglob(VECTORS_FILE)
    if is_missing:
        shutil.rmtree(file.parent)
    else:
        file.chmod(0o600)
        file.write_bytes(b"x" + file.read_bytes()[1:])
    label_next(client, 20)
    view = client.get("/v1/labeling/mood").json()
    assert (view["labeled"], view["suggestions_from"]) == (20, None)
    assert (view["vectors"]["state"], "damaged" in view["vectors"]["error"]) == ("failed", True)
    assert client.post("/v1/labeling/mood/dataset").status_code == 201
    retried = client.patch("/v1/labeling/mood", json={"retry_vectors": True}).json()["vectors"]
    assert (retried["state"], retried["job"] != view["vectors"]["job"]) == ("queued", True)
    store_vectors(resources, tmp_path / "again", vectors_of(60))
    assert client.get("/v1/labeling/mood").json()["suggestions_from"] == 20


@pytest.mark.usefixtures("project")
def test_vectors_that_another_request_has_just_removed_are_not_used(
    resources: Resources, tmp_path: Path
) -> None:
    store_vectors(resources, tmp_path / "vectors", vectors_of(60))
    with resources.database.read() as session:
        opened = service.get_project_with_dataset_and_job(session, "mood")
    assert opened.job is not None
    assert opened.job.artifact_id is not None
    with resources.database.write() as session:
        ids = opened.job.id, opened.job.artifact_id
        repository.remove_vectors(session, resources.store, *ids)
    with closing(LabelingPools(resources)) as pools:
        assert service.open_pool(pools, opened).vectors is None


def test_a_retry_with_the_same_key_creates_one_project(client: TestClient, pool: Dataset) -> None:
    body = {"name": "mood", "dataset": "reviews"}
    first, second = (
        client.post("/v1/labeling", json=body, headers={"Idempotency-Key": "one"}) for _ in range(2)
    )
    assert first.json() == second.json()
    assert (first.status_code, second.status_code) == (201, 201)


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        (["labels:read"], {"list", "get", "annotations"}),
        (["labels:write"], {"list", "get", "annotations", "patch", "next", "put", "undo"}),
        (["jobs:read"], set()),
    ],
)
def test_scopes(
    scopes: list[str],
    allowed: set[str],
    client: TestClient,
    project: dict[str, Any],
    anonymous_client: TestClient,
    new_key: Callable[..., keys.CreatedKey],
) -> None:
    headers = {"Authorization": f"Bearer {new_key(*scopes).text}"}
    requests: dict[str, tuple[str, str, dict[str, Any] | None]] = {
        "create": ("POST", "", {"name": "x", "dataset": "reviews"}),
        "list": ("GET", "", None),
        "get": ("GET", "/mood", None),
        "annotations": ("GET", "/mood/annotations", None),
        "patch": ("PATCH", "/mood", {"add_labels": ["x"]}),
        "next": ("POST", "/mood/next", {}),
        "put": ("PUT", "/mood/texts/1", {"label": "good"}),
        "undo": ("DELETE", "/mood/texts/1", None),
        "dataset": ("POST", "/mood/dataset", {}),
        "delete": ("DELETE", "/mood", None),
    }
    found = {
        action
        for action, (method, path, body) in requests.items()
        if anonymous_client.request(
            method, f"/v1/labeling{path}", json=body, headers=headers
        ).status_code
        != 403
    }
    assert found == allowed


def test_without_the_scope_one_sees_only_ones_own_labels(
    client: TestClient,
    project: dict[str, Any],
    anonymous_client: TestClient,
    new_key: Callable[..., keys.CreatedKey],
) -> None:
    put(client, 1)
    ann, bob, replaced, other = (
        {"Authorization": f"Bearer {new_key(*scopes, name=name).text}"}
        for name, scopes in (
            ("ann", ["labels:write"]),
            ("bob", ["labels:write", "labels:read"]),
            ("ann", ["labels:write"]),
            ("Ann", ["labels:write"]),
        )
    )
    url = "/v1/labeling/mood"
    for headers, body in (
        (ann, {"label": "good", "annotator": "phone"}),
        (bob, {"label": "bad"}),
    ):
        anonymous_client.put(f"{url}/texts/2", json=body, headers=headers)

    def annotators(headers: dict[str, str]) -> list[list[str]]:
        view = anonymous_client.get(url, headers=headers).json()
        listed = anonymous_client.get(f"{url}/annotations", headers=headers).json()
        return [
            [each["name"] for each in view["annotators"]],
            [each["annotator"] for each in listed["data"]],
        ]

    assert annotators(ann) == annotators(replaced) == [["ann/phone"], ["ann/phone"]]
    assert annotators(other) == [[], []]
    assert annotators(bob) == [["ann/phone", "bob", "local"], ["bob", "ann/phone", "local"]]


def test_without_the_scope_similar_texts_are_those_that_one_labeled(
    client: TestClient,
    pool: Dataset,
    resources: Resources,
    tmp_path: Path,
    anonymous_client: TestClient,
    new_key: Callable[..., keys.CreatedKey],
) -> None:
    create_project(client, random_share=0.0)
    store_vectors(resources, tmp_path / "vectors", vectors_of(60))
    names = ("ann", "ann/phone", "anna", "bob")
    authors = {row: {names[row % 4]} for row in range(1, 41)} | {41: {"ann", "bob"}}
    add_labels(
        resources,
        [LabeledRow(row, label_of(row), annotator=by) for row in authors for by in authors[row]],
    )

    def nearest_authors(*scopes: str) -> list[set[str]]:
        headers = {"Authorization": f"Bearer {new_key(*scopes, name='ann').text}"}
        url = "/v1/labeling/mood"
        assert anonymous_client.get(url, headers=headers).json()["suggestions_from"] == 41
        leased = anonymous_client.post(f"{url}/next", headers=headers, json={"count": 19}).json()
        nearest = [each["nearest"] for each in leased["texts"]]
        assert [len(each) for each in nearest] == [3] * 19
        return [authors[each["row"]] for found in nearest for each in found]

    assert set().union(*nearest_authors("labels:write", "labels:read")) == set(names)
    own = nearest_authors("labels:write")
    assert all(each <= {"ann", "ann/phone"} for each in own)
    assert set().union(*own) == {"ann", "ann/phone"}


def test_no_key_is_named_as_an_annotator_of_another_one(
    new_key: Callable[..., keys.CreatedKey],
) -> None:
    with pytest.raises(KeyNameInvalid, match="without a slash"):
        new_key("labels:write", name="ann/phone")
