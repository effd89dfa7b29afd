"""What is taken out of a sweep: files, and the model of a cell."""

import csv
import io
import json
import threading
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.queue.tables import Job
from tests.app.cli.conftest import CellWorker, FakeWorker, Run, answer


@pytest.fixture
def sweep(cli: Run, cell_worker: CellWorker) -> str:
    """Finished, over three ranks."""
    started = answer(
        cli("sweep", "start", "--spec", "-", "--over", "r=2,4,8", "--json",
            input='{"method": {"type": "lora"}, "result": {"train_figures": true}}')
    )  # fmt: skip
    assert cell_worker.work() == 3
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


def test_results_txt_is_that_of_the_lessons(cli: Run, sweep: str) -> None:
    told = cli("sweep", "results", sweep, "--format", "txt").stdout
    assert told.count("lora_r: ") == 3
    assert "Val acc:   88.00%" in told


def test_json_is_the_cells_by_number(cli: Run, sweep: str) -> None:
    cells = answer(cli("sweep", "results", sweep, "--format", "json"))
    assert [cell["number"] for cell in cells] == [1, 2, 3]
    assert cells[2]["figures"]["test"]["accuracy"] == 0.88


@pytest.mark.parametrize("format", ["csv", "txt", "json"])
def test_a_file_has_the_same_bytes(cli: Run, sweep: str, tmp_path: Path, format: str) -> None:
    out = tmp_path / f"results.{format}"
    told = cli("sweep", "results", sweep, "--format", format, "--out", str(out))
    assert told.stdout == f"The results are in {out}.\n"
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


def test_no_file_is_written_over(cli: Run, sweep: str, tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    out.write_text("mine")
    refused = cli("sweep", "results", sweep, "--out", str(out))
    assert refused.exit_code == 2
    assert "(out_exists)" in refused.stderr
    assert out.read_text() == "mine"
    nowhere = cli("sweep", "results", sweep, "--out", str(tmp_path / "no" / "results.csv"))
    assert nowhere.exit_code == 2
    assert "(no_folder)" in nowhere.stderr


def promoted(worker: FakeWorker, job_id: str) -> tuple[dict[str, Any], str | None, str | None]:
    with worker.database.read() as session:
        job = session.get_one(Job, UUID(job_id))
        return job.spec["method"], job.register_as, job.promote_to


def test_the_winner_becomes_the_version_that_answers(
    cli: Run, sweep: str, worker: FakeWorker, tmp_path: Path
) -> None:
    def make() -> None:
        worker.succeed(worker.claim(), tmp_path / "made", register_as="sentiment")

    thread = threading.Thread(target=make)
    thread.start()
    result = cli("sweep", "promote", sweep, "sentiment")
    thread.join()
    assert result.exit_code == 0
    assert result.stdout == "sentiment:1 answers as sentiment.\n"
    [job] = answer(cli("jobs", "list", "--limit", "1", "--json"))
    method, model, alias = promoted(worker, job["id"])
    assert (method["r"], model, alias) == (8, "sentiment", "production")


def test_another_cell_can_be_promoted_to_another_alias_without_waiting(
    cli: Run, sweep: str, worker: FakeWorker
) -> None:
    options = ("--cell", "1", "--alias", "candidate", "--no-wait")
    job = answer(cli("sweep", "promote", sweep, "sentiment", *options, "--json"))
    assert job["state"] == "queued"
    method, model, alias = promoted(worker, job["id"])
    assert (method["r"], model, alias) == (2, "sentiment", "candidate")
    told = cli("sweep", "promote", sweep, "other", "--no-wait").stdout
    assert "`loraworks watch " in told


def test_a_version_is_only_registered(
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
    assert "`loraworks models promote sentiment:2` lets it answer" in result.stdout


@pytest.mark.parametrize("as_json", [False, True])
def test_a_job_that_fails_ends_with_1_and_its_error(
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


def test_what_cannot_be_promoted_is_refused(cli: Run, sweep: str) -> None:
    empty = answer(cli("sweep", "start", "--over", "r=16", "--json"))["id"]
    for arguments, code in (
        ([empty, "sentiment"], "nothing_to_promote"),
        ([sweep, "sentiment", "--cell", "9"], "cell_not_found"),
        ([sweep, "No Slug"], "validation_failed"),
    ):
        refused = cli("sweep", "promote", *arguments)
        assert refused.exit_code == 3
        assert f"({code})" in refused.stderr
    assert cli("sweep", "promote", sweep, "sentiment", "--cell", "0").exit_code == 2
