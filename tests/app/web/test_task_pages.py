"""Pages and responses of jobs that predict several labels, a number, or a rank."""

import re
from typing import Any, NamedTuple

import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from app.resources import Resources
from lora_core.data.split import Example
from lora_core.tasks.base import Task
from lora_core.tasks.multi_label import MultiLabel
from lora_core.tasks.regression import Regression
from lora_core.tasks.several_targets import SeveralTargets
from lora_core.tasks.single_label import SingleLabel
from tests.app.web.finished_jobs import HOSTILE, succeed_with
from tests.app.web.html_elements import visible_text
from tests.slow import slow_but

PAGE = {"Accept": "text/html"}
TEXTS = 200
LABELS = ("insult", HOSTILE, "toxic")


class Made(NamedTuple):
    """A task with texts, and what a model predicts for them: less noise, better."""

    task: Task
    examples: list[Example]
    logits: NDArray[np.float32]


def make(task_type: str, noise: float) -> Made:
    random = np.random.default_rng(0)
    errors = random.normal(scale=noise, size=(TEXTS, 3)).astype(np.float32)
    labels: list[Any]
    match task_type:
        case "multi_label":
            truth = random.random((TEXTS, 3)) < 0.4
            labels = [tuple(np.flatnonzero(row).tolist()) for row in truth]
            task: Task = MultiLabel(LABELS)
            logits = 4 * truth - 2 + errors
        case "regression":
            numbers = random.normal(50, 10, size=TEXTS).astype(np.float32)
            labels = numbers.tolist()
            task = Regression(50.0, 10.0)
            logits = ((numbers - 50) / 10)[:, None] + errors[:, :1]
        case "several_targets":
            made = {name: make(kind, noise) for name, kind in SEVERAL.items()}
            task = SeveralTargets(
                {name: each.task for name, each in made.items()}, dict.fromkeys(made, 1.0)
            )
            labels = [
                {name: each.examples[i].label for name, each in made.items()} for i in range(TEXTS)
            ]
            logits = np.concatenate([each.logits for each in made.values()], axis=1)
        case _:
            ranks = np.arange(TEXTS) % 3
            labels = ranks.tolist()
            task = SingleLabel(("1", "2", "3"), ordered=True, tune_thresholds=True)
            logits = 2 * np.eye(3)[ranks] + errors
    examples = [Example(i + 1, f"text {i} {HOSTILE}", label) for i, label in enumerate(labels)]
    return Made(task, examples, logits.astype(np.float32))


SEVERAL = {"flags": "multi_label", "number": "regression", "stars": "ordered"}
SPECS: dict[str, dict[str, Any]] = {
    "multi_label": {"type": "multi_label"},
    "regression": {"type": "regression"},
    "ordered": {"type": "single_label", "ordered": True, "tune_thresholds": True},
}
SPECS["several_targets"] = {
    "targets": {name: {**SPECS[kind], "column": "label"} for name, kind in SEVERAL.items()}
}


def succeed(
    client: httpx2.Client, resources: Resources, task_type: str, noise: float = 1.0, **fields: Any
) -> str:
    made = make(task_type, noise)
    return succeed_with(client, resources, *made, task=SPECS[task_type], **fields)


def page(client: TestClient, path: str) -> str:
    response = client.get(path, headers=PAGE)
    assert response.status_code == 200, response.text
    assert HOSTILE not in response.text
    return response.text


def test_a_multi_label_job_shows_each_label(client: TestClient, resources: Resources) -> None:
    job_id = succeed(client, resources, "multi_label")
    report = client.get(f"/v1/jobs/{job_id}").json()["summary"]["test"]
    text = page(client, f"/jobs/{job_id}")
    read = visible_text(text)
    assert f"Macro F1 {100 * report['macro_f1']:.1f}%" in read
    assert f"Mean average precision {100 * report['map']:.1f}%" in read
    toxic = report["per_class"]["toxic"]
    assert f"toxic {toxic['support']} {100 * toxic['recall']:.1f}%" in read
    assert f"{100 * toxic['threshold']:.1f}%" in read
    assert "Confusion matrix" not in read
    assert "Predicted " in read
    assert 'data-metric="macro_f1" data-metric-is-share' in text


def test_a_regression_shows_its_numbers(client: TestClient, resources: Resources) -> None:
    job_id = succeed(client, resources, "regression")
    report = client.get(f"/v1/jobs/{job_id}").json()["summary"]["test"]
    text = page(client, f"/jobs/{job_id}")
    read = visible_text(text)
    assert f"RMSE {report['rmse']:.4g}" in read
    assert f"R² {report['r2']:.4g}" in read
    assert "Numbers within the interval 9" in read  # percent
    assert "Largest errors" in read
    assert "Confusion matrix" not in read
    assert text.count("<circle") == TEXTS
    assert "Accuracy" not in read


def test_ranks_show_kappa_beside_the_confusion_matrix(
    client: TestClient, resources: Resources
) -> None:
    job_id = succeed(client, resources, "ordered")
    report = client.get(f"/v1/jobs/{job_id}").json()["summary"]["test"]
    read = visible_text(page(client, f"/jobs/{job_id}"))
    assert f"Quadratic kappa {report['kappa']:.4g}" in read
    assert f"Mean absolute error {report['mae']:.4g}" in read
    assert "Confusion matrix" in read


@pytest.mark.parametrize(
    ("task_type", "metric", "verdict"),
    [
        ("multi_label", "macro_f1", "points worse than"),
        ("regression", "rmse", "worse than"),
        pytest.param("ordered", "accuracy", "points worse than", marks=pytest.mark.slow),
        ("several_targets", "skill", "points worse than"),
    ],
)
def test_jobs_are_listed_compared_and_registered(
    client: TestClient, resources: Resources, task_type: str, metric: str, verdict: str
) -> None:
    good, bad = (
        succeed(client, resources, task_type, noise, name=name, model="mine")
        for noise, name in ((0.5, "good"), (3.0, "bad"))
    )
    report = client.get(f"/v1/jobs/{good}").json()["summary"]["test"]
    [_, listed] = client.get("/v1/jobs").json()["data"]
    assert listed["metric"] == {"name": metric, "value": pytest.approx(report[metric])}
    found = client.get(f"/v1/jobs/compare?job={good}&job={bad}").json()["jobs"]
    assert found[0]["test"]["value"] == pytest.approx(report[metric], rel=1e-5)
    pair = found[1]["test"]["against_first"]
    assert pair["significant"]
    assert (pair["p"] is None) == (metric != "accuracy")
    compared = visible_text(page(client, f"/compare?job={good}&job={bad}"))
    assert f"bad is {abs(100 * pair['difference']):.1f} " in compared or metric == "rmse"
    assert verdict in compared
    assert "The difference is statistically significant" in compared
    for path in ("/", "/models", "/models/mine", f"/jobs/new?from={good}", f"/jobs/{good}"):
        page(client, path)
    wrong = client.get(f"/v1/jobs/{bad}/misclassified?split=test").json()
    assert wrong
    download = client.get(f"/v1/jobs/{bad}/misclassified/download?split=test&format=csv")
    assert download.status_code == 200
    assert len(download.text.splitlines()) > 1


def test_jobs_of_different_tasks_are_not_paired(client: TestClient, resources: Resources) -> None:
    first, second = (succeed(client, resources, task) for task in ("ordered", "regression"))
    read = visible_text(page(client, f"/compare?job={first}&job={second}"))
    assert "predicted different test texts" in read
    assert "RMSE" in read


def test_a_job_with_several_targets_shows_one_at_a_time(
    client: TestClient, resources: Resources
) -> None:
    job_id = succeed(client, resources, "several_targets")
    report = client.get(f"/v1/jobs/{job_id}").json()["summary"]["test"]
    read = visible_text(page(client, f"/jobs/{job_id}"))
    assert f"Mean skill {100 * report['skill']:.1f}%" in read
    assert f"RMSE of number {report['targets']['number']['rmse']:.4g}" in read
    flags, number, stars = (page(client, f"/jobs/{job_id}?target={name}") for name in SEVERAL)
    assert 'id="per-label-metrics"' in flags
    assert "Largest errors" in visible_text(number)
    assert number.count("<circle") == TEXTS
    assert "Confusion matrix" in visible_text(stars)
    wrong = client.get(f"/v1/jobs/{job_id}/misclassified?split=test&limit=9").json()
    assert [each["target"] for each in wrong[:3]] == list(SEVERAL)
    texts = client.get(f"/v1/jobs/{job_id}/misclassified/download?split=test&format=csv").text
    assert texts.splitlines()[0].split(",")[3:5] == ["target", "label"]


@pytest.mark.parametrize(
    "task_type", slow_but(["multi_label", "regression", "several_targets"], "several_targets")
)
def test_errors_of_jobs_without_a_model_are_found_in_their_predictions(
    client: TestClient, resources: Resources, task_type: str
) -> None:
    with_texts, without = (
        client.get(f"/v1/jobs/{job_id}/misclassified?split=test&limit=1000").json()
        for job_id in (
            succeed(client, resources, task_type),
            succeed(client, resources, task_type, texts=False),
        )
    )

    def by_row(texts: list[dict[str, Any]]) -> dict[Any, tuple[str, str]]:
        return {(t["row"], t.get("target")): (t["label"], t["predicted"]) for t in texts}

    assert by_row(without) == by_row(with_texts)
    assert {each["text"] for each in without} == {None}
    if task_type == "regression":
        errors = [abs(float(each["predicted"]) - float(each["label"])) for each in without]
        assert errors == sorted(errors, reverse=True)


def test_errors_of_several_targets_have_the_same_order_with_and_without_texts(
    client: TestClient, resources: Resources
) -> None:
    saved, computed = (
        succeed(client, resources, "several_targets", texts=texts) for texts in (True, False)
    )
    with_texts, without = (
        client.get(f"/v1/jobs/{job_id}/misclassified?split=test&limit=30").json()
        for job_id in (saved, computed)
    )
    assert [each["target"] for each in without] == list(SEVERAL) * 10
    # Without texts, several labels are sorted by the number of wrong ones.
    for of_saved, of_computed in zip(with_texts, without, strict=True):
        if of_saved["target"] != "flags":
            assert of_computed["row"] == of_saved["row"]
            assert of_computed["score"] == pytest.approx(of_saved["score"])
    read = visible_text(page(client, f"/jobs/{computed}?target=stars"))
    rows = re.findall(r"Row (\d+) of the dataset", read)
    assert rows[:10] == [str(each["row"]) for each in without if each["target"] == "stars"]
