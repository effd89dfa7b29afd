"""Exports of a sweep, and the promotion of a trial."""

import csv
import io
import json
import threading
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.queue.tables import Job
from tests.app.cli.conftest import FakeWorker, Run, SweepJobWorker, answer


@pytest.fixture
def sweep(cli: Run, sweep_job_worker: SweepJobWorker) -> str:
    """A finished sweep over three ranks."""
    started = answer(
        cli("sweep", "start", "--spec", "-", "--over", "r=2,4,8", "--json",
            input='{"method": {"type": "lora"}, "result": {"train_metrics": true}}')
    )  # fmt: skip
    assert sweep_job_worker.run_jobs() == 3
    return str(started["id"])


def test_a_table_goes_to_standard_output(cli: Run, sweep: str) -> None:
    rows = list(csv.DictReader(io.StringIO(cli("sweep", "results", sweep).stdout)))
    assert [(row["number"], row["method.r"]) for row in rows] == [
        ("1", "2"),
        ("2", "4"),
        ("3", "8"),
    ]
    found = [float(row["validation_accuracy"]) for row in rows]
    assert found == pytest.approx([0.82, 0.84, 0.88])


def test_results_txt_matches_the_lessons(cli: Run, sweep: str) -> None:
    output = cli("sweep", "results", sweep, "--format", "txt").stdout
    assert output.count("lora_r: ") == 3
    assert "Val acc:   88.00%" in output


def test_json_lists_trials_by_number(cli: Run, sweep: str) -> None:
    trials = answer(cli("sweep", "results", sweep, "--format", "json"))
    assert [trial["number"] for trial in trials] == [1, 2, 3]
    assert trials[2]["metrics"]["test"]["accuracy"] == 0.88


@pytest.mark.parametrize("format", ["csv", "txt", "json"])
def test_a_file_has_the_same_bytes(cli: Run, sweep: str, tmp_path: Path, format: str) -> None:
    out = tmp_path / f"results.{format}"
    result = cli("sweep", "results", sweep, "--format", format, "--out", str(out))
    assert result.stdout == f"Saved the results to {out}.\n"
    printed = cli("sweep", "results", sweep, "--format", format).stdout_bytes
    assert out.read_bytes() == printed
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == [out.name]


def test_the_report_needs_a_file(cli: Run, sweep: str, tmp_path: Path) -> None:
    refused = cli("sweep", "results", sweep, "--format", "html")
    assert refused.exit_code == 2
    assert "(no_out)" in refused.stderr
    out = tmp_path / "report.html"
    assert cli("sweep", "results", sweep, "--format", "html", "--out", str(out)).exit_code == 0
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_existing_file_is_not_overwritten(cli: Run, sweep: str, tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    out.write_text("mine")
    refused = cli("sweep", "results", sweep, "--out", str(out))
    assert refused.exit_code == 2
    assert "(output_exists)" in refused.stderr
    assert out.read_text() == "mine"
    nowhere = cli("sweep", "results", sweep, "--out", str(tmp_path / "no" / "results.csv"))
    assert nowhere.exit_code == 2
    assert "(no_folder)" in nowhere.stderr


def promoted(worker: FakeWorker, job_id: str) -> tuple[dict[str, Any], str | None, str | None]:
    with worker.database.read() as session:
        job = session.get_one(Job, UUID(job_id))
        return job.spec["method"], job.register_as, job.promote_to


def test_winner_is_promoted(cli: Run, sweep: str, worker: FakeWorker, tmp_path: Path) -> None:
    def make() -> None:
        worker.succeed(worker.claim(), tmp_path / "made", register_as="sentiment")

    thread = threading.Thread(target=make)
    thread.start()
    result = cli("sweep", "promote", sweep, "sentiment")
    thread.join()
    assert result.exit_code == 0
    assert result.stdout == "Registered sentiment:1 and moved alias sentiment@production to it.\n"
    [job] = answer(cli("jobs", "list", "--limit", "1", "--json"))
    method, model, alias = promoted(worker, job["id"])
    assert (method["r"], model, alias) == (8, "sentiment", "production")


def test_other_trial_and_alias_without_waiting(cli: Run, sweep: str, worker: FakeWorker) -> None:
    options = ("--trial", "1", "--alias", "candidate", "--no-wait")
    job = answer(cli("sweep", "promote", sweep, "sentiment", *options, "--json"))
    assert job["state"] == "queued"
    method, model, alias = promoted(worker, job["id"])
    assert (method["r"], model, alias) == (2, "sentiment", "candidate")
    output = cli("sweep", "promote", sweep, "other", "--no-wait").stdout
    assert "`loraworks watch " in output


def test_no_alias_only_registers_the_version(
    cli: Run, sweep: str, worker: FakeWorker, tmp_path: Path
) -> None:
    job = answer(cli("sweep", "promote", sweep, "sentiment", "--no-alias", "--no-wait", "--json"))
    assert promoted(worker, job["id"])[2] is None

    def make() -> None:
        for number in range(2):
            worker.succeed(worker.claim(), tmp_path / f"made-{number}", register_as="sentiment")

    thread = threading.Thread(target=make)
    thread.start()
    result = cli("sweep", "promote", sweep, "sentiment", "--no-alias")
    thread.join()
    assert result.exit_code == 0
    assert "Deploy it with `loraworks models promote sentiment:2`" in result.stdout


@pytest.mark.parametrize("as_json", [False, True])
def test_failed_job_exits_with_1_and_its_error(
    cli: Run, sweep: str, worker: FakeWorker, as_json: bool
) -> None:
    thread = threading.Thread(target=lambda: worker.fail(worker.claim()))
    thread.start()
    result = cli("sweep", "promote", sweep, "sentiment", *(["--json"] if as_json else []))
    thread.join()
    assert result.exit_code == 1
    assert "Only one label. (one_class)" in result.stderr
    assert (json.loads(result.stdout)["state"] if as_json else result.stdout) == (
        "failed" if as_json else ""
    )


def test_invalid_promotions_are_rejected(cli: Run, sweep: str) -> None:
    empty = answer(cli("sweep", "start", "--over", "r=16", "--json"))["id"]
    for arguments, code in (
        ([empty, "sentiment"], "nothing_to_promote"),
        ([sweep, "sentiment", "--trial", "9"], "trial_not_found"),
        ([sweep, "No Slug"], "validation_failed"),
    ):
        refused = cli("sweep", "promote", *arguments)
        assert refused.exit_code == 3
        assert f"({code})" in refused.stderr
    assert cli("sweep", "promote", sweep, "sentiment", "--trial", "0").exit_code == 2
