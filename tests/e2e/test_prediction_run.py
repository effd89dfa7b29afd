"""A prediction run with real processes that are killed."""

import csv
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from transformers import pipeline

from app.database import migrations
from app.predictions import service
from app.queue.enums import AttemptOutcome
from app.resources import Resources, open_resources
from app.settings import Settings
from lora_core.batch_prediction import CHUNK_ROWS
from tests.e2e.installation import Installation
from tests.e2e.kinds import EMBEDDED_FIRST
from tests.job_rows import attempts
from tests.lora_core.batch_prediction.conftest import ROWS, make_texts
from tests.prediction_rows import add_model, add_texts, create_run
from tests.tiny_artifact import make_artifact
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture
def resources(installation: Installation, tmp_path: Path) -> Iterator[Resources]:
    """An installation with a model and a file of texts."""
    opened = open_resources(installation.settings)
    add_model(opened, make_artifact(tmp_path / "model"))
    make_texts(tmp_path / "texts.csv")
    add_texts(opened, tmp_path / "texts.csv", rows=ROWS)
    yield opened
    opened.close()


def results(resources: Resources, run_id: UUID) -> str:
    """Their digest."""
    directory = service.get_verified_results(
        resources.database, resources.store, run_id=run_id
    ).directory
    return hashlib.sha256((directory / "results.jsonl").read_bytes()).hexdigest()


@pytest.mark.slow  # the small form is in tests/lora_core/batch_prediction
@EMBEDDED_FIRST
def test_killed_processes_and_workers_change_no_prediction(
    installation: Installation, resources: Resources, tmp_path: Path
) -> None:
    trigger, hold = tmp_path / "trigger", tmp_path / "hold"
    trigger.touch()
    killed_child = create_run(resources)
    worker = installation.worker(fault=f"answered@2:kill:{trigger}")
    installation.succeeded(killed_child)
    assert worker.leave() == 0

    hold.touch()
    killed_worker = create_run(resources)
    worker = installation.worker(fault=f"answered@2:pause:{hold}")
    wait_until(tmp_path.joinpath("hold.reached").exists, seconds=60)
    installation.saw(killed_worker, "checkpoint")
    worker.kill()
    hold.unlink()
    uninterrupted = create_run(resources)
    installation.worker()
    installation.succeeded(killed_worker, uninterrupted)

    expected = results(resources, uninterrupted)
    for run_id, outcome in (
        (killed_child, AttemptOutcome.FAILED),
        (killed_worker, AttemptOutcome.LOST),
    ):
        legs = attempts(installation.database, run_id)
        assert [leg.outcome for leg in legs] == [outcome, AttemptOutcome.SUCCEEDED]
        assert [leg.first_step for leg in legs] == [0, CHUNK_ROWS]
        assert results(resources, run_id) == expected
    assert installation.children() == []


def cli(url: str, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli.main", "--url", url, *arguments, "--json"],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """`loraworks up` on a data folder that holds a model."""
    settings = Settings(data_dir=tmp_path / "data")
    migrations.upgrade(settings)
    opened = open_resources(settings)
    add_model(opened, make_artifact(tmp_path / "model", top_label="bad"))
    opened.close()
    command = [sys.executable, "-m", "app.cli.main", "up", "--port", "0", "--json", "--data-dir"]
    with subprocess.Popen(
        [*command, str(settings.data_dir)], stdout=subprocess.PIPE, text=True
    ) as service:
        assert service.stdout is not None
        yield json.loads(service.stdout.readline())["url"]
        service.terminate()
        assert service.wait(timeout=60) == 0


@pytest.mark.slow  # answers: tests/lora_core/batch_prediction; the file: app/cli/test_predict_file
def test_file_is_predicted_from_the_command_line(url: str, tmp_path: Path) -> None:
    texts = make_texts(tmp_path / "reviews.csv")
    out = tmp_path / "labeled.csv"
    run = cli(
        url, "predict", "--file", str(tmp_path / "reviews.csv"), "--text-column", "body",
        "--out", str(out),
    )  # fmt: skip
    assert (run["state"], run["rows_done"], run["rows"]) == ("succeeded", ROWS, ROWS)
    with out.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["id"], row["body"]) for row in rows] == [
        (str(i), text) for i, text in enumerate(texts)
    ]
    [merged] = (tmp_path / "data").rglob("merged")
    plain = pipeline("text-classification", str(merged), top_k=None)
    answers = plain(texts[::10], truncation=True, max_length=64)
    for row, scores in zip(rows[::10], answers, strict=True):
        assert row["predicted_label"] == scores[0]["label"]
        for each in scores:
            found = float(row[f"predicted_scores.{each['label']}"])
            assert found == pytest.approx(each["score"], abs=1e-5)
