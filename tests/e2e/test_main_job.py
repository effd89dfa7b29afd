"""The main workflow with real processes: upload, train, watch, promote, predict."""

import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from transformers import pipeline

from tests.e2e.up import loraworks_up
from tests.plain_checkpoint import plain_checkpoint
from tests.slow import slow_but
from tests.tiny_base import make_base, make_reviews

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

OPTIM = {"epochs": 3, "learning_rate": 0.01, "batch_size": 8}
ROWS = {  # the four lessons: last layers, LoRA, the script with its flags, all layers
    "01": ({"type": "baseline"}, ["--method", "baseline"]),
    "02": (
        {"type": "lora", "r": 8, "alpha": 16, "targets": ["query", "value"]},
        ["--method", "lora", "--r", "8", "--alpha", "16", "--target", "query,value"],
    ),
    "03": (
        {
            "type": "lora",
            "variant": "unscaled",
            "r": 8,
            "alpha": 1,
            "targets": ["query", "value", "mlp"],
            "head": "frozen",
        },
        [
            *("--method", "lora", "--variant", "unscaled", "--r", "8", "--alpha", "1"),
            *("--target", "query,value,mlp", "--head", "frozen"),
        ],
    ),
    "04": ({"type": "full"}, ["--method", "full"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("service")
    make_base(folder / "bases" / "tiny")
    make_reviews(folder / "reviews.csv")
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """`loraworks up` with an API, a worker and an uploaded dataset."""
    environment = {
        "LORAWORKS_BASE_DIRS": str(folder / "bases"),
        "LORAWORKS_ENGINE": "torch-fp32",
    }
    with loraworks_up(folder / "data", **environment) as url:
        with (folder / "reviews.csv").open("rb") as file:
            sent = httpx2.post(f"{url}/v1/datasets", files={"file": ("reviews.csv", file)})
        assert sent.status_code == 201, sent.text
        yield url


def cli(url: str, *arguments: str) -> Any:
    done = subprocess.run(
        [Path(sys.executable).with_name("loraworks"), "--url", url, *arguments, "--json"],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def finished(url: str, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        job: dict[str, Any] = httpx2.get(f"{url}/v1/jobs/{job_id}").json()
        if job["state"] not in ("queued", "running"):
            assert job["state"] == "succeeded", job["error"]
            return job
        time.sleep(0.2)
    raise AssertionError("the job did not end")


def check_as_planned(job: dict[str, Any], plan: dict[str, Any]) -> None:
    assert job["parameters"] == plan["parameters"]
    assert job["summary"]["trainable_parameters"] == plan["parameters"]["trainable"]
    # The worker chooses device and threads; everything else is the same for REST and CLI.
    assert job["spec"] | {"runtime": None} == plan["spec"] | {"runtime": None}


@dataclass(frozen=True)
class Lesson:
    """A lesson as request body and command, with the resolved plan."""

    row: str
    body: dict[str, Any]
    command: list[str]
    plan: dict[str, Any]


@pytest.fixture(params=slow_but(ROWS, "02"))
def lesson(request: pytest.FixtureRequest, url: str, folder: Path) -> Lesson:
    row = request.param
    method, flags = ROWS[row]
    base, name = str(folder / "bases" / "tiny"), f"lesson-{row}"
    body = {
        "method": method,
        "base": base,
        "data": {"source": "reviews"},
        "optim": OPTIM,
        "register_as": name,
    }
    command = [
        *("train", *flags, "--base", base, "--data", "reviews", "--register-as", name),
        *("--epochs", "3", "--learning-rate", "0.01", "--batch-size", "8"),
    ]
    return Lesson(row, body, command, httpx2.post(f"{url}/v1/jobs?dry_run=true", json=body).json())


def test_each_lesson_is_planned_the_same_over_rest_and_cli(url: str, lesson: Lesson) -> None:
    planned = cli(url, *lesson.command, "--dry-run")
    assert (planned["spec"], planned["parameters"]) == (
        lesson.plan["spec"],
        lesson.plan["parameters"],
    )


@pytest.mark.slow  # the small forms are the tests before and after this one, and the tutorial
def test_each_lesson_runs_over_rest_and_cli(url: str, lesson: Lesson) -> None:
    job = cli(url, *lesson.command, "--watch")
    check_as_planned(job, lesson.plan)
    assert job["summary"]["model_version"].startswith(f"lesson-{lesson.row}:")
    if lesson.row == "02":
        again = finished(url, httpx2.post(f"{url}/v1/jobs", json=lesson.body).json()["id"])
        assert again["summary"]["test"] == job["summary"]["test"]


def test_job_to_prediction_over_http(url: str, folder: Path, tmp_path: Path) -> None:
    body = {
        "method": {"type": "lora", "r": 4, "targets": ["query", "value", "mlp"]},
        "base": str(folder / "bases" / "tiny"),
        "data": {"source": "reviews:1"},
        "optim": OPTIM,
        "result": {"cross_validation": False},
        "register_as": "films",
    }
    plan = httpx2.post(f"{url}/v1/jobs?dry_run=true", json=body).json()
    job_id = httpx2.post(f"{url}/v1/jobs", json=body).json()["id"]
    with httpx2.stream("GET", f"{url}/v1/jobs/{job_id}/stream", timeout=200) as stream:
        lines = [line.removeprefix("event: ") for line in stream.iter_lines()
                 if line.startswith("event: ")]  # fmt: skip
    assert lines[-1] == "end"
    assert {"metric", "event", "state"} <= set(lines)
    job = finished(url, job_id)
    check_as_planned(job, plan)
    assert job["summary"]["model_version"] == "films:1"
    points = httpx2.get(f"{url}/v1/jobs/{job_id}/metrics", params={"name": "accuracy"}).json()
    assert {point["split"] for point in points["data"]} == {"validation", "test"}

    refused = httpx2.post(f"{url}/predict", json={"inputs": "good", "model": "films"})
    assert (refused.status_code, refused.json()["code"]) == (404, "no_model_promoted")
    production = f"{url}/v1/models/films/aliases/production"
    promoted = httpx2.put(production, json={"version": 1}, timeout=60)
    assert promoted.status_code == 200
    texts = ["a good film", "the plot was bad", "good"]
    answer = httpx2.post(f"{url}/predict", json={"inputs": texts, "model": "films"}, timeout=60)
    assert answer.headers["X-Model-Version"] == "films:1"
    assert [row[0]["label"] for row in answer.json()] == ["good", "bad", "good"]

    archive = httpx2.get(f"{url}/v1/artifacts/{job['artifact_id']}/archive")
    (tmp_path / "model.tar").write_bytes(archive.content)
    with tarfile.open(tmp_path / "model.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    merged = plain_checkpoint(tmp_path / job["artifact_id"])
    classify = pipeline("text-classification", model=str(merged), top_k=None)
    # Logits, because probabilities are calibrated here and not in the file.
    as_logits: dict[str, Any] = {"inputs": texts, "model": "films", "raw_scores": True}
    raw = httpx2.post(f"{url}/predict", json=as_logits, timeout=60).json()
    for served, plain in zip(raw, classify(texts, function_to_apply="none"), strict=True):
        assert [row["label"] for row in served] == [row["label"] for row in plain]
        assert served[0]["score"] == pytest.approx(plain[0]["score"], abs=1e-5)


@pytest.mark.slow  # test_job_to_prediction_over_http is the small form
def test_linear_model_from_the_cli_to_a_prediction(url: str, folder: Path, tmp_path: Path) -> None:
    job = cli(url, "train", "--method", "linear", "--data", "reviews",
              "--register-as", "words", "--watch")  # fmt: skip
    assert (job["state"], job["base"]) == ("succeeded", None)
    assert job["summary"]["model_version"] == "words:1"
    assert "linear" not in job["summary"]
    assert cli(url, "models", "promote", "words:1")
    texts = ["a good film", "the plot was bad", "nothing known"]
    body = {"inputs": texts, "model": "words"}
    answers = httpx2.post(f"{url}/predict", json=body, timeout=60).json()
    assert [row[0]["label"] for row in answers[:2]] == ["good", "bad"]
    archive = tmp_path / "words.tar"
    cli(url, "models", "export", "words", "--out", str(archive))
    assert cli(url, "models", "import", str(archive), "--name", "words")["ref"] == "words:2"
    assert cli(url, "models", "promote", "words:2")
    assert httpx2.post(f"{url}/predict", json=body, timeout=60).json() == answers
    refused = subprocess.run(
        [Path(sys.executable).with_name("loraworks"), "--url", url, "models", "export", "words",
         "--format", "peft", "--out", str(tmp_path / "peft")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert refused.returncode != 0
    assert "cannot be exported to PEFT" in refused.stderr
    rows, results = tmp_path / "rows.csv", tmp_path / "results.jsonl"
    rows.write_text("text\n" + "\n".join(texts[:2]) + "\n")
    cli(url, "predict", "--model", "words:1", "--file", str(rows), "--out", str(results))
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["predicted_label"] for line in lines] == ["good", "bad"]
    sweep = cli(url, "sweep", "start", "--method", "linear", "--data", "reviews",
                "--over", "C=0.01,4", "--watch")  # fmt: skip
    assert sweep["state"] == "finished"
    promoted = cli(url, "sweep", "promote", sweep["id"], "words")
    assert promoted["summary"]["model_version"] == "words:3"


@pytest.mark.slow  # the small form is in tests/lora_core/training/test_auto.py
def test_auto_chooses_the_best_method(url: str, folder: Path) -> None:
    body = {
        "base": str(folder / "bases" / "tiny"),
        "data": {"source": "reviews"},
        "register_as": "chosen",
    }
    plan = httpx2.post(f"{url}/v1/jobs?dry_run=true", json=body).json()
    planned = [each["method"]["type"] for each in plan["spec"]["method"]["candidates"]]
    assert planned == ["lora", "probe", "probe", "probe", "linear", "linear"]
    job = finished(url, httpx2.post(f"{url}/v1/jobs", json=body).json()["id"])
    assert job["method"] == "auto"
    assert job["spec"]["method"] == plan["spec"]["method"]  # a resume tries the same ones
    selection = job["summary"]["selection"]
    assert [each["method"]["type"] for each in selection["candidates"]] == planned
    events = httpx2.get(f"{url}/v1/jobs/{job['id']}/events").json()["data"]
    kinds = [event["kind"] for event in events]
    assert kinds.count("candidate") == len(planned)
    [version] = httpx2.get(f"{url}/v1/models/chosen").json()["versions"]
    chosen = selection["candidates"][selection["chosen"]]["method"]["type"]
    assert version["method"] == chosen
    verdict = job["verdict"]
    assert verdict["measured_on"] == "cross_validation"
    assert verdict["texts"] == selection["texts"] == 96
    assert verdict["learned"]
    page = httpx2.get(f"{url}/jobs/{job['id']}").text
    assert verdict["headline"] in page
    assert page.index("verdict-title") < page.index("metrics-title")


@pytest.mark.slow  # each step of it has a test of its own
def test_trained_version_can_be_a_base(url: str, folder: Path) -> None:
    body = {
        "method": {"type": "lora", "r": 2},
        "base": str(folder / "bases" / "tiny"),
        "data": {"source": "reviews"},
        "optim": {"epochs": 1, "batch_size": 8},
        "register_as": "first",
    }
    finished(url, httpx2.post(f"{url}/v1/jobs", json=body).json()["id"])
    sent = httpx2.post(f"{url}/v1/jobs", json={**body, "base": "first:1"})
    assert sent.status_code == 202, sent.text
    job = finished(url, sent.json()["id"])
    assert job["base"] == "first:1"
    manifest = httpx2.get(f"{url}/v1/artifacts/{job['artifact_id']}").json()
    assert manifest["spec"]["base"] == "first:1"
