"""`loraworks predict` against a running service with a small real model."""

import re
from pathlib import Path
from typing import Any

import pytest

from app.cli import predict
from app.cli.client import Client
from app.cli.errors import RequestRejected
from app.cli.output import format_value
from app.registry import service as registry
from app.resources import Resources
from app.serving.schemas import LabelScore
from app.storage import repository as artifacts
from lora_core.specs.encoded_labels import NUMBER
from tests.app.cli.conftest import Run, answer
from tests.example_index import add_example_index
from tests.job_rows import MANIFEST, SPEC, add_job
from tests.stored_artifact import store_artifact
from tests.tiny_artifact import make_artifact


@pytest.fixture
def promoted(resources: Resources, tmp_path: Path) -> str:
    """A promoted version that predicts `good` for every text."""
    ref = resources.store.move_directory_into_store(make_artifact(tmp_path / "made"), "jobs/one/a1")
    with resources.database.write() as session:
        artifact = artifacts.add_artifact(session, job_id=None, kind="model", ref=ref)
        registry.add_version(session, name="sentiment", artifact=artifact, manifest=MANIFEST)
        registry.move_alias(session, name="sentiment", alias="production", number=1)
    return "sentiment:1"


def test_texts_get_their_labels(cli: Run, promoted: str) -> None:
    result = cli("predict", "a good film", "a dull plot")
    assert result.exit_code == 0
    assert promoted in result.stdout
    assert result.stdout.count("good  ") == 2


def test_json_contains_all_labels_and_the_version(
    cli: Run, promoted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "BATCH_SIZE", 2)
    file = tmp_path / "texts"
    file.write_text("one\n\ntwo\nthree\n")
    response = answer(cli("predict", "zero", "--file", str(file), "--model", "sentiment", "--json"))
    assert response["model"] == promoted
    assert [each["text"] for each in response["predictions"]] == ["zero", "one", "two", "three"]
    assert [score["label"] for score in response["predictions"][0]["labels"]] == ["good", "bad"]


def test_requests_have_no_more_texts_than_the_service_takes(
    cli_of_two_inputs: Run, promoted: str
) -> None:
    response = answer(cli_of_two_inputs("predict", "zero", "one", "two", "--json"))
    assert response["model"] == promoted
    assert [each["text"] for each in response["predictions"]] == ["zero", "one", "two"]


@pytest.mark.parametrize("method", ["predict", "explain"])
def test_a_rate_limit_between_batches_is_waited_out(
    cli: Run, promoted: str, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(predict, "BATCH_SIZE", 1)
    request, busy = getattr(Client, method), iter([False, True, True, False])

    def sometimes(*arguments: Any, **more: Any) -> Any:
        if next(busy):
            raise RequestRejected("full", "rate_limit_exceeded", 429, (), 0.001)
        return request(*arguments, **more)

    monkeypatch.setattr(Client, method, sometimes)
    response = answer(cli("predict", "zero", "one", "--explain", "--json"))
    assert [each["text"] for each in response["predictions"]] == ["zero", "one"]


@pytest.mark.parametrize(
    ("score", "low", "shown"),
    [(123456.7, 99999.0, ("123,457", "99,999 to 123,457")), (0.51234, None, ("0.5123", "-"))],
)
def test_numbers_keep_their_whole_digits(
    score: float, low: float | None, shown: tuple[str, str]
) -> None:
    high = None if low is None else score
    scores = [LabelScore(label=NUMBER, score=score, low=low, high=high)]
    cells = predict._prediction_cells("regression", scores)
    assert tuple(map(format_value, cells)) == shown
    assert predict._summarize(scores) == shown[0]


def test_explanation_lists_words(cli: Run, promoted: str) -> None:
    predictions = answer(cli("predict", "a good film", "fine", "--explain", "--json"))[
        "predictions"
    ]
    assert [word["text"] for word in predictions[0]["explanation"]["words"]] == [
        "a",
        "good",
        "film",
    ]
    [only] = predictions[1]["explanation"]["words"]
    shown = cli("predict", "a good film", "fine", "--explain").stdout
    assert "words of: a good film" in shown
    assert f"{100 * only['score']:+.1f}  fine" in shown
    assert "explanation" not in answer(cli("predict", "fine", "--json"))["predictions"][0]


def test_explanation_shows_similar_training_examples(
    cli: Run, resources: Resources, tmp_path: Path
) -> None:
    spec = {**SPEC, "data": {**SPEC["data"], "source": "hub:owner/name"}}
    directory, job_id = make_artifact(tmp_path / "made"), add_job(resources.database, spec=spec)
    texts = ("a good film",) * 5 + ("a dull plot",) * 5
    add_example_index(directory, texts, ("good",) * 5 + ("bad",) * 5, held_out=[0.9985] * 99)
    artifact = store_artifact(resources, directory, f"jobs/{job_id}/a1", job_id=job_id)
    with resources.database.write() as session:
        registry.add_version(session, name="sentiment", artifact=artifact, manifest=MANIFEST)
    asked = ("predict", "a dull plot", "unlike", "--model", "sentiment:1", "--explain")
    result = cli(*asked)
    assert "training examples similar to: a dull plot" in result.stdout
    row = r"(?m)^ *(0\.999\d|1\.000\d)  bad +6  \(its data are not stored on the server\)"
    assert re.search(row, result.stdout)
    assert "'unlike' is unlike anything that the model was trained on" in result.stderr
    assert "'a dull plot' is unlike" not in result.stderr
    first, second = answer(cli(*asked, "--json"))["predictions"]
    assert first["explanation"]["nearest"][0]["row"] == 6
    assert second["explanation"]["familiarity"]["unfamiliar"]


def test_texts_come_from_standard_input(cli: Run, promoted: str) -> None:
    result = cli("predict", "--file", "-", "--json", input="fine\ndull\n")
    assert len(answer(result)["predictions"]) == 2


def test_long_text_is_truncated_or_rejected(cli: Run, promoted: str) -> None:
    text = "a film " * 100
    cut = cli("predict", text)
    assert cut.exit_code == 0
    assert "1 of 1 texts were truncated" in cut.stderr
    refused = cli("predict", text, "--no-truncate")
    assert refused.exit_code == 3
    assert "(text_too_long)" in refused.stderr


def test_unusable_model_is_rejected(cli: Run) -> None:
    none = cli("predict", "a film")
    assert none.exit_code == 3
    assert "(no_model_promoted)" in none.stderr
    unknown = cli("predict", "a film", "--model", "other")
    assert unknown.exit_code == 3
    assert "(model_not_found)" in unknown.stderr


def test_missing_text_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    assert run("predict").exit_code == 2
    latin = tmp_path / "latin"
    latin.write_bytes("\xe9t\xe9".encode("latin-1"))
    result = run("predict", "--file", str(latin))
    assert result.exit_code == 2
    assert "not UTF-8" in result.stderr
    table = run("predict", "--file", str(tmp_path / "inbox.CSV"))
    assert table.exit_code == 2
    assert "is a table: choose a file" in table.stderr
    missing = run("predict", "--file", str(tmp_path / "none"))
    assert missing.exit_code == 2
    assert "none: No such file or directory (os_error)" in missing.stderr


def test_pairs_are_arguments_with_their_second_texts(
    cli: Run, resources: Resources, tmp_path: Path
) -> None:
    ref = resources.store.move_directory_into_store(
        make_artifact(tmp_path / "pairs", pairs=True), "jobs/two/a1"
    )
    with resources.database.write() as session:
        artifact = artifacts.add_artifact(session, job_id=None, kind="model", ref=ref)
        registry.add_version(session, name="pairs", artifact=artifact, manifest=MANIFEST)
    pairs = ["--pair", "a dull plot", "--pair", "fine"]
    found = answer(
        cli(
            "predict", "a good film", "the end", *pairs, "--model", "pairs:1", "--explain", "--json"
        )
    )
    first, second = found["predictions"]
    assert (first["text"], first["text_pair"], second["text_pair"]) == (
        "a good film",
        "a dull plot",
        "fine",
    )
    assert {word["field"] for word in first["explanation"]["words"]} == {"text", "text_pair"}
    shown = cli("predict", "a good film", "--pair", "fine", "--model", "pairs:1").stdout
    assert "a good film / fine" in shown
    unequal = cli("predict", "one", "two", "--pair", "x", "--model", "pairs:1")
    assert (unequal.exit_code, "unequal_pairs" in unequal.stderr) == (2, True)
    single = cli("predict", "one", "two", "--model", "pairs:1")
    assert (single.exit_code, "text_pair_required" in single.stderr) == (3, True)
