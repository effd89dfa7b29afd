"""Tests of the texts that annotators get, and of their labels."""

import json
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from threading import Event
from typing import Any
from weakref import ref

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.database.base import now
from app.database.engines import Database
from app.datasets.tables import Dataset
from app.http.dependencies import get_app_state
from app.labeling import annotations, pools
from app.labeling.schemas import ChosenTextReason
from app.labeling.service import open_pool
from app.labeling.tables import LabelingAnnotation, LabelingLease
from app.main import create_app
from app.resources import Resources
from app.settings import Settings
from lora_core.active_learning.label_suggestions import SuggestionModel
from lora_core.active_learning.selection import random_evaluation_rows
from tests.labeling_rows import (
    LabeledRow,
    add_labels,
    create_project,
    forget,
    label_next,
    label_of,
    make_pool,
    next_rows,
    put,
    read_jsonl,
    store_vectors,
    text_of,
    vectors_of,
)
from tests.waiting import wait_until

URL = "/v1/labeling/mood"


def problem(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def expire_leases(database: Database) -> None:
    with database.write() as session:
        for lease in session.query(LabelingLease):
            lease.expires_at = 1.0


# -- Which texts one gets -------------------------------------------------------------------------


def test_texts_come_with_all_that_is_known(client: TestClient, project: dict[str, Any]) -> None:
    response = client.post(f"{URL}/next", json={"count": 2}).json()
    assert response["remaining"] == 60
    for text in response["texts"]:
        assert text["text"] == text_of(text["row"])
        assert text["reason"] == "random"  # there are no vectors yet
        assert (text["text_pair"], text["suggestion"], text["nearest"]) == (None, None, [])
        assert text["lease_expires_at"].endswith("Z")


def test_row_numbers_are_those_of_the_file(
    client: TestClient, resources: Resources, tmp_path: Path
) -> None:
    content = "text\nfirst\n\nthird\n"
    client.post("/v1/datasets", files={"file": ("gaps.csv", content.encode())},
                data={"purpose": "predict", "name": "gaps"})  # fmt: skip
    create_project(client, dataset="gaps")
    texts = client.post(f"{URL}/next", json={"count": 5}).json()["texts"]
    assert {each["row"]: each["text"] for each in texts} == {1: "first", 3: "third"}
    assert problem(client.put(f"{URL}/texts/2", json={"label": "bad"})) == (
        404, "labeling_text_not_found",
    )  # fmt: skip


def test_whole_texts_and_pairs_are_returned(client: TestClient) -> None:
    long = "ü" * 20_000 + '\\"\n\u2028end'
    content = f'{{"text": {json.dumps(long)}, "other": "second"}}\n'
    fields = {"purpose": "predict", "name": "pairs", "text_pair_column": "other"}
    client.post("/v1/datasets", files={"file": ("pairs.jsonl", content.encode())}, data=fields)
    assert create_project(client, dataset="pairs")["paired"]
    [text] = client.post(f"{URL}/next").json()["texts"]
    assert (text["text"], text["text_pair"]) == (long, "second")


def test_the_same_texts_come_again_until_they_are_labeled(
    client: TestClient, project: dict[str, Any]
) -> None:
    rows = next_rows(client, 3)
    assert next_rows(client, 3) == rows
    put(client, rows[1])
    again = next_rows(client, 3)
    assert again[:2] == [rows[0], rows[2]]
    assert again[2] not in rows


def test_two_annotators_get_different_texts(client: TestClient, project: dict[str, Any]) -> None:
    ann, bob = next_rows(client, 20, annotator="ann"), next_rows(client, 20, annotator="bob")
    assert not set(ann) & set(bob)
    rest = next_rows(client, 20, annotator="cid")
    assert set(ann) | set(bob) | set(rest) == set(range(1, 61))
    assert next_rows(client, 20, annotator="dan") == []


def test_texts_of_an_annotator_who_left_come_back(
    client: TestClient, project: dict[str, Any], database: Database
) -> None:
    left = next_rows(client, 5, annotator="ann")
    assert not set(next_rows(client, 5, annotator="bob")) & set(left)
    expire_leases(database)
    assert next_rows(client, 5, annotator="cid") == left  # in the order of choice
    put(client, left[0], annotator="ann")  # late, and not lost
    assert left[0] not in next_rows(client, 5, annotator="cid")


def test_a_text_for_two_annotators_is_given_to_two(client: TestClient, pool: Dataset) -> None:
    create_project(client, overlap=1.0)
    rows = next_rows(client, 4, annotator="ann")
    assert next_rows(client, 4, annotator="bob") == rows  # both at once
    third = next_rows(client, 4, annotator="cid")
    assert not set(third) & set(rows)
    for row in rows:
        put(client, row, annotator="ann")
        put(client, row, annotator="bob", label="good")
    view = client.get(URL).json()
    expected = _kappa([(label_of(row), "good") for row in rows])
    assert view["agreement"]["texts"] == 4
    assert view["agreement"]["kappa"] == pytest.approx(expected)


def _kappa(pairs: list[tuple[str, str]]) -> float:
    first, second = (Counter(side) for side in zip(*pairs, strict=True))
    n = len(pairs)
    chance = sum(first[each] * second[each] for each in first) / n**2
    return (sum(a == b for a, b in pairs) / n - chance) / (1 - chance)


def test_a_share_of_the_texts_is_for_two_annotators(client: TestClient, pool: Dataset) -> None:
    create_project(client, overlap=0.5)
    rows = [row for _ in range(3) for row in _label_all(client, "ann", 20)]
    shared = next_rows(client, 20, annotator="bob") + next_rows(client, 20, annotator="bob")
    assert len(rows) == 60
    assert 10 <= len(set(shared)) <= 20  # the second call gets the same texts again


def _label_all(client: TestClient, annotator: str, count: int) -> list[int]:
    rows = next_rows(client, count, annotator=annotator)
    for row in rows:
        put(client, row, annotator=annotator)
    return rows


def test_choices_are_reproducible(client: TestClient, pool: Dataset) -> None:
    create_project(client, "one", seed=7)
    create_project(client, "same", seed=7)
    create_project(client, "other", seed=8)
    one, same, other = (next_rows(client, 20, name=each) for each in ("one", "same", "other"))
    assert one == same
    assert one != other


def test_an_exhausted_pool_gives_nothing(client: TestClient, project: dict[str, Any]) -> None:
    for _ in range(3):
        for row in next_rows(client, 20):
            put(client, row)
    response = client.post(f"{URL}/next").json()
    assert response == {"texts": [], "remaining": 0}


@pytest.mark.parametrize("body", [{"count": 0}, {"count": 21}, {"annotator": ""}, {"x": 1}])
def test_a_wrong_request_for_texts_is_refused(
    client: TestClient, project: dict[str, Any], body: dict[str, Any]
) -> None:
    assert problem(client.post(f"{URL}/next", json=body)) == (422, "validation_failed")


def test_annotators_are_limited(
    client: TestClient,
    project: dict[str, Any],
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(annotations, "MAX_ANNOTATORS", 2)
    next_rows(client, annotator="ann")
    put(client, 5, annotator="bob")
    put(client, 6, annotator="bob")
    for method, path, body in (
        ("POST", "next", {"annotator": "cid"}),
        ("PUT", "texts/7", {"annotator": "cid", "label": "bad"}),
    ):
        response = client.request(method, f"{URL}/{path}", json=body)
        assert problem(response) == (409, "too_many_annotators")
    expire_leases(database)
    put(client, 7, annotator="cid")  # in the place of ann, who left without a label


@pytest.mark.parametrize(
    ("method", "path", "body"), [("PUT", "texts/5", {"label": "bad"}), ("POST", "next", {})]
)
def test_a_project_that_is_created_anew_meanwhile_is_another_one(
    client: TestClient,
    project: dict[str, Any],
    resources: Resources,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    body: dict[str, Any],
) -> None:
    """Otherwise the hash of a text of the old dataset would be stored for one of the new."""
    make_pool(resources, tmp_path, texts=3, name="others")

    def open_slowly(*opened: Any) -> Any:
        pool = open_pool(*opened)
        assert client.delete(URL).status_code == 204
        create_project(client, dataset="others")
        return pool

    monkeypatch.setattr(annotations, "open_pool", open_slowly)
    response = client.request(method, f"{URL}/{path}", json=body)
    assert problem(response) == (404, "labeling_project_not_found")
    assert client.get(f"{URL}/annotations").json()["data"] == []


# -- Labels ---------------------------------------------------------------------------------------


def test_a_label_is_stored_and_the_newest_wins(
    client: TestClient, project: dict[str, Any], database: Database
) -> None:
    [row] = next_rows(client)
    first = put(client, row, label="good", suggested="bad")
    assert first["row"] == row
    assert (first["label"], first["suggested"], first["annotator"]) == ("good", "bad", "local")
    assert (first["reason"], first["skipped"]) == ("random", False)
    assert put(client, row, label="good", suggested="bad") == first  # sent again
    assert put(client, row, label="bad")["id"] == first["id"]
    with database.read() as session:
        [stored] = session.query(LabelingAnnotation)
    assert stored.value == "bad"
    view = client.get(URL).json()
    assert view["labels"] == [{"name": "bad", "texts": 1}, {"name": "good", "texts": 0}]
    assert view["annotators"] == [{"name": "local", "labeled": 1, "skipped": 0}]


def test_a_skipped_text_is_not_labeled(client: TestClient, project: dict[str, Any]) -> None:
    [row] = next_rows(client)
    skipped = put(client, row, skipped=True)
    assert skipped["skipped"]
    assert "label" not in skipped
    assert next_rows(client) != [row]
    assert next_rows(client, annotator="bob") != [row]
    view = client.get(URL).json()
    assert (view["labeled"], view["skipped"]) == (0, 1)


def test_undo_gives_the_text_back_to_the_same_annotator(
    client: TestClient, project: dict[str, Any]
) -> None:
    rows = next_rows(client, 2)
    put(client, rows[0])
    assert client.delete(f"{URL}/texts/{rows[0]}").status_code == 204
    assert client.get(URL).json()["labeled"] == 0
    assert rows[0] not in next_rows(client, 5, annotator="bob")
    assert next_rows(client, 2) == rows
    assert problem(client.delete(f"{URL}/texts/{rows[0]}")) == (404, "annotation_not_found")


def test_one_undoes_only_ones_own(client: TestClient, project: dict[str, Any]) -> None:
    put(client, 3, annotator="ann")
    assert problem(client.delete(f"{URL}/texts/3", params={"annotator": "bob"})) == (
        404, "annotation_not_found",
    )  # fmt: skip
    assert client.delete(f"{URL}/texts/3", params={"annotator": "ann"}).status_code == 204


def test_only_the_server_says_that_a_text_is_random(
    client: TestClient, project: dict[str, Any]
) -> None:
    assert put(client, 9, reason="random")["reason"] == "requested"
    assert put(client, 10, reason="uncertain")["reason"] == "uncertain"
    [row] = next_rows(client)
    assert put(client, row, reason="uncertain")["reason"] == "random"
    assert put(client, 9, reason="random", label="good")["reason"] == "requested"
    assert client.get(URL).json()["random_labeled"] == 1


def test_values_of_the_other_tasks(client: TestClient, pool: Dataset) -> None:
    create_project(client, "topics", task={"type": "multi_label"}, labels=["a", "b", "c"])
    create_project(client, "stars", task={"type": "regression"}, labels=[])
    assert put(client, 1, name="topics", labels=["b", "a", "b"])["labels"] == ["a", "b"]
    assert put(client, 2, name="topics", labels=[])["labels"] == []
    assert put(client, 1, name="stars", value=-2.5)["value"] == -2.5
    assert put(client, 2, name="stars", value=0)["value"] == 0
    view = client.get("/v1/labeling/topics").json()
    assert [each["texts"] for each in view["labels"]] == [1, 1, 0]
    assert (view["labeled"], view["skipped"]) == (2, 0)  # no label is a label, too


@pytest.mark.parametrize(
    ("name", "body", "status", "code"),
    [
        ("mood", {"label": "great"}, 422, "unknown_label"),
        ("topics", {"labels": ["a", "z"]}, 422, "unknown_label"),
        ("topics", {"label": "a"}, 422, "wrong_annotation_field"),
        ("mood", {"labels": ["good"]}, 422, "wrong_annotation_field"),
        ("mood", {"value": 3}, 422, "wrong_annotation_field"),
        ("stars", {"label": "3"}, 422, "wrong_annotation_field"),
        ("stars", {"value": "many"}, 422, "validation_failed"),
        ("stars", {"value": 1e13}, 422, "validation_failed"),
        ("mood", {}, 422, "validation_failed"),
        ("mood", {"label": "good", "skipped": True}, 422, "validation_failed"),
        ("mood", {"skipped": False}, 422, "validation_failed"),
        ("mood", {"label": "good", "annotator": "x" * 65}, 422, "validation_failed"),
    ],
)
def test_a_label_that_does_not_fit_is_refused(
    client: TestClient, pool: Dataset, name: str, body: dict[str, Any], status: int, code: str
) -> None:
    fields: dict[str, dict[str, Any]] = {
        "mood": {},
        "topics": {"task": {"type": "multi_label"}, "labels": ["a", "b", "c"]},
        "stars": {"task": {"type": "regression"}, "labels": []},
    }
    create_project(client, name, **fields[name])
    response = client.put(f"/v1/labeling/{name}/texts/1", json=body)
    assert problem(response) == (status, code)
    if code == "unknown_label":
        assert "bad" in response.json()["detail"] or "'a', 'b', 'c'" in response.json()["detail"]
    assert client.get(f"/v1/labeling/{name}").json()["labeled"] == 0


@pytest.mark.parametrize("suggested", ["a\\u0000b", "\\ud800", "x" * 201])
@pytest.mark.parametrize("several", [False, True])
def test_a_suggestion_that_cannot_be_stored_or_shown_is_refused(
    suggested: str, several: bool, client: TestClient, project: dict[str, Any]
) -> None:
    sent = f'["{suggested}"]' if several else f'"{suggested}"'
    response = client.put(
        f"{URL}/texts/3",
        content=f'{{"label": "good", "suggested": {sent}}}',
        headers={"Content-Type": "application/json"},
    )
    assert problem(response) == (422, "validation_failed")
    assert client.get(f"{URL}/annotations").json()["data"] == []


def test_a_project_name_that_no_database_can_look_up_is_refused(client: TestClient) -> None:
    assert problem(client.get("/v1/labeling/a%00b")) == (422, "validation_failed")


def test_rows_outside_of_the_pool_are_refused(client: TestClient, project: dict[str, Any]) -> None:
    for row, expected in (
        (61, (404, "labeling_text_not_found")),
        (0, (422, "validation_failed")),
        (2**31, (422, "validation_failed")),
        ("x", (422, "validation_failed")),
    ):
        assert problem(client.put(f"{URL}/texts/{row}", json={"label": "good"})) == expected


def test_annotations_are_listed_newest_first(client: TestClient, project: dict[str, Any]) -> None:
    for row in (4, 2, 7):
        put(client, row)
    first = client.get(f"{URL}/annotations?limit=2").json()
    assert [(each["row"], each["text"]) for each in first["data"]] == [
        (7, text_of(7)), (2, text_of(2)),
    ]  # fmt: skip
    last = client.get(f"{URL}/annotations", params={"after": first["next"]}).json()
    assert [each["row"] for each in last["data"]] == [4]


# -- Suggestions ----------------------------------------------------------------------------------


def test_suggestions_come_with_five_texts_of_two_labels(
    client: TestClient, pool: Dataset, resources: Resources, tmp_path: Path
) -> None:
    create_project(client, random_share=0.0)
    store_vectors(resources, tmp_path / "vectors", vectors_of(60))
    for row in range(1, 10):
        put(client, row)
    assert client.get(URL).json()["suggestions_from"] is None  # four are good
    put(client, 10)

    def suggestion() -> Any:
        return client.post(f"{URL}/next").json()["texts"][0]["suggestion"]

    wait_until(lambda: suggestion() is not None, what="a suggestion")
    [text] = client.post(f"{URL}/next").json()["texts"]
    assert text["suggestion"]["label"] == label_of(text["row"])
    assert 0.5 < text["suggestion"]["score"] <= 1
    assert len(text["nearest"]) == 3
    for similar in text["nearest"]:
        assert similar["label"] == label_of(similar["row"])
        assert similar["text"] == text_of(similar["row"])
    assert client.get(URL).json()["suggestions_from"] == 10


def test_texts_whose_labels_measure_something_have_no_suggestion(
    client: TestClient, pool: Dataset, resources: Resources, tmp_path: Path
) -> None:
    """Random texts measure accuracy, and those that somebody else has labeled agreement."""
    create_project(client, random_share=0.5, overlap=1.0)
    store_vectors(resources, tmp_path / "vectors", vectors_of(60))
    add_labels(resources, [LabeledRow(row, label_of(row)) for row in range(1, 21)])
    assert client.get(URL).json()["suggestions_from"] == 20

    def suggested(annotator: str) -> dict[int, tuple[bool, bool]]:
        leased = client.post(f"{URL}/next", json={"count": 6, "annotator": annotator}).json()
        reasons.update({each["row"]: each["reason"] for each in leased["texts"]})
        return {
            each["row"]: (each["suggestion"] is not None, len(each["nearest"]) == 3)
            for each in leased["texts"]
        }

    reasons: dict[int, str] = {}
    for_ann = suggested("ann")
    others = [row for row, reason in reasons.items() if reason != "random"]
    assert len(others) == 3
    assert for_ann == {row: (row in others, row in others) for row in reasons}
    put(client, others[0], annotator="ann", skipped=True)  # says nothing of the label
    for row in others[1:]:
        put(client, row, annotator="ann")
    for_bob = suggested("bob")
    assert for_bob == {row: (row == others[0], row == others[0]) for row in reasons}


def test_nobody_waits_long_for_a_fit(
    client: TestClient,
    project: dict[str, Any],
    resources: Resources,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store_vectors(resources, tmp_path / "vectors", vectors_of(60))
    labels = [LabeledRow(row, label_of(row)) for row in range(1, 31)]
    add_labels(resources, labels[:20])
    assert client.get(URL).json()["suggestions_from"] == 20
    fit, release = pools.fit_suggestions, Event()

    def fit_slowly(*arguments: Any) -> Any:
        release.wait(20)
        return fit(*arguments)

    monkeypatch.setattr(pools, "fit_suggestions", fit_slowly)
    monkeypatch.setattr(pools, "WAIT_FOR_FIT_SECONDS", 0.1)
    monkeypatch.setattr("app.web.page._minute", lambda: 1)
    add_labels(resources, labels[20:])
    view = client.get(URL).json()
    assert (view["labeled"], view["suggestions_from"]) == (30, 20)
    known = {"If-None-Match": client.get("/labeling/mood").headers["ETag"]}
    assert client.get("/labeling/mood", headers=known).status_code == 304
    release.set()
    wait_until(lambda: client.get("/labeling/mood", headers=known).status_code == 200)
    assert client.get(URL).json()["suggestions_from"] == 30


def test_texts_are_found_without_reading_the_file_into_memory(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(f'[{2 * n},"{n:05}{"x" * 10_000}",null]\n' for n in range(1, 1001)))
    tracemalloc.start()
    texts = pools.PoolTexts(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < file.stat().st_size / 10
    assert (len(texts), texts.find_index_of_row(1999), texts.find_index_of_row(2000)) == (
        1000,
        None,
        999,
    )
    assert texts[999].text.startswith("01000x")


@pytest.mark.parametrize("path", [URL, "/v1/datasets/reviews:1"])
def test_texts_of_deleted_datasets_are_not_kept(
    path: str,
    pool: Dataset,
    settings: Settings,
    resources: Resources,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pools, "DROP_SECONDS", 0.05)
    with TestClient(app := create_app(settings)) as client:
        create_project(client)
        store_vectors(resources, tmp_path / "vectors", vectors_of(60))  # otherwise in use
        next_rows(client)
        [kept] = get_app_state(app).labeling._pools.values()
        texts = ref(kept.texts)
        del kept
        time.sleep(0.2)
        assert texts() is not None
        assert client.delete(path).status_code == 204
        wait_until(lambda: texts() is None, what="dropping the texts")


def test_every_fifth_text_is_random(
    client: TestClient, project: dict[str, Any], resources: Resources, tmp_path: Path
) -> None:
    store_vectors(resources, tmp_path / "vectors", vectors_of(60))
    label_next(client, 20)
    client.get(URL)  # waits for the fit
    label_next(client, 20)
    listed = client.get(f"{URL}/annotations?limit=100").json()["data"]
    reasons = Counter(each["reason"] for each in listed)
    assert reasons["random"] == 8
    assert set(reasons) == {"random", "spread", "uncertain", "diverse"}
    random_rows = [each["row"] for each in reversed(listed) if each["reason"] == "random"]
    assert random_rows == [row + 1 for row in random_evaluation_rows(60, 0.2, 0)[:8].tolist()]
    assert client.get(URL).json()["random_labeled"] == 8


def test_only_random_texts_are_judged(
    client: TestClient, resources: Resources, tmp_path: Path
) -> None:
    """Ten of forty random texts are labeled wrong, and all others right."""
    make_pool(resources, tmp_path, texts=200)
    create_project(client)
    store_vectors(resources, tmp_path / "vectors", vectors_of(200))
    other = {"bad": "good", "good": "bad"}
    add_labels(resources, [
        *(LabeledRow(row, other[label_of(row)]) for row in range(1, 11)),
        *(LabeledRow(row, label_of(row)) for row in range(11, 41)),
        *(LabeledRow(row, label_of(row), ChosenTextReason.UNCERTAIN) for row in range(41, 141)),
    ])  # fmt: skip
    view = client.get(URL).json()
    assert (view["random_labeled"], view["labeled"]) == (40, 140)
    accuracy = view["accuracy"]
    assert (accuracy["metric"], accuracy["texts"], accuracy["value"]) == ("accuracy", 40, 0.75)
    assert accuracy["low"] < 0.75 < accuracy["high"]


def test_numbers_and_several_labels_are_suggested(
    client: TestClient, resources: Resources, tmp_path: Path
) -> None:
    make_pool(resources, tmp_path, texts=100)
    topics = {"task": {"type": "multi_label"}, "labels": ["even", "odd", "any"]}
    create_project(client, "topics", random_share=0.0, **topics)
    create_project(client, "stars", random_share=0.0, task={"type": "regression"}, labels=[])
    store_vectors(resources, tmp_path / "vectors", vectors_of(100))
    parity = [LabeledRow(row, ["any", "odd" if row % 2 else "even"]) for row in range(1, 31)]
    numbers = [LabeledRow(row, 5.0 if row % 2 else -5.0) for row in range(1, 31)]
    add_labels(resources, parity, "topics")
    add_labels(resources, numbers, "stars")
    assert client.get("/v1/labeling/topics").json()["accuracy"]["metric"] == "macro_f1"
    assert client.get("/v1/labeling/stars").json()["accuracy"]["metric"] == "rmse"
    [text] = client.post("/v1/labeling/topics/next").json()["texts"]
    assert text["suggestion"]["labels"] == ["odd" if text["row"] % 2 else "even", "any"]
    assert 0.5 <= text["suggestion"]["score"] <= 1
    [text] = client.post("/v1/labeling/stars/next").json()["texts"]
    assert text["suggestion"]["value"] == pytest.approx(5.0 if text["row"] % 2 else -5.0, abs=2.5)
    assert text["suggestion"]["score"] is None
    assert set(text["nearest"][0]) == {"row", "text", "value"}


@pytest.mark.parametrize(
    ("probabilities", "labels", "score"),
    [([0.31, 0.9, 0.2], ["a", "b"], 0.31), ([0.9, 0.6, 0.25], ["a", "b"], 0.6),
     ([0.95, 0.25, 0.2], ["a"], 0.75)],
)  # fmt: skip
def test_the_score_of_several_labels_is_that_of_the_least_certain_decision(
    client: TestClient,
    pool: Dataset,
    resources: Resources,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    probabilities: list[float],
    labels: list[str],
    score: float,
) -> None:
    """A label is suggested from a probability of 0.3 on."""
    task = {"type": "multi_label"}
    create_project(client, random_share=0.0, task=task, labels=["a", "b", "c"])
    store_vectors(resources, tmp_path / "vectors", vectors_of(60))
    values = [["a", "c"], ["b"]]
    add_labels(resources, [LabeledRow(row, values[row % 2]) for row in range(1, 21)])
    assert client.get(URL).json()["suggestions_from"] == 20
    monkeypatch.setattr(SuggestionModel, "scores", lambda *_: np.array([probabilities]))
    [text] = client.post(f"{URL}/next").json()["texts"]
    assert text["suggestion"] == {"labels": labels, "score": pytest.approx(score)}


def test_labels_of_two_annotators_become_one(
    client: TestClient, project: dict[str, Any], resources: Resources
) -> None:
    add_labels(resources, [
        *(LabeledRow(1, value, annotator=name) for name, value in
          (("ann", "good"), ("bob", "bad"), ("cid", "bad"))),
        *(LabeledRow(2, value, annotator=name) for name, value in
          (("bob", "bad"), ("ann", "good"))),  # the newest
        LabeledRow(3, None, annotator="ann"),
        LabeledRow(3, "good", annotator="bob"),
    ])  # fmt: skip
    view = client.get(URL).json()
    assert view["labels"] == [{"name": "bad", "texts": 1}, {"name": "good", "texts": 2}]
    assert (view["labeled"], view["skipped"]) == (3, 0)
    assert view["agreement"]["texts"] == 2
    assert view["annotators"] == [
        {"name": "ann", "labeled": 2, "skipped": 1},
        {"name": "bob", "labeled": 3, "skipped": 0},
        {"name": "cid", "labeled": 1, "skipped": 0},
    ]


def test_another_process_continues_where_the_first_one_is(
    client: TestClient, pool: Dataset, settings: Settings, resources: Resources, tmp_path: Path
) -> None:
    create_project(client, random_share=0.0)
    store_vectors(resources, tmp_path / "vectors", vectors_of(60))
    with TestClient(create_app(settings)) as second:
        rows = [next_rows(each, annotator=name) for each, name in
                ((client, "a"), (second, "b"), (client, "c"), (second, "d"))]  # fmt: skip
        assert len({row for [row] in rows}) == 4
        for row in range(1, 13):
            put(client, row)
        view = second.get(URL).json()
        assert (view["labeled"], view["suggestions_from"]) == (12, 12)
        [text] = second.post(f"{URL}/next", json={"annotator": "b"}).json()["texts"]
        assert text["suggestion"] is not None


# -- Forgotten texts ------------------------------------------------------------------------------


def test_a_forgotten_text_is_never_shown_again(
    client: TestClient,
    project: dict[str, Any],
    database: Database,
    resources: Resources,
    tmp_path: Path,
) -> None:
    store_vectors(resources, tmp_path / "vectors", vectors_of(60))
    add_labels(resources, [LabeledRow(row, label_of(row)) for row in range(1, 21)])
    client.get(URL)  # fits, so that labeled texts are shown as similar ones
    labeled = [each["row"] for each in client.get(f"{URL}/annotations").json()["data"]]
    unlabeled = next(row for row in range(1, 61) if row not in labeled)
    deleted = [forget(resources, text_of(row)) for row in (*labeled[:5], unlabeled)]
    assert deleted == [1, 1, 1, 1, 1, 0]
    gone = {*labeled[:5], unlabeled}
    seen: set[int] = set()
    while texts := client.post(f"{URL}/next", json={"count": 20}).json()["texts"]:
        for text in texts:
            seen |= {text["row"], *(each["row"] for each in text["nearest"])}
            put(client, text["row"])
    assert not seen & gone
    assert client.get(URL).json()["labeled"] == 54
    for row in gone:
        response = client.put(f"{URL}/texts/{row}", json={"label": "good"})
        assert problem(response) == (404, "labeling_text_not_found")
    create_project(client, "later")
    later = [row for _ in range(3) for row in _label_later(client)]
    assert not set(later) & gone
    assert len(later) == 54


def _label_later(client: TestClient) -> list[int]:
    rows = next_rows(client, 20, name="later")
    for row in rows:
        put(client, row, name="later")
    return rows


def test_leases_use_the_clock_of_the_database(
    client: TestClient, project: dict[str, Any], database: Database
) -> None:
    next_rows(client)
    with database.read() as session:
        [lease] = session.query(LabelingLease)
        seconds = lease.expires_at - session.scalars(now().select()).one()
    assert 590 < seconds <= annotations.LEASE_SECONDS


def test_labels_of_random_texts_do_not_steer_the_choice_of_others(
    client: TestClient, resources: Resources, tmp_path: Path
) -> None:
    """Otherwise these texts would be harder than others, and the accuracy so far too low."""
    make_pool(resources, tmp_path, texts=200)
    create_project(client)
    store_vectors(resources, tmp_path / "vectors", vectors_of(200))
    create_project(client, name="other")
    reserve = [row + 1 for row in random_evaluation_rows(200, 0.2, 0).tolist()]
    others = [row for row in range(1, 201) if row not in reserve][:32]
    for name, random in (("mood", reserve[:8]), ("other", reserve[8:16])):
        labels = [LabeledRow(row, label_of(row), ChosenTextReason.SPREAD) for row in others]
        labels += [LabeledRow(row, ("bad", "good")[row % 3 == 0]) for row in random]
        add_labels(resources, labels, name=name)
        assert client.get(f"/v1/labeling/{name}").json()["suggestions_from"] == 40  # it is fitted
    chosen = [
        [
            (each["row"], each["reason"])
            for each in client.post(f"/v1/labeling/{name}/next", json={"count": 20}).json()["texts"]
            if each["reason"] != "random"
        ]
        for name in ("mood", "other")
    ]
    assert {reason for _, reason in chosen[0]} == {"uncertain", "diverse"}
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
def test_texts_of_each_label_are_counted_once(
    client: TestClient, pool: Dataset, resources: Resources, task: str
) -> None:
    """Some texts have several annotators; each counts with the label that a dataset gives it."""
    names: list[Any] = [] if task == "regression" else ["a", "b", "c"]
    create_project(client, task={"type": task}, labels=names)
    rng = np.random.default_rng(0)
    values_of: dict[str, list[Any]] = {
        "single_label": ["a", "b"],
        "multi_label": [["a"], ["a", "b"], []],
        "regression": [1.0, 2.5],
    }
    values = values_of[task]
    labels = [
        LabeledRow(
            row,
            None if rng.random() < 0.2 else values[rng.integers(len(values))],
            ChosenTextReason.RANDOM if row % 3 == 0 else ChosenTextReason.UNCERTAIN,
            annotator,
        )
        for row in range(1, 61)
        for annotator in ("ann", "bob", "cid")[: 1 + row % 3]
    ]
    add_labels(resources, labels)
    view = client.get(URL).json()
    ref = client.post(f"{URL}/dataset").json()["ref"]
    exported = read_jsonl(client.get(f"/v1/datasets/{ref}/content").text)
    expected: Counter[str] = Counter()
    for each in exported:
        if task != "regression":
            expected.update([each["label"]] if task == "single_label" else each["label"])
    assert {each["name"]: each["texts"] for each in view["labels"]} == {
        name: expected[name] for name in names
    }
    labeled = {each.row for each in labels if each.value is not None}
    assert view["labeled"] == len(labeled) == len(exported)
    assert view["random_labeled"] == sum(row % 3 == 0 for row in labeled)
