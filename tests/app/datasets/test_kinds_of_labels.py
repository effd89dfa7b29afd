"""Datasets with sets of labels, numbers or ranks: uploads, rows, pages, and their jobs."""

import json
import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.app.datasets.conftest import Upload

SETS = "text,label\n" + "".join(
    f"sentence{i} word{i} end{i},{label}\n" for i, label in enumerate(["a;b", "b", "", "c"] * 12)
)
INDICATORS = "text,label,toxic,insult\n" + "".join(
    f"sentence{i} word{i} end{i},x,{i % 2},{int(i % 3 == 0)}\n" for i in range(24)
)
NUMBERS = "text,label\n" + "".join(f"sentence{i} word{i} end{i},{i / 7}\n" for i in range(48))
MULTI_LABEL = {"task": "multi_label", "label_separator": ";"}
LONG_TARGETS = json.dumps(
    {
        "rating": {"type": "regression"},
        "flags": {"type": "multi_label", "label_columns": [f"{'の' * 90}{i}" for i in range(250)]},
    },
    ensure_ascii=False,
)
PAGE = {"Accept": "text/html"}


def created(response: Any) -> Any:
    assert response.status_code == 201, response.text
    return response.json()


def plan(client: TestClient, source: str, **body: Any) -> Any:
    data = {"source": source, **body.pop("data", {})}
    body = {"method": {"type": "linear"}, "data": data, **body}
    return client.post("/v1/jobs?dry_run=true", json=body)


def test_sets_of_labels_are_uploaded(client: TestClient, upload: Upload) -> None:
    dataset = created(upload(SETS, **MULTI_LABEL))
    assert dataset["labels"] == {"a": 12, "b": 24, "c": 12}
    assert (dataset["task"], dataset["label_separator"]) == ("multi_label", ";")
    assert dataset["diagnosis"]["label_sets"]["unlabeled"] == 12
    rows = client.get(f"/v1/datasets/{dataset['id']}/rows").json()["data"]
    assert [row["label"] for row in rows[:3]] == ['["a", "b"]', '["b"]', "[]"]
    shown = client.get(f"/datasets/{dataset['id']}/rows", headers=PAGE).text
    assert re.findall("<bdi>(.*?)</bdi>", shown)[:3] == ["a, b", "b", "no label"]
    again = client.post(f"/v1/datasets/{dataset['id']}/check").json()
    assert again["diagnosis"] == dataset["diagnosis"]
    text = client.get(f"/datasets/{dataset['id']}", headers=PAGE).text
    assert "a and b" in text
    assert '<th scope="row">no label</th>' in text
    assert "task=multi_label" in text
    assert "none" not in client.get("/datasets", headers=PAGE).text.partition('id="datasets"')[2]


def test_label_columns_are_uploaded(client: TestClient, upload: Upload) -> None:
    dataset = created(upload(INDICATORS, task="multi_label", label_columns="toxic, insult"))
    assert dataset["labels"] == {"insult": 8, "toxic": 12}
    assert dataset["label_columns"] == ["toxic", "insult"]
    assert client.get(f"/datasets/{dataset['id']}", headers=PAGE).status_code == 200
    answer = plan(client, "a", task={"type": "multi_label"})
    assert answer.json()["spec"]["data"]["label_columns"] == ["toxic", "insult"]


def test_many_label_columns_are_uploaded(client: TestClient, upload: Upload) -> None:
    names = [f"indicator-{i:010}" for i in range(300)]
    rows = [f"text {i}," + ",".join(str((i + j) % 2) for j in range(300)) for i in range(24)]
    dataset = upload(
        "\n".join([",".join(["text", *names]), *rows]),
        task="multi_label",
        label_columns=",".join(names),
    )
    assert created(dataset)["label_columns"] == names


def test_numbers_are_uploaded(client: TestClient, upload: Upload) -> None:
    dataset = created(upload(NUMBERS, task="regression"))
    assert (dataset["labels"], dataset["label_count"]) == ({}, 0)
    assert dataset["diagnosis"]["numbers"]["maximum"] == pytest.approx(47 / 7)
    text = client.get(f"/datasets/{dataset['id']}", headers=PAGE).text
    assert 'id="numbers"' in text
    assert "48 labeled texts are too few to estimate the effect of more labels" in text
    assert "numbers" in client.get("/datasets", headers=PAGE).text
    answer = plan(client, "a", task={"type": "regression"})
    assert answer.status_code == 200, answer.text


def test_the_same_file_for_another_task_is_another_version(upload: Upload) -> None:
    ranks = "text,label\n" + "".join(f"text{i} word{i},{i % 5}\n" for i in range(40))
    first = created(upload(ranks))
    second = created(upload(ranks, task="regression"))
    third = created(upload(ranks, ordered="true"))
    assert [each["version"] for each in (first, second, third)] == [1, 2, 3]
    assert third["ordered"] is True
    assert upload(ranks, task="regression").status_code == 200


def test_the_task_of_texts_without_labels_does_not_matter(upload: Upload) -> None:
    first = created(upload("text\na b\n", purpose="predict", task="multi_label"))
    again = upload("text\na b\n", purpose="predict", task="regression")
    assert (again.status_code, again.json()["ref"]) == (200, first["ref"])


@pytest.mark.parametrize(
    ("content", "fields", "code"),
    [
        (SETS, {"task": "multi_label"}, "malformed_label_set"),
        (SETS.replace(",\n", ",none\n"), {"task": "regression"}, "label_not_number"),
        (INDICATORS, {"task": "multi_label", "label_columns": "toxic,none"}, "missing_column"),
        (INDICATORS, {"task": "multi_label", "label_columns": "toxic,label"}, "label_not_binary"),
    ],
)
def test_labels_must_fit_the_task(
    upload: Upload, content: str, fields: dict[str, str], code: str
) -> None:
    answer = upload(content, **fields)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert "a.csv" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"task": "several"}, "task"),
        ({"label_separator": ";"}, "label_separator"),
        ({"task": "regression", "label_columns": "a"}, "label_columns"),
        ({**MULTI_LABEL, "label_columns": "a"}, "label_columns"),
        ({"task": "multi_label", "label_columns": "a,a "}, "label_columns"),
        ({"task": "multi_label", "label_columns": "a,"}, "label_columns"),
        ({"task": "multi_label", "label_columns": "の" * 257}, "label_columns"),
        ({"task": "regression", "ordered": "true"}, "ordered"),
    ],
)
def test_fields_must_fit_the_task(upload: Upload, fields: dict[str, str], at: str) -> None:
    answer = upload(SETS, **fields)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert answer.json()["errors"][0]["at"] == at


def test_a_job_takes_the_separator_of_its_dataset(client: TestClient, upload: Upload) -> None:
    upload(SETS, **MULTI_LABEL)
    answer = plan(client, "a", task={"type": "multi_label"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["spec"]["data"]["label_separator"] == ";"


def test_a_job_without_a_task_has_that_of_its_dataset(client: TestClient, upload: Upload) -> None:
    upload(SETS, **MULTI_LABEL)
    for method in ("auto", "linear", "lora"):
        answer = plan(client, "a", method={"type": method})
        assert answer.status_code == 200, answer.text
        assert answer.json()["spec"]["task"]["type"] == "multi_label"
    assert plan(client, "rotten-tomatoes").json()["spec"]["task"]["type"] == "single_label"


def test_a_job_must_have_the_task_of_its_dataset(client: TestClient, upload: Upload) -> None:
    upload(SETS, **MULTI_LABEL)
    for task in ({"type": "single_label"}, {"type": "regression"}):
        answer = plan(client, "a", task=task)
        assert (answer.status_code, answer.json()["code"]) == (422, "task_mismatch")
        assert "`--task multi_label`" in answer.json()["detail"]
    upload(SETS.replace(",\n", ",none\n"), "names.csv")
    data = {"label_separator": ";"}
    assert plan(client, "names", data=data, task={"type": "multi_label"}).status_code == 200


TICKETS = "text,topic,rating,urgent,rude\n" + "".join(
    f"ticket{i} word{i} end{i},{'refund' if i % 4 else 'billing'},{i % 7},"
    f"{i % 2},{int(i % 3 == 0)}\n"
    for i in range(48)
)
TARGETS = {
    "topic": {"type": "single_label"},
    "stars": {"type": "regression", "column": "rating"},
    "flags": {"type": "multi_label", "label_columns": ["urgent", "rude"]},
}


def test_several_targets_are_uploaded_and_trained(client: TestClient, upload: Upload) -> None:
    dataset = created(upload(TICKETS, targets=json.dumps(TARGETS)))
    assert dataset["task"] == "several_targets"
    assert dataset["targets"] == TARGETS | {"topic": {"type": "single_label", "column": "topic"}}
    assert dataset["labels"] == {
        "flags/rude": 16, "flags/urgent": 24, "topic/billing": 12, "topic/refund": 36,
    }  # fmt: skip
    assert dataset["diagnosis"]["targets"]["stars"]["numbers"]["maximum"] == 6
    rows = client.get(f"/v1/datasets/{dataset['id']}/rows").json()["data"]
    assert json.loads(rows[0]["label"]) == {"flags": ["rude"], "stars": 0.0, "topic": "billing"}
    shown = client.get(f"/datasets/{dataset['id']}/rows", headers=PAGE).text
    assert "<bdi>flags: rude, stars: 0.0, topic: billing</bdi>" in shown
    assert upload(TICKETS, targets=json.dumps(TARGETS)).status_code == 200
    text = client.get(f"/datasets/{dataset['id']}", headers=PAGE).text
    assert 'id="targets"' in text
    assert "urgent, rude" in text
    assert client.get(f"/jobs/new?data={dataset['ref']}", headers=PAGE).status_code == 200
    planned = plan(client, "a")  # as it was uploaded
    assert planned.status_code == 200, planned.text
    assert set(planned.json()["spec"]["task"]["targets"]) == set(TARGETS)
    assert planned.json()["parameters"]["exact"] is False
    text = "topic,stars=regression:rating"
    given = plan(client, "a", task={"targets": text}).json()["spec"]["task"]
    assert given["type"] == "several_targets"
    assert given["targets"]["stars"]["column"] == "rating"
    mismatch = plan(client, "a", task={"type": "single_label"})
    assert mismatch.json()["code"] == "task_mismatch", mismatch.text


@pytest.mark.parametrize(
    ("content", "fields", "columns"),
    [
        (TICKETS, {"targets": json.dumps(TARGETS)}, []),  # each target has its own counts
        (SETS, MULTI_LABEL, ["0", "12", "24"]),  # no row of test has a label
    ],
)
def test_page_of_a_dataset_with_splits(
    client: TestClient, upload: Upload, content: str, fields: dict[str, str], columns: list[str]
) -> None:
    header, *lines = content.splitlines()
    splits = ["test" if line.endswith(",") else "train" for line in lines]
    rows = [f"{line},{split}" for line, split in zip(lines, splits, strict=True)]
    dataset = created(upload("\n".join([f"{header},split", *rows]), **fields))
    page = client.get(f"/datasets/{dataset['id']}", headers=PAGE)
    assert page.status_code == 200
    shown = re.findall(r'<td class="number hide-on-phone">(\d+)</td>', page.text)
    assert sorted(set(shown)) == columns


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"targets": "topic"}, "at least 2"),
        ({"targets": "topic,topic"}, "named twice"),
        ({"targets": "topic,rating=number"}, "multi_label"),
        ({"targets": "topic,rating", "task": "regression"}, "needs the task several_targets"),
        ({"targets": "topic,rating", "label_column": "topic"}, "label_column"),
        ({"task": "several_targets"}, "needs targets"),
        ({"targets": "topic,Urgent"}, "cannot be the name of a target"),
        ({"targets": '{"":' * 1000}, "nested too deeply"),
        ({"targets": "topic,mood"}, "'mood'"),
        ({"targets": "rating=regression,topic=regression"}, "a.csv, column 'topic': labels"),
        ({"targets": LONG_TARGETS.replace("の", "ののの")}, "at most 100,000 bytes"),
        ({"targets": r'{"a": {"type": "regression", "column": "\ud800"}, "b": {}}'}, "a.column"),
    ],
)
def test_targets_that_are_refused(upload: Upload, fields: dict[str, str], words: str) -> None:
    refused = upload(TICKETS, **fields)
    assert refused.status_code == 422
    assert words in refused.text


@pytest.mark.usefixtures("in_child")
def test_long_targets_reach_the_parser(upload: Upload) -> None:
    """They are one argument of a process, whose length Linux limits."""
    assert upload(TICKETS, targets=LONG_TARGETS).json()["code"] == "missing_column"
