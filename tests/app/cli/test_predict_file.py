"""`loraworks predict --file … --out …` and `loraworks predictions …`."""

import csv
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from app.cli import prediction_runs
from app.cli.errors import ServiceUnreachableOrFailed
from app.queue import leases
from app.queue.enums import JobState
from app.queue.tables import Job
from app.queue.transitions import PermanentFailure
from app.resources import Resources
from tests.app.cli.conftest import Run, answer
from tests.app.predictions.conftest import TEXTS, model, predicted_rows, store_results
from tests.job_rows import claim_next
from tests.prediction_rows import create_run
from tests.waiting import wait_until

__all__ = ["model"]

pytestmark = pytest.mark.usefixtures("model")
Serve = Callable[[], None]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.csv"
    path.write_text(TEXTS)
    return path


def queued(resources: Resources) -> bool:
    with resources.database.read() as session:
        return session.scalar(select(Job.id).where(Job.state == JobState.QUEUED)) is not None


@pytest.fixture
def served(resources: Resources, tmp_path: Path) -> Serve:
    """Run a worker in the background for one run."""
    threads: list[threading.Thread] = []

    def work() -> None:
        wait_until(lambda: queued(resources))
        store_results(resources, tmp_path / "results")

    def start() -> None:
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    return start


def test_file_is_downloaded_with_predictions(
    cli: Run, served: Serve, file: Path, tmp_path: Path
) -> None:
    served()
    out = tmp_path / "labeled.csv"
    result = cli("predict", "--file", str(file), "--out", str(out), "--text-column", "body")
    assert result.exit_code == 0, result.output
    with out.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["id"], row["predicted_label"]) for row in rows] == [("1", "good"), ("2", "bad")]
    assert "reviews-to-predict:1 by sentiment:1: succeeded" in result.stderr
    assert "good 1, bad 1" in result.stdout
    assert f"Saved the results to {out}." in result.stdout
    assert sorted(each.name for each in tmp_path.glob("*labeled*")) == ["labeled.csv"]


@pytest.mark.parametrize("named", ["My Lines.txt", "-"])
def test_text_file_is_predicted_line_by_line(
    cli: Run, client: TestClient, served: Serve, tmp_path: Path, named: str
) -> None:
    text = '\ufeffso "bad"\r\n\n  été\x0band a page\n'  # one text on each line
    file, ref = tmp_path / named, "my-lines-to-predict"
    if named == "-":
        file, ref = Path("-"), "stdin-to-predict"
    else:
        file.write_bytes(text.encode())
    served()
    out = tmp_path / "labeled.jsonl"
    result = cli("predict", "--file", str(file), "--out", str(out), input=text)
    assert result.exit_code == 0, result.output
    assert f"{ref}:1 by sentiment:1: succeeded" in result.stderr
    assert out.exists()
    sent = client.get(f"/v1/datasets/{ref}/content").text.splitlines()
    assert [json.loads(row) for row in sent] == [
        {"text": 'so "bad"'},
        {"text": "  été\x0band a page"},
    ]


def test_json_contains_run_and_file(cli: Run, served: Serve, file: Path, tmp_path: Path) -> None:
    served()
    out = tmp_path / "labeled.jsonl"
    response = answer(
        cli(
            "predict", "--file", str(file), "--out", str(out), "--text-column", "body",
            "--model", "sentiment:1", "--json",
        )
    )  # fmt: skip
    assert (response["state"], response["model"], response["out"]) == (
        "succeeded",
        "sentiment:1",
        str(out),
    )
    assert [json.loads(line) for line in out.read_text().splitlines()] == predicted_rows()


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [(KeyboardInterrupt(), 130), (ServiceUnreachableOrFailed("gone", "unreachable"), 4)],
)
def test_run_continues_without_the_command_and_can_be_resumed(
    error: BaseException,
    exit_code: int,
    cli: Run,
    resources: Resources,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise error

    out = tmp_path / "labeled.csv"
    arguments = ("predict", "--file", str(file), "--out", str(out), "--text-column", "body")
    with monkeypatch.context() as patch:
        patch.setattr(prediction_runs, "_watch", interrupt)
        left = cli(*arguments)
    assert left.exit_code == exit_code
    [run] = answer(cli("predictions", "list", "--json"))
    assert f"loraworks predict --resume {run['id']} --out {out}" in left.stderr
    assert f"loraworks predictions cancel {run['id']}" in left.stderr
    assert run["state"] == "queued"
    store_results(resources, tmp_path / "results")
    back = cli("predict", "--resume", run["id"], "--out", str(out))
    assert back.exit_code == 0, back.output
    assert len(out.read_text().splitlines()) == 3
    out.unlink()
    monkeypatch.setattr(prediction_runs, "download_results", interrupt)
    cut = cli("predict", "--resume", run["id"], "--out", str(out))
    assert cut.exit_code == exit_code
    assert f"loraworks predict --resume {run['id']} --out {out}" in cut.stderr


def test_failed_or_cancelled_run_exits_with_1(
    cli: Run, resources: Resources, file: Path, tmp_path: Path
) -> None:
    dataset = answer(
        cli("datasets", "upload", str(file), "--purpose", "predict", "--text-column", "body",
            "--json")
    )  # fmt: skip
    assert dataset["labels"] == {}
    out = tmp_path / "labeled.csv"
    run = str(create_run(resources, dataset=dataset["ref"]))
    cancelled = answer(cli("predictions", "cancel", run, "--json"))
    assert cancelled["state"] == "cancelled"
    result = cli("predict", "--resume", run, "--out", str(out))
    assert (result.exit_code, "(run_cancelled)" in result.stderr) == (1, True)
    failed = create_run(resources, dataset=dataset["ref"])
    with resources.database.write() as session:
        ending = PermanentFailure("reserved_column", "reviews has a column.", {})
        leases.finish_attempt(session, claim_next(resources.database).lease, ending)
    result = cli("predict", "--resume", str(failed), "--out", str(out))
    assert (result.exit_code, "reviews has a column. (reserved_column)" in result.stderr) == (
        1,
        True,
    )
    assert not out.exists()


def test_runs_are_listed_shown_downloaded_and_deleted(
    cli: Run, resources: Resources, file: Path, tmp_path: Path
) -> None:
    assert "No prediction runs." in cli("predictions", "list").stdout
    uploaded = cli("datasets", "upload", str(file), "--purpose", "predict", "--text-column", "body")
    assert uploaded.exit_code == 0, uploaded.output
    run = str(create_run(resources, dataset="reviews-to-predict"))
    assert run in cli("predictions", "list").stdout
    assert "0/3" in cli("predictions", "show", run).stdout
    early = cli("predictions", "download", run, "--out", str(tmp_path / "a.csv"))
    assert (early.exit_code, "(no_results)" in early.stderr) == (3, True)
    assert list(tmp_path.glob("*a.csv*")) == []
    store_results(resources, tmp_path / "results")
    assert "good 1, bad 1" in cli("predictions", "show", run).stdout
    done = cli("predictions", "download", run, "--out", str(tmp_path / "a.jsonl"))
    assert done.exit_code == 0, done.output
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 2
    for command, name in (("download", "tasks.json"), ("labeling-config", "config.xml")):
        done = cli("predictions", command, run, "--out", str(tmp_path / name))
        assert done.exit_code == 0, done.output
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [each["predictions"][0]["model_version"] for each in tasks] == ["sentiment:1"] * 2
    assert 'value="$body"' in (tmp_path / "config.xml").read_text()
    assert cli("predictions", "delete", run).exit_code == 0
    assert cli("predictions", "show", run).exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--out", "a.txt", "--file", "f.csv"), "out_format"),
        (("--out", "there.csv", "--file", "f.csv"), "output_exists"),
        (("--out", "none/a.csv", "--file", "f.csv"), "no_folder"),
        (("--out", "a.csv", "--file", "none.csv"), "no_file"),
        (("--out", "a.csv"), "no_file"),
        (("--out", "a.csv", "--file", "f.csv", "a text"), "wrong_options"),
        (("--out", "a.csv", "--file", "f.csv", "--no-truncate"), "wrong_options"),
        (("--out", "a.csv", "--file", "f.csv", "--resume", "1"), "wrong_options"),
        (("--out", "a.csv", "--file", "f.txt", "--text-column", "body"), "wrong_options"),
        (("--out", "a.csv", "--file", "empty.txt"), "no_text"),
        (("--resume", "1"), "wrong_options"),
        (("--file", "f.csv", "--text-column", "body"), "wrong_options"),
    ],
)
def test_usage_errors_are_found_before_any_request(
    cli: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n \n")
    for name in ("f.csv", "there.csv", "f.txt"):
        Path(name).write_text(TEXTS)
    result = cli("predict", *arguments)
    assert (result.exit_code, f"({code})" in result.stderr) == (2, True), result.output
    assert answer(cli("datasets", "list", "--json")) == []
