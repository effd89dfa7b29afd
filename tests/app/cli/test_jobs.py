"""`loraworks train` and `loraworks jobs` against a running service."""

import json
import re
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.cli.client import Client
from app.cli.errors import ServiceUnreachableOrFailed
from app.cli.files import unpack_artifact
from app.queue import leases
from app.queue.transitions import Paused
from app.resources import Resources
from app.web.jobs import SAMPLE_COMMAND, SAMPLE_JOB
from lora_core import manifest
from lora_core.model_selection import PROBE_CANDIDATES
from lora_core.results import CandidateResult, MethodSelection
from lora_core.tasks.single_label import SingleLabel
from lora_core.verdict import ReferencePredictions, build_verdict
from tests.app.cli.conftest import FakeWorker, Run, answer
from tests.app.web.finished_jobs import succeed


def submitted(cli: Run, *options: str) -> str:
    return str(answer(cli("train", *options, "--json"))["id"])


def test_sample_command_submits_the_sample_job(cli: Run, app: FastAPI) -> None:
    """The page shows it beside the button."""
    program, *arguments, watch = SAMPLE_COMMAND.split()
    assert (program, watch) == ("loraworks", "--watch")
    typed = answer(cli(*arguments, "--json"))
    clicked = TestClient(app).post("/v1/jobs", json=SAMPLE_JOB).json()
    for field in ("method", "name", "register_as", "spec"):
        assert typed[field] == clicked[field], field


def test_plan_of_auto_counts_what_is_compared(cli: Run) -> None:
    plan = answer(cli("train", "--dry-run", "--json"))
    candidates = plan["spec"]["method"]["candidates"]
    fits = sum(each["folds"] * each["repeats"] for each in candidates)
    assert plan["cross_validation"] == {"candidates": len(candidates), "fits": fits}
    shown = cli("train", "--dry-run").stdout
    assert re.search(rf"^candidates +{len(candidates)}\nfits +{fits}\n", shown, re.MULTILINE)
    assert re.search(r"^estimated time +at most about \d+ (s|min)", shown, re.MULTILINE)
    named = cli("train", "--dry-run", "--method", "lora").stdout
    assert "candidates" not in named.partition("{")[0]
    assert "at most" not in named


def test_options_become_the_spec(cli: Run) -> None:
    job = answer(
        cli(
            "train", "--json", "--method", "lora", "--r", "4", "--alpha", "1", "--variant",
            "unscaled", "--target", "query,value", "--target", "mlp", "--layers", "0,1", "--head",
            "lora", "--train-size", "0.5", "--test-size", "500", "--max-length", "64", "--epochs",
            "3", "--lr", "0.001", "--batch-size", "16", "--seed", "7", "--select-by", "accuracy",
            "--class-weights", "balanced", "--patience", "2", "--precision", "fp32", "--name",
            "mine", "--register-as", "sentiment", "--priority", "5",
        )
    )  # fmt: skip
    spec = job["spec"]
    assert spec["method"] == {
        "type": "lora",
        "variant": "unscaled",
        "r": 4,
        "alpha": 1.0,
        "dropout": 0.0,
        "targets": ["query", "value", "mlp"],
        "layers": [0, 1],
        "head": "lora",
    }
    assert (spec["data"]["train_size"], spec["data"]["test_size"]) == (0.5, 500)
    assert spec["data"]["max_length"] == 64
    optim = spec["optim"]
    assert (optim["epochs"], optim["learning_rate"], optim["batch_size"]) == (3, 0.001, 16)
    assert spec["stop"]["select_by"] == "accuracy"
    assert spec["stop"]["patience"] == 2
    assert spec["task"]["class_weights"] == "balanced"
    assert (spec["runtime"]["seed"], spec["runtime"]["precision"]) == (7, "fp32")
    assert (job["name"], job["register_as"], job["priority"]) == ("mine", "sentiment", 5)


def test_a_job_is_tagged_and_found_again(cli: Run) -> None:
    job_id = submitted(cli, "--tag", "first try", "--tag", "German", "--notes", "Old data.")
    submitted(cli)
    edit = ("jobs", "edit", job_id)
    changed = answer(cli(*edit, "--add-tag", "Keep", "--remove-tag", "FIRST  try", "--json"))
    assert (changed["tags"], changed["notes"]) == (["german", "keep"], "Old data.")
    changed = answer(cli(*edit, "--notes", "", "--json"))
    assert (changed["tags"], changed["notes"]) == (["german", "keep"], None)
    assert [job["id"] for job in answer(cli("jobs", "list", "--tag", "Keep", "--json"))] == [job_id]
    assert answer(cli("jobs", "list", "--tag", "first try", "--json")) == []
    assert "german, keep" in cli("jobs", "list").stdout
    cli(*edit, "--notes", "Why\nnot.")
    assert "notes                 Why not." in cli("jobs", "show", job_id).stdout
    refused = cli(*edit)
    assert (refused.exit_code, "--add-tag" in refused.stderr) == (2, True)
    refused = cli(*edit, "--add-tag", "a,b")
    assert refused.exit_code == 3
    assert "tags.2" in refused.stderr


def test_misclassified_texts_are_listed_and_downloaded(
    cli: Run, app: FastAPI, resources: Resources, tmp_path: Path
) -> None:
    job_id = succeed(TestClient(app), resources, right=7, of=10)
    shown = cli("jobs", "misclassified", job_id, "--limit", "2")
    assert "text 9" in shown.stdout
    assert "text 7" not in shown.stdout
    found = answer(cli("jobs", "misclassified", job_id, "--json"))
    assert [each["row"] for each in found] == [10, 9, 8]
    for name in ("all.csv", "all.jsonl"):
        assert cli("jobs", "misclassified", job_id, "--out", str(tmp_path / name)).exit_code == 0
    lines = (tmp_path / "all.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == found
    assert (tmp_path / "all.csv").read_text().startswith("row,text,cut,label,predicted,score")
    for name in ("all.csv", "all.json"):  # it exists; the format is one of prediction runs only
        assert cli("jobs", "misclassified", job_id, "--out", str(tmp_path / name)).exit_code == 2
    more = str(tmp_path / "more.csv")
    saved = cli("jobs", "misclassified", job_id, "--out", more, "--json")
    assert answer(saved) == {"out": more}
    assert "no_predictions" in cli("jobs", "misclassified", job_id, "--split", "validation").stderr


def test_all_means_every_linear_layer(cli: Run) -> None:
    plan = answer(cli("train", "--target", "all", "--dry-run", "--json"))
    assert plan["spec"]["method"]["targets"] == ["query", "key", "value", "projection", "mlp"]


@pytest.mark.parametrize("method", ["baseline", "lora", "full"])
def test_every_method_can_be_submitted_with_defaults(cli: Run, method: str) -> None:
    job = answer(cli("train", "--method", method, "--json"))
    assert (job["state"], job["method"]) == ("queued", method)


def test_options_override_the_file_and_another_method_replaces_its_settings(
    cli: Run, tmp_path: Path
) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"method": {"type": "lora", "r": 2}, "optim": {"epochs": 9}}))
    job = answer(cli("train", "--spec", str(file), "--epochs", "1", "--json"))
    assert (job["spec"]["method"]["r"], job["spec"]["optim"]["epochs"]) == (2, 1)
    other = answer(cli("train", "--spec", str(file), "--method", "full", "--json"))
    assert other["spec"]["method"] == {"type": "full"}
    assert other["spec"]["optim"]["epochs"] == 9


def test_spec_can_come_from_standard_input(cli: Run) -> None:
    result = cli("train", "--spec", "-", "--json", input='{"method": {"type": "baseline"}}')
    assert answer(result)["method"] == "baseline"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "does not contain a JSON object"),
        ('{"method": 3}', "not a spec of a run"),
        ('{"optim": 3}', "'optim' in the file is not a JSON object"),
        ('{"optim": {"learning_rate": NaN}}', "not finite"),
    ],
)
def test_invalid_spec_file_is_a_usage_error(
    run: Run, tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "run.json"
    file.write_text(content)
    result = run("train", "--spec", str(file), "--epochs", "1")
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--target", "queries"],
        ["--layers", "one"],
        ["--train-size", "many"],
        ["--variant", "qlora"],
        ["--alpha", "nan"],
        ["--data", "train=a", "--data", "b"],
        ["--out", "somewhere"],
        ["--local"],
        ["--nonsense"],
    ],
)
def test_invalid_options_exit_with_2_without_traceback(run: Run, options: list[str]) -> None:
    result = run("train", *options)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_rejection_prints_code_and_other_invalid_fields(cli: Run) -> None:
    result = cli("train", "--r", "0", "--dropout", "2")
    assert result.exit_code == 3
    first, *fields = result.stderr.splitlines()
    assert first == "error: method.r: must be at least 1. And 1 more. (validation_failed)"
    assert fields == ["  method.dropout: must be less than 1"]
    assert result.stdout == ""


def test_dry_run_rejects_local_files(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "reviews.csv"
    file.write_text("text,label\n")
    result = run("train", "--data", str(file), "--dry-run")  # which keeps nothing
    assert result.exit_code == 2
    assert "datasets upload" in result.stderr


def test_a_job_can_be_listed_shown_and_cancelled(cli: Run) -> None:
    job = submitted(cli, "--name", "first", "--method", "lora")
    other = submitted(cli, "--method", "baseline")
    assert [each["id"] for each in answer(cli("jobs", "list", "--json"))] == [other, job]
    assert [each["id"] for each in answer(cli("jobs", "list", "--limit", "1", "--json"))] == [other]
    of_method = answer(cli("jobs", "list", "--method", "lora", "--json"))
    assert [each["id"] for each in of_method] == [job]
    shown = cli("jobs", "show", job)
    assert "first" in shown.stdout
    assert "queued" in shown.stdout
    assert answer(cli("jobs", "cancel", job, "--json"))["state"] == "cancelled"
    assert answer(cli("jobs", "list", "--state", "queued", "--json"))[0]["id"] == other


def test_a_failed_job_is_retried_and_followed(cli: Run, worker: FakeWorker, tmp_path: Path) -> None:
    job = submitted(cli, "--method", "lora")
    lease = worker.claim()
    worker.fail(lease)
    refused = cli("jobs", "retry", job)
    assert refused.exit_code == 3
    assert "(no_checkpoint)" in refused.stderr

    job = submitted(cli, "--method", "lora")
    lease = worker.claim()
    worker.save(lease, step=5)
    worker.fail(lease)
    retried = cli("jobs", "retry", job)
    assert (retried.exit_code, "Follow it with `loraworks watch" in retried.stdout) == (0, True)
    [new, *_] = answer(cli("jobs", "list", "--json"))
    assert (new["state"], new["continues"]) == ("queued", job)
    worker.fail(worker.claim())

    done = threading.Thread(target=lambda: worker.succeed(worker.claim(), tmp_path / "model"))
    done.start()
    followed = cli("jobs", "retry", new["id"], "--wait", "--json")
    done.join()
    assert answer(followed)["state"] == "succeeded"


def test_retry_without_selected_method_restarts(cli: Run, worker: FakeWorker) -> None:
    job = submitted(cli)
    worker.fail(worker.claim())
    again = answer(cli("jobs", "retry", job, "--json"))
    assert (again["method"], again["continues"], again["step"]) == ("auto", job, 0)


def test_what_a_job_waits_for_is_shown(cli: Run, worker: FakeWorker) -> None:
    job = submitted(cli, "--method", "lora")
    worker.wait(worker.claim())
    shown = cli("jobs", "show", job).stdout
    assert "The disk of node-1 is full. (storage_unavailable)" in shown


def test_lists_span_several_pages(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.json_client.PAGE_SIZE", 2)
    made = [submitted(cli) for _ in range(5)]
    assert [job["id"] for job in answer(cli("jobs", "list", "--json"))] == made[::-1]
    assert len(answer(cli("jobs", "list", "--limit", "3", "--json"))) == 3


def test_running_job_is_stopped_and_cannot_be_deleted(cli: Run, worker: FakeWorker) -> None:
    job = submitted(cli)
    worker.claim()
    assert "Stopping job" in cli("jobs", "cancel", job).stdout
    refused = cli("jobs", "delete", job)
    assert refused.exit_code == 3
    assert "(job_not_finished)" in refused.stderr


def test_queued_job_is_paused_and_resumed(cli: Run) -> None:
    job = submitted(cli)
    assert cli("jobs", "pause", job).stdout == f"Job {job} is paused.\n"
    shown = cli("jobs", "show", job).stdout
    assert "The job is paused until it is resumed. (paused)" in shown
    assert "paused" in cli("jobs", "list").stdout
    assert answer(cli("jobs", "pause", job, "--json"))["paused"] is True
    assert cli("jobs", "resume", job).stdout == f"Job {job} is queued.\n"
    assert answer(cli("jobs", "resume", job, "--json"))["paused"] is False


def test_running_job_is_paused_at_its_next_step(cli: Run, worker: FakeWorker) -> None:
    job = submitted(cli)
    lease = worker.claim()
    assert cli("jobs", "pause", job).stdout == f"Pausing job {job}.\n"
    assert cli("jobs", "resume", job).stdout == f"Job {job} is running.\n"
    cli("jobs", "pause", job)
    with worker.database.write() as session:
        leases.finish_attempt(session, lease, Paused())
    assert cli("jobs", "pause", job).stdout == f"Job {job} is paused.\n"


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_a_finished_job_is_not_paused(cli: Run, command: str) -> None:
    job = submitted(cli)
    cli("jobs", "cancel", job)
    refused = cli("jobs", command, job)
    assert refused.exit_code == 3
    assert "(job_finished)" in refused.stderr


def test_a_finished_job_is_deleted(cli: Run) -> None:
    job = submitted(cli)
    cli("jobs", "cancel", job)
    assert cli("jobs", "delete", job).exit_code == 0
    gone = cli("jobs", "show", job)
    assert gone.exit_code == 3
    assert "(job_not_found)" in gone.stderr


def test_events_and_metrics_are_shown(cli: Run, worker: FakeWorker) -> None:
    job = submitted(cli)
    worker.report(worker.claim(), 10, loss=0.7, accuracy=0.5)
    messages = [event["message"] for event in answer(cli("jobs", "events", job, "--json"))]
    assert messages[-1] == "At 10."
    assert "At 10." in cli("jobs", "events", job).stdout
    points = answer(cli("jobs", "metrics", job, "--split", "train", "--json"))
    assert [(point["name"], point["value"]) for point in points] == [("loss", 0.7)]
    assert "accuracy" in cli("jobs", "metrics", job).stdout


def test_result_is_shown_with_the_linear_model(
    cli: Run, worker: FakeWorker, tmp_path: Path
) -> None:
    job = submitted(cli)
    truth = np.array([0, 1] * 100)
    answers = np.where(np.arange(200) < 160, truth, 1 - truth)
    references = {"linear": ReferencePredictions(np.arange(200), np.zeros(200, dtype=np.int64))}
    task = SingleLabel(("neg", "pos"))
    found = build_verdict(task, truth, answers, references, training_targets=truth)
    tried = CandidateResult(
        method=PROBE_CANDIDATES[0], folds=5, repeats=5, texts=90, value=0.81, accuracy=0.81,
        low=0.7, high=0.9, macro_f1=0.8, seconds=3.0,
    )  # fmt: skip
    selection = MethodSelection(texts=90, chosen=0, candidates=(tried,))
    worker.succeed(
        worker.claim(),
        tmp_path / "made",
        verdict=found.model_dump(mode="json"),
        selection=selection.model_dump(mode="json"),
    )
    shown = cli("jobs", "show", job).stdout
    assert "82.3%" in shown
    assert "74.4%" in shown
    assert found.headline in shown
    assert "30.0 points better than linear" in shown
    assert re.search(r"chosen +probe C 3, balanced +81.0% +70.0% to 90.0%", shown)
    sentence = "Temperature 1.40 changes the calibration error on the test split from 7.1% to 2.4%"
    assert f"{sentence}, and the loss from 0.410 to 0.390." in " ".join(shown.split())


def test_model_is_downloaded_and_verified(cli: Run, worker: FakeWorker, tmp_path: Path) -> None:
    job = submitted(cli)
    before = cli("jobs", "download", job, "--out", str(tmp_path / "early"))
    assert before.exit_code == 2
    assert "(no_artifact)" in before.stderr
    worker.succeed(worker.claim(), tmp_path / "made")
    out = tmp_path / "model"
    assert cli("jobs", "download", job, "--out", str(out)).exit_code == 0
    assert manifest.verify(out)["metrics"]["test"]["accuracy"] == 0.823
    again = cli("jobs", "download", job, "--out", str(out))
    assert again.exit_code == 2
    assert "(output_exists)" in again.stderr


def test_metrics_are_not_called_a_model(
    cli: Run, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = submitted(cli)

    def make_metrics(directory: Path, **facts: Any) -> None:
        directory.mkdir()
        (directory / "predictions.json").touch()
        manifest.create_and_save(directory, facts)

    monkeypatch.setattr("tests.app.cli.conftest.make_artifact", make_metrics)
    worker.succeed(worker.claim(), tmp_path / "made")
    out = tmp_path / "metrics"
    saved = cli("jobs", "download", job, "--out", str(out)).stdout
    assert saved == f"Saved the metrics to {out}. The job kept no model.\n"


def test_a_broken_download_leaves_nothing(
    cli: Run, url: str, worker: FakeWorker, tmp_path: Path
) -> None:
    submitted(cli)
    artifact = worker.succeed(worker.claim(), tmp_path / "made")
    with Client(url) as client, client.download_artifact(artifact) as chunks:
        half = b"".join(chunks)[:2000]
    folder = tmp_path / "out"
    with pytest.raises(ServiceUnreachableOrFailed, match="incomplete"):
        unpack_artifact(iter([half]), folder / "model")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [["jobs", "show"], ["jobs", "cancel"], ["jobs", "pause"], ["jobs", "resume"], ["watch"]],
)
def test_unknown_job_is_rejected(cli: Run, command: list[str]) -> None:
    result = cli(*command, str(uuid4()))
    assert result.exit_code == 3
    assert "(job_not_found)" in result.stderr


def test_an_id_is_never_a_path(cli: Run) -> None:
    result = cli("jobs", "show", "../models")
    assert result.exit_code == 3
    assert "Traceback" not in result.output


def test_json_output_escapes_control_characters(cli: Run) -> None:
    name = "Käse\x7f\x9b31m\x85\u202e\U000e0001"
    job = submitted(cli, "--name", name)
    cli("jobs", "cancel", job)
    shown = cli("jobs", "show", job, "--json")
    assert answer(shown)["name"] == name  # for programs it is the same
    assert "Käse" in shown.stdout
    for printed in (shown.stdout, cli("watch", job, "--json").stdout):
        assert "Käse" in printed
        assert all(sign.isprintable() or sign == "\n" for sign in printed)
