"""The misclassified texts of a job, over HTTP."""

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from scipy.special import softmax
from starlette.testclient import TestClient

from app.queue.transitions import Succeeded
from app.resources import Resources
from app.storage import repository as artifacts
from lora_core import manifest
from lora_core.data.split import Example
from lora_core.saved_predictions import save_predictions
from lora_core.tasks.base import Calibration
from lora_core.tasks.single_label import SingleLabel
from lora_core.training import correctness
from tests.app.jobs.fake_worker import FakeWorker

Submit = Callable[..., dict[str, Any]]
LABELS = ("bad", "fair", "good")
TEMPERATURE = 1.7
random = np.random.default_rng(3)
LOGITS = random.normal(scale=2, size=(60, 3)).astype(np.float32).round(3)
EXAMPLES = [Example(i + 2, f"text <b>{i}</b>", int(random.integers(3))) for i in range(60)]


@pytest.fixture
def finish(
    submit: Submit, worker: FakeWorker, resources: Resources, tmp_path: Path
) -> Callable[..., str]:
    """Return a function that creates a succeeded job with these predictions for its test split."""

    def make(*, texts: bool) -> str:
        job_id: str = submit()["id"]
        lease = worker.claim().lease
        made = tmp_path / job_id
        made.mkdir()
        save_predictions(made, "test", EXAMPLES, LOGITS, LOGITS.argmax(axis=1).tolist())
        if texts:
            task, calibration = SingleLabel(LABELS), Calibration(temperature=TEMPERATURE)
            correctness.save_misclassified(made, "test", EXAMPLES, LOGITS, task, calibration)
        manifest.create_and_save(
            made, {"labels": LABELS, "calibration": {"temperature": TEMPERATURE}, "metrics": {}}
        )
        ref = resources.store.move_directory_into_store(made, f"jobs/{job_id}/a1")
        with resources.database.write() as session:
            artifact = artifacts.add_artifact(session, job_id=UUID(job_id), kind="model", ref=ref)
        worker.finish(lease, Succeeded(artifact.id, {}))
        return job_id

    return make


def test_misclassified_texts_have_texts_and_probabilities(
    client: TestClient, finish: Callable[..., str]
) -> None:
    found = client.get(f"/v1/jobs/{finish(texts=True)}/misclassified?limit=10").json()
    scores = softmax(LOGITS.astype(np.float64) / TEMPERATURE, axis=1)
    wrong = [i for i, example in enumerate(EXAMPLES) if scores[i].argmax() != example.label]
    worst = sorted(wrong, key=lambda i: -scores[i].max())[:10]
    assert [each["row"] for each in found] == [EXAMPLES[i].row for i in worst]
    assert [each["text"] for each in found] == [EXAMPLES[i].text for i in worst]
    assert [each["label"] for each in found] == [LABELS[EXAMPLES[i].label] for i in worst]
    assert [each["predicted"] for each in found] == [LABELS[scores[i].argmax()] for i in worst]
    assert [each["score"] for each in found] == pytest.approx([scores[i].max() for i in worst])
    assert not any(each["cut"] for each in found)


def test_an_older_job_returns_the_same_without_texts(
    client: TestClient, finish: Callable[..., str]
) -> None:
    with_texts, without = (
        client.get(f"/v1/jobs/{finish(texts=texts)}/misclassified?limit=50").json()
        for texts in (True, False)
    )
    assert [each["text"] for each in without] == [None] * len(with_texts)
    for each, other in zip(with_texts, without, strict=True):
        assert each | {"text": None} == pytest.approx(other)


def test_artifacts_of_earlier_versions_have_another_folder(
    client: TestClient, finish: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(correctness, "MISCLASSIFIED_FOLDER", "mistakes")
        old = finish(texts=True)
    found, expected = (
        client.get(f"/v1/jobs/{job_id}/misclassified").json()
        for job_id in (old, finish(texts=True))
    )
    assert found == expected
    assert all(each["text"] for each in found)


def test_a_split_without_predictions_is_not_found(
    client: TestClient, finish: Callable[..., str]
) -> None:
    answer = client.get(f"/v1/jobs/{finish(texts=True)}/misclassified?split=validation")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_predictions")
    assert "validation" in answer.json()["detail"]


def test_an_unfinished_job_has_none(client: TestClient, submit: Submit) -> None:
    answer = client.get(f"/v1/jobs/{submit()['id']}/misclassified")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_predictions")


@pytest.mark.parametrize("query", ["split=train", "limit=0", "limit=10001", "limit=x"])
def test_invalid_splits_and_limits_are_rejected(
    client: TestClient, submit: Submit, query: str
) -> None:
    answer = client.get(f"/v1/jobs/{submit()['id']}/misclassified?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


def test_all_misclassified_texts_can_be_downloaded(
    client: TestClient, finish: Callable[..., str]
) -> None:
    address = f"/v1/jobs/{finish(texts=True)}/misclassified"
    listed = client.get(address, params={"limit": 1000}).json()
    assert len(listed) > 20
    answer = client.get(f"{address}/download?format=jsonl")
    assert [json.loads(line) for line in answer.text.splitlines()] == listed
    assert answer.headers["content-type"].startswith("application/jsonl")
    answer = client.get(f"{address}/download")
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"].startswith(
        'attachment; filename="misclassified-test-'
    )
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [int(row["row"]) for row in rows] == [each["row"] for each in listed]
    assert [row["text"] for row in rows] == [each["text"] for each in listed]
    assert [float(row["true_score"]) for row in rows] == [each["true_score"] for each in listed]
    missing = client.get(f"{address}/download?split=validation")
    assert (missing.status_code, missing.json()["code"]) == (404, "no_predictions")


def test_no_cell_of_the_csv_is_a_formula(
    client: TestClient, finish: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", 'a "b", c', "a\r=1"]  # noqa: RUF001
    labels = ("-no", "=yes()", "fine")
    hostile = [Example(i + 1, texts[i % len(texts)], each.label) for i, each in enumerate(EXAMPLES)]
    module = sys.modules[__name__]
    monkeypatch.setattr(module, "EXAMPLES", hostile)
    monkeypatch.setattr(module, "LABELS", labels)
    address = f"/v1/jobs/{finish(texts=True)}/misclassified"
    exact = [
        json.loads(line) for line in client.get(f"{address}/download?format=jsonl").iter_lines()
    ]
    assert {each["text"] for each in exact} == set(texts)
    rows = list(csv.DictReader(io.StringIO(client.get(f"{address}/download").text, newline="")))
    for row, each in zip(rows, exact, strict=True):
        for name in ("text", "label", "predicted"):
            harmless = each[name] in ("fine", 'a "b", c', "a\r=1")
            assert row[name] == (each[name] if harmless else f"'{each[name]}")


def test_a_damaged_file_is_reported(
    client: TestClient, finish: Callable[..., str], resources: Resources
) -> None:
    job_id = finish(texts=True)
    file = next(resources.settings.data_dir.rglob("misclassified/test.jsonl"))
    kept = json.loads(file.read_text().splitlines()[0])
    file.write_text(json.dumps(kept | {"text": "another"}))
    answer = client.get(f"/v1/jobs/{job_id}/misclassified")
    assert (answer.status_code, answer.json()["code"]) == (409, "artifact_corrupt")
