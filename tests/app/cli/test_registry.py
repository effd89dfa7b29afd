"""`loraworks models`, `datasets` and `predict` against a running service."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.app.cli.conftest import FakeWorker, Run, answer

MakeVersion = Callable[[], str]


@pytest.fixture
def make_version(cli: Run, worker: FakeWorker, tmp_path: Path) -> MakeVersion:
    """Make a job succeed and return its id."""

    def make() -> str:
        job = str(answer(cli("train", "--json"))["id"])
        worker.succeed(worker.claim(), tmp_path / job)
        return job

    return make


def test_version_is_registered_promoted_and_demoted(cli: Run, make_version: MakeVersion) -> None:
    first, second = make_version(), make_version()
    assert answer(cli("models", "register", "sentiment", first, "--json"))["ref"] == "sentiment:1"
    assert "sentiment:2" in cli("models", "register", "sentiment", second).stdout

    moved = answer(cli("models", "promote", "sentiment:2", "--json"))
    assert moved["aliases"] == {"production": 2}
    assert cli("models", "promote", "sentiment:1", "--alias", "candidate").exit_code == 0
    listed = cli("models", "list").stdout
    assert "production → 2" in listed
    assert "candidate → 1" in listed
    shown = cli("models", "show", "sentiment").stdout
    assert second in shown
    assert "83.0%" in shown

    in_use = cli("models", "delete", "sentiment:2")
    assert in_use.exit_code == 3
    assert "(version_in_use)" in in_use.stderr
    assert cli("models", "demote", "sentiment").exit_code == 0
    assert cli("models", "delete", "sentiment:2").exit_code == 0
    assert cli("models", "demote", "sentiment", "--alias", "candidate").exit_code == 0
    assert cli("models", "delete", "sentiment").exit_code == 0
    assert answer(cli("models", "list", "--json")) == []


@pytest.mark.parametrize("ref", ["sentiment", "sentiment:", "sentiment:two", "sentiment:²"])
def test_only_a_version_can_be_promoted(run: Run, ref: str) -> None:
    result = run("models", "promote", ref)
    assert result.exit_code == 2
    assert "sentiment:3" in result.stderr


def test_dataset_is_uploaded_listed_used_and_deleted(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "films.csv"
    rows = "".join(f"a film number {i},{'good' if i % 2 else 'bad'}\n" for i in range(40))
    file.write_text("review,mood\n" + rows)
    uploaded = answer(
        cli(
            "datasets", "upload", str(file), "--text-column", "review", "--label-column", "mood",
            "--json",
        )
    )  # fmt: skip
    assert (uploaded["ref"], uploaded["rows"]) == ("films:1", 40)
    assert uploaded["labels"] == {"bad": 20, "good": 20}
    assert "films:1" in cli("datasets", "list").stdout
    assert "good 20" in cli("datasets", "show", "films").stdout

    job = answer(cli("train", "--data", "films", "--json"))
    assert job["spec"]["data"]["source"] == "films:1"
    in_use = cli("datasets", "delete", "films")
    assert in_use.exit_code == 3
    assert "(dataset_in_use)" in in_use.stderr
    cli("jobs", "cancel", job["id"])
    assert cli("datasets", "delete", "films:1").exit_code == 0
    assert answer(cli("datasets", "list", "--json")) == []


def test_duplicate_rows_are_reported(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "films.csv"
    file.write_text("text,label\nfine,good\nfine,bad\ndull,bad\ndull,bad\n")
    output = " ".join(cli("datasets", "upload", str(file)).stdout.split())
    assert "2 rows repeat the text of an earlier one; 1 texts have conflicting labels" in output


def test_labels_differing_in_case_are_reported(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "reviews.csv"
    file.write_text("text,label\na,lob\nb,Lob\nc,tadel\n")
    output = " ".join(cli("datasets", "upload", str(file)).stdout.split())
    assert "warnings the labels Lob and lob seem to be the same" in output
    assert "1 error(s), 2 warning(s): loraworks datasets check reviews:1" in output


def test_invalid_file_is_rejected_with_its_row(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "films.csv"
    file.write_text("text,label\nfine,good\n,bad\n")
    result = cli("datasets", "upload", str(file))
    assert result.exit_code == 3
    assert "(empty_text)" in result.stderr
    missing = cli("datasets", "upload", str(tmp_path / "none.csv"))
    assert missing.exit_code == 2
