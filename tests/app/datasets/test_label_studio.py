"""Exports of Label Studio as datasets: over HTTP, on pages, and in the plan of a job."""

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.app.datasets.conftest import Upload

PAGE = {"Accept": "text/html"}
LABELS = ("billing", "shipping")


def task(number: int, *choices: str, control: str = "queue") -> dict[str, Any]:
    """A task whose text field and control have names of their own."""
    value = {"choices": list(choices)}
    result = {"from_name": control, "to_name": "ticket", "type": "choices", "value": value}
    return {
        "id": 100 + number,
        "data": {"ticket": f"sentence{number} word{number} end{number}"},
        "annotations": [{"result": [result] if choices else []}],
    }


def export(*tasks: dict[str, Any]) -> str:
    return json.dumps(tasks)


SINGLE = export(*(task(i, LABELS[i % 2]) for i in range(24)), task(24))
SEVERAL = export(*(task(i, *LABELS[: i % 3]) for i in range(24)))


def test_an_export_is_uploaded_without_naming_columns(client: TestClient, upload: Upload) -> None:
    sent = upload(SINGLE, filename="project.json")
    assert sent.status_code == 201, sent.text
    dataset = sent.json()
    assert (dataset["name"], dataset["labels"]) == ("project", {"billing": 12, "shipping": 12})
    assert (dataset["text_column"], dataset["label_column"]) == ("text", "label")
    findings = {each["code"]: each["count"] for each in dataset["diagnosis"]["findings"]}
    assert findings["unannotated_tasks"] == 1
    assert "Label Studio" in client.get("/datasets/project", headers=PAGE).text
    rows = client.get("/v1/datasets/project/rows", params={"after": 22}).json()
    assert [(row["row"], row["label"]) for row in rows["data"]] == [
        (23, "billing"),
        (24, "shipping"),
    ]
    planned = client.post(
        "/v1/jobs?dry_run=true", json={"method": {"type": "linear"}, "data": {"source": "project"}}
    )
    assert planned.status_code == 200, planned.text


def test_sets_of_labels_and_texts_without_labels(upload: Upload) -> None:
    sent = upload(SEVERAL, filename="topics.json", task="multi_label")
    assert sent.status_code == 201, sent.text
    assert sent.json()["labels"] == {"billing": 16, "shipping": 8}
    assert sent.json()["diagnosis"]["label_sets"]["unlabeled"] == 8
    sent = upload(SINGLE, filename="texts.json", purpose="predict", text_column="ticket")
    assert (sent.json()["rows"], sent.json()["text_column"]) == (25, "ticket")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (SEVERAL, "several_choices"),
        (export({"data": {"text": "x"}, "annotations": []}), "no_annotations"),
        (
            export({"data": {"text": "x"}, "annotations": [
                {"result": [{"from_name": "span", "type": "labels", "value": {"labels": ["A"]}}]}
            ]}),
            "no_choices",
        ),
        ('{"data": {"text": "x"}}', "malformed_row"),
    ],
)  # fmt: skip
def test_exports_that_cannot_be_used(upload: Upload, content: str, code: str) -> None:
    sent = upload(content, filename="project.json")
    assert (sent.status_code, sent.json()["code"]) == (422, code)


def test_several_controls_are_listed_to_choose_one(client: TestClient, upload: Upload) -> None:
    tasks = [task(i, LABELS[i % 2]) for i in range(24)]
    for number, each in enumerate(tasks):
        other = task(number, LABELS[number % 3 % 2], control="mood")["annotations"][0]["result"]
        each["annotations"][0]["result"] += other
    sent = upload(export(*tasks), filename="project.json")
    assert (sent.status_code, sent.json()["code"]) == (422, "missing_column")
    file = {"file": ("project.json", export(*tasks))}
    shown = client.post("/v1/datasets/preview", files=file).json()
    assert shown["columns"] == ["id", "text", "queue", "mood"]
    assert (shown["text_column"], shown["label_column"]) == ("text", "queue")
    assert upload(export(*tasks), filename="project.json", label_column="mood").status_code == 201


def test_the_page_says_how_to_export(client: TestClient) -> None:
    page = client.get("/datasets", headers=PAGE).text
    assert "From Label Studio" in page
    assert ".json" in page
