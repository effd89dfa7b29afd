"""Tests of datasets made of labels."""

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.labeling.export import MIN_TEST_TEXTS, select_test_rows
from app.labeling.resolved_labels import ResolvedLabel
from app.labeling.schemas import ChosenTextReason
from app.resources import Resources
from tests.labeling_rows import (
    LabeledRow,
    add_labels,
    create_project,
    label_of,
    make_pool,
    put,
    read_jsonl,
    store_vectors,
    text_of,
    vectors_of,
)

URL = "/v1/labeling/mood"
select_test_rows.__test__ = False  # type: ignore[attr-defined]  # it is no test


def download(client: TestClient, ref: str) -> list[dict[str, Any]]:
    return read_jsonl(client.get(f"/v1/datasets/{ref}/content").text)


def test_labels_become_a_dataset(
    client: TestClient, project: dict[str, Any], resources: Resources
) -> None:
    labels = [LabeledRow(row, label_of(row), annotator="ann") for row in range(1, 21)]
    add_labels(resources, [*labels, LabeledRow(1, "bad", annotator="bob"), LabeledRow(30, None)])
    response = client.post(f"{URL}/dataset", json={})
    assert response.status_code == 201
    dataset = response.json()
    assert (dataset["ref"], dataset["rows"], dataset["label_column"]) == ("mood:1", 20, "label")
    assert (dataset["labels"], dataset["split_column"]) == ({"bad": 10, "good": 10}, None)
    rows = download(client, "mood:1")
    assert rows[0] == {"text": text_of(1), "label": "bad", "annotators": "ann, bob"}
    assert rows[1] == {"text": text_of(2), "label": "good", "annotators": "ann"}
    again = client.post(f"{URL}/dataset")  # the body can be omitted
    assert (again.status_code, again.json()["ref"]) == (200, "mood:1")
    put(client, 40)
    assert client.post(f"{URL}/dataset", json={}).json()["ref"] == "mood:2"
    named = client.post(f"{URL}/dataset", json={"name": "final"}).json()
    assert named["ref"] == "final:1"


def test_enough_random_texts_are_the_test_part(
    client: TestClient, resources: Resources, tmp_path: Path
) -> None:
    make_pool(resources, tmp_path, texts=150)
    create_project(client)
    add_labels(resources, [
        *(LabeledRow(row, label_of(row)) for row in range(1, 61)),
        *(LabeledRow(row, label_of(row), ChosenTextReason.SPREAD) for row in range(61, 151)),
    ])  # fmt: skip
    dataset = client.post(f"{URL}/dataset", json={}).json()
    assert dataset["split_column"] == "split"
    assert dataset["profile"]["splits"] == {"train": 90, "test": 60}
    in_test = {row["text"] for row in download(client, "mood:1") if row["split"] == "test"}
    assert in_test == {text_of(row) for row in range(1, 61)}
    job = {"data": {"source": "mood:1"}, "method": {"type": "linear"}}
    planned = client.post("/v1/jobs", params={"dry_run": True}, json=job)
    assert planned.status_code < 300, planned.text


def test_the_test_part_needs_enough_texts_and_known_labels() -> None:
    def resolved(row: int, value: Any, *, is_random: bool) -> ResolvedLabel:
        return ResolvedLabel(row, value, ("ann",), is_random)

    chosen = [resolved(1000 + n, "ab"[n % 2], is_random=False) for n in range(MIN_TEST_TEXTS + 1)]
    drawn = [resolved(row, "ab"[row % 2], is_random=True) for row in range(MIN_TEST_TEXTS)]
    assert select_test_rows([*chosen, *drawn]) == frozenset(range(MIN_TEST_TEXTS))
    assert select_test_rows([*chosen, *drawn[1:]]) == frozenset()
    rare = resolved(500, "rare", is_random=True)
    assert select_test_rows([*chosen, *drawn, rare]) == frozenset(range(MIN_TEST_TEXTS))
    assert select_test_rows(drawn) == frozenset()  # nothing would be left to train on
    numbers = [resolved(row, float(row), is_random=row > 59) for row in range(120)]
    assert len(select_test_rows(numbers)) == 60
    assert select_test_rows(numbers[1:]) == frozenset()  # too little would be left
    sets = [resolved(row, frozenset("a" if row % 2 else ""), is_random=row > 59)
            for row in range(120)]  # fmt: skip
    assert len(select_test_rows(sets)) == 60
    drawn_sets = [resolved(row, frozenset("ab"[: row % 3]), is_random=True) for row in range(180)]
    assert select_test_rows(drawn_sets) == frozenset()  # not those without a label


@pytest.mark.parametrize(
    ("task", "labels", "values", "written"),
    [
        ({"type": "multi_label"}, ["a", "b"], [["a", "b"], []], [["a", "b"], []]),
        ({"type": "regression"}, [], [1.5, -3.0], [1.5, -3.0]),
        ({"type": "single_label", "ordered": True}, ["1", "2"], ["1", "2"], ["1", "2"]),
    ],
)
def test_every_task_becomes_a_dataset(
    client: TestClient,
    resources: Resources,
    tmp_path: Path,
    task: dict[str, Any],
    labels: list[str],
    values: list[Any],
    written: list[Any],
) -> None:
    make_pool(resources, tmp_path)
    create_project(client, task=task, labels=labels)
    add_labels(resources, [LabeledRow(row, values[row % 2]) for row in range(1, 31)])
    dataset = client.post(f"{URL}/dataset", json={}).json()
    assert (dataset["task"], dataset["ordered"]) == (task["type"], task.get("ordered", False))
    assert [row["label"] for row in download(client, "mood:1")[:2]] == [written[1], written[0]]


def test_pairs_stay_pairs(client: TestClient) -> None:
    content = "first,second\n" + "".join(f"a {n},b {n}\n" for n in range(4))
    client.post("/v1/datasets", files={"file": ("pairs.csv", content.encode())},
                data={"purpose": "predict", "name": "pairs",
                      "text_column": "first", "text_pair_column": "second"})  # fmt: skip
    create_project(client, dataset="pairs")
    for row in range(1, 5):
        put(client, row)
    dataset = client.post(f"{URL}/dataset", json={}).json()
    assert (dataset["text_column"], dataset["text_pair_column"]) == ("text", "text_pair")
    assert download(client, "mood:1")[0]["text_pair"] == "b 0"


def test_too_few_labels_are_refused(
    client: TestClient, project: dict[str, Any], resources: Resources, tmp_path: Path
) -> None:
    store_vectors(resources, tmp_path / "vectors", vectors_of(60))  # otherwise in use

    def refused() -> tuple[int, str]:
        response = client.post(f"{URL}/dataset", json={})
        return response.status_code, response.json()["code"]

    assert refused() == (409, "nothing_labeled")
    put(client, 1, skipped=True)
    assert refused() == (409, "nothing_labeled")
    put(client, 2, label="good")
    put(client, 3, label="good")
    assert refused() == (409, "too_few_labels")
    response = client.post(f"{URL}/dataset", json={"name": "Not a slug"})
    assert response.json()["code"] == "validation_failed"
    client.delete("/v1/datasets/reviews:1")
    put(client, 3, label="bad")
    assert refused() == (409, "labeling_dataset_deleted")
