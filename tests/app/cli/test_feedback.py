"""`loraworks feedback`, `forget` and `models live-accuracy` against a running service."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from app.cli import feedback
from app.database.engines import Database
from app.main import create_app
from app.queue.enums import JobKind, JobState
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef
from app.storage.tables import RESULTS_KIND
from tests.app.cli.conftest import Run, answer
from tests.app.serving.conftest import Publish, publish
from tests.job_rows import add_job
from tests.kept_predictions import add_prediction, kept_predictions

__all__ = ["publish"]


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """The application, which keeps texts."""
    changes = {"log_level": "ERROR", "keep_traffic": "texts"}
    return create_app(settings.model_copy(update=changes))


def test_review_add_and_estimate(cli: Run, publish: Publish, database: Database) -> None:
    publish()
    assert "No feedback on sentiment" in cli("feedback", "list", "sentiment").stdout
    assert "loraworks feedback review" in cli("models", "live-accuracy", "sentiment").stdout
    for _ in range(3):
        add_prediction(database)
    shown = cli("feedback", "review", "sentiment", "--count", "2")
    assert shown.exit_code == 0, shown.output
    sample = answer(cli("feedback", "review", "sentiment", "--count", "2", "--json"))
    first, second = (each["prediction_id"] for each in sample["data"])
    assert first in shown.stdout
    added = cli("feedback", "add", "--prediction", first, "--label", "bad", "--by", "ada")
    assert "1 created, 0 updated, 0 unchanged." in added.stdout
    cli("feedback", "add", "--prediction", second, "--label", "good")
    listed = cli("feedback", "list", "sentiment")
    assert "local/ada" in listed.stdout
    (live,) = answer(cli("models", "live-accuracy", "sentiment", "--json"))
    assert (live["labeled"], live["estimate"]["value"]) == (2, 0.5)
    shown = cli("models", "live-accuracy", "sentiment", "--days", "7")
    assert "50.0%" in " ".join(shown.stdout.split()), shown.output
    made = cli("feedback", "export", "sentiment", "--name", "fixes")
    assert "fixes:1 has 2 texts" in made.stdout, made.output
    assert answer(cli("feedback", "export", "sentiment", "--json"))["ref"] == "sentiment-feedback:1"
    feedback_id = answer(cli("feedback", "list", "sentiment", "--json"))[0]["id"]
    assert cli("feedback", "rm", feedback_id).exit_code == 0
    assert len(answer(cli("feedback", "list", "sentiment", "--json"))) == 1


def test_add_a_file(cli: Run, publish: Publish, tmp_path: Path) -> None:
    publish()
    file = tmp_path / "feedback.jsonl"
    items = [
        {"text": "one", "model": "sentiment", "label": label} for label in ("bad", "good", "ugly")
    ]
    file.write_text("\n".join(map(json.dumps, items)) + "\n\n")
    added = cli("feedback", "add", "--file", str(file))
    assert added.exit_code == 1
    assert "Line 3 failed: sentiment:1 has no label 'ugly'." in " ".join(added.stdout.split())
    assert "1 created, 1 updated, 0 unchanged." in added.stdout


def test_a_large_file_is_sent_in_parts_below_the_limit_of_a_body(
    cli: Run, publish: Publish, tmp_path: Path
) -> None:
    publish()
    file = tmp_path / "feedback.jsonl"
    item = {"model": "sentiment", "label": "bad"}
    items = [{"text": f"{i} {'x' * 90_000}", **item} for i in range(25)]
    items[23]["label"] = "ugly"
    file.write_text("\n".join(map(json.dumps, items)))
    added = cli("feedback", "add", "--file", str(file), "--json")
    assert [each["index"] for each in json.loads(added.stdout)] == list(range(25))
    again = cli("feedback", "add", "--file", str(file))
    assert (added.exit_code, again.exit_code) == (1, 1)
    assert "Line 24 failed" in again.stdout
    assert "0 created, 0 updated, 24 unchanged." in again.stdout


def test_what_was_stored_before_an_error_is_printed(
    cli: Run, publish: Publish, tmp_path: Path
) -> None:
    publish()
    file = tmp_path / "feedback.jsonl"
    item = {"model": "sentiment", "label": "bad"}
    items = [{"text": f"{i % 2}", **item} for i in range(1000)]
    items[0]["label"] = "ugly"
    file.write_text("\n".join(map(json.dumps, [*items, {"text": 1}])))
    added = cli("feedback", "add", "--file", str(file))
    assert (added.exit_code, "(validation_failed)" in added.stderr) == (3, True)
    assert "Line 1 failed" in added.stdout
    assert "2 created, 0 updated, 997 unchanged." in added.stdout


def test_errors_name_the_lines_of_the_file(
    cli: Run, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in later batches, and after blank lines."""
    publish()
    monkeypatch.setattr(feedback, "MAX_ITEMS", 2)
    file = tmp_path / "feedback.jsonl"
    labels = ("bad", "ugly", "bad", "", " ")
    item = {"model": "sentiment"}
    items: list[Any] = [{**item, "text": f"{i}", "label": label} for i, label in enumerate(labels)]
    file.write_text("\n\n".join(map(json.dumps, items)))
    added = cli("feedback", "add", "--file", str(file))
    assert added.exit_code == 3
    assert "Line 3 failed: sentiment:1 has no label 'ugly'." in " ".join(added.stdout.split())
    assert "error: line 7, label: " in added.stderr
    items[3]["label"] = "bad"
    items[4] = {"text": 1, "model": 2}
    file.write_text("\n\n".join(map(json.dumps, items)))
    added = cli("feedback", "add", "--file", str(file))
    assert "error: line 9, " in added.stderr
    assert "\n  line 9, " in added.stderr


def test_a_file_of_another_editor(cli: Run, publish: Publish, tmp_path: Path) -> None:
    """It starts with a byte order mark, and a string has the line separator of Unicode."""
    publish()
    file = tmp_path / "feedback.jsonl"
    item = {"text": "one\u2028two\x85three", "model": "sentiment", "label": "bad"}
    file.write_text(json.dumps(item, ensure_ascii=False) + "\r\n", encoding="utf-8-sig")
    added = cli("feedback", "add", "--file", str(file))
    assert "1 created, 0 updated, 0 unchanged." in added.stdout, added.output


@pytest.mark.parametrize("through_stdin", [False, True])
def test_a_text_in_a_file_is_forgotten_with_its_line_ends(
    through_stdin: bool, cli: Run, publish: Publish, tmp_path: Path
) -> None:
    publish()
    text = "a canary\r\nin two lines"
    cli("feedback", "add", "--text", text, "--model", "sentiment", "--label", "bad")
    file = tmp_path / "text"
    file.write_bytes(text.encode() + b"\n")
    name = "-" if through_stdin else str(file)
    forgotten = cli("forget", "--text-file", name, "--json", input=text if through_stdin else None)
    assert answer(forgotten)["removed"]["feedback"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("feedback", "add", "--text", "x"), 3, "validation_failed"),
        (("feedback", "add", "--file", "FILE", "--text", "x"), 2, "wrong_options"),
        (("feedback", "add", "--file", "EMPTY"), 2, "no_items"),
        (("feedback", "add", "--file", "BROKEN"), 2, "not_json"),
        (("feedback", "add", "--file", "LATIN"), 2, "not_utf8"),
        (("forget", "--text-file", "LATIN"), 2, "not_utf8"),
        (("feedback", "review", "missing"), 3, "model_not_found"),
        (("feedback", "export", "missing"), 3, "model_not_found"),
        (("feedback", "rm", "x"), 3, "feedback_not_found"),
        (("models", "live-accuracy", "missing"), 3, "model_not_found"),
        (("forget",), 2, "wrong_options"),
        (("forget", "--text", "x", "--text-file", "FILE"), 2, "wrong_options"),
        (("forget", "--text", "x", "--prediction", "y"), 2, "wrong_options"),
        (("forget", "--prediction", "0" * 32), 3, "prediction_unknown"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...], code: int, message: str, cli: Run, tmp_path: Path
) -> None:
    contents = {"FILE": b"{}\n", "EMPTY": b"\n", "BROKEN": b"{", "LATIN": b'{"text": "\xe9"}'}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / each) if each in contents else each for each in arguments]
    result = cli(*paths)
    assert (result.exit_code, message in result.stderr) == (code, True), result.output


def test_forget(cli: Run, publish: Publish, database: Database, tmp_path: Path) -> None:
    publish()
    add_prediction(database)
    cli("feedback", "add", "--text", "a canary", "--model", "sentiment", "--label", "bad")
    cli("feedback", "add", "--text", "another", "--model", "sentiment", "--label", "good")
    cli("feedback", "export", "sentiment")
    file = tmp_path / "text"
    file.write_text("a canary\n")
    forgotten = cli("forget", "--text-file", str(file))
    assert forgotten.exit_code == 0, forgotten.output
    lines = " ".join(forgotten.stdout.split())
    assert "feedback removed 1" in lines
    assert "sentiment-feedback:1 1" in lines
    dataset = answer(cli("datasets", "list", "--json"))[0]
    with database.write() as session:
        ref = ArtifactRef("jobs/a/a1", "0" * 64, bytes=1)
        artifact = artifacts.add_artifact(session, job_id=None, kind=RESULTS_KIND, ref=ref)
    fields = {"state": JobState.SUCCEEDED, "finished_at": 1.0, "artifact_id": artifact.id}
    sources = {"all": dataset["id"]}
    run_id = add_job(database, kind=JobKind.PREDICTION, dataset_ids=sources, **fields)
    readers = f"Jobs and prediction runs that read these datasets: {run_id}."
    assert readers in cli("forget", "--text-file", str(file)).stdout
    cli("datasets", "delete", "sentiment-feedback:1")
    lines = " ".join(cli("forget", "--text-file", str(file)).stdout.split())
    has = f"prediction run {run_id} has all its texts"
    assert f"sentiment-feedback:1 is deleted, but {has}." in lines
    prediction = kept_predictions(database)[0].prediction_id.hex
    result = answer(cli("forget", "--prediction", prediction, "--no-search", "--json"))
    assert (result["removed"]["predictions"], result["searched"]) == (1, False)
