"""Files with other column names: prompts on a terminal, errors elsewhere."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli import files
from tests.app.cli.conftest import Run, answer

ROWS = "".join(f"Der Film {i} war lang;{('gut', 'schlecht')[i % 2]};de\n" for i in range(20))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "Meine Filme.csv"
    path.write_text("Meinung;Urteil;Sprache\n" + ROWS)
    return path


@pytest.fixture
def sitting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that a user is at the terminal."""
    monkeypatch.setattr(files, "can_prompt", lambda: True)


@pytest.mark.e2e
def test_terminal_prompt_accepts_names_and_numbers(file: Path) -> None:
    keyboard, terminal = pty.openpty()
    os.write(keyboard, b"nothing\n1\n\n\n")  # not one; the first; the guess; no pairs
    command = [sys.executable, "-m", "app.cli.main", "datasets", "check", str(file), "--json"]
    code = f"import sys; from app.cli.main import main; sys.argv[1:] = {command[3:]!r}; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=terminal,
        stderr=terminal,
        stdout=subprocess.PIPE,
        timeout=100,
        check=False,
    )
    os.close(terminal)
    shown = os.read(keyboard, 10_000).decode()
    os.close(keyboard)
    assert done.returncode == 0, shown
    assert b'"majority": "gut"' in done.stdout
    assert "2  Urteil: gut | schlecht" in shown
    assert "Text column [Meinung]:" in shown
    assert "No such column" in shown
    assert "Label column [Urteil]:" in shown


def test_without_terminal_the_error_names_the_options(cli: Run, file: Path) -> None:
    for arguments in (["datasets", "upload", str(file)], ["train", str(file)]):
        result = cli(*arguments)
        assert result.exit_code == 3
        assert "--text-column Meinung --label-column Urteil" in result.stderr
        assert "(missing_column)" in result.stderr
    local = cli("datasets", "check", str(file))
    assert (local.exit_code, "--label-column Urteil" in local.stderr) == (2, True)


@pytest.mark.usefixtures("sitting")
def test_columns_of_several_labels_are_not_asked_for(cli: Run, run: Run, file: Path) -> None:
    options = ("--task", "multi_label", "--label-columns", "toxic", "--text-column", "Meinung")
    for result in (
        cli("datasets", "upload", str(file), *options),
        run("datasets", "check", str(file), *options),
    ):
        assert "(`--label-columns`)" in result.stderr
        assert "(missing_column)" in result.stderr


@pytest.mark.usefixtures("sitting")
def test_upload_is_repeated_with_the_columns(cli: Run, file: Path) -> None:
    dataset = answer(cli("datasets", "upload", str(file), "--json", input="\n\n"))
    assert (dataset["text_column"], dataset["label_column"]) == ("Meinung", "Urteil")
    assert dataset["rows"] == 20
    shown = cli("datasets", "show", "meine-filme").stdout
    assert "UTF-8, cells separated by semicolons" in shown
    texts = answer(
        cli("datasets", "upload", str(file), "--purpose", "predict", "--json", input="Meinung\n")
    )
    assert (texts["text_column"], texts["label_column"]) == ("Meinung", None)


@pytest.mark.usefixtures("sitting")
def test_train_uploads_the_file(cli: Run, file: Path) -> None:
    job = answer(cli("train", str(file), "--json", input="\n\n"))
    assert job["spec"]["data"]["source"] == "meine-filme:1"
    assert job["spec"]["data"]["label_column"] == "Urteil"
    parts = answer(
        cli(
            "train", "--data", f"train={file}", "--data", "test=meine-filme", "--text-column",
            "Meinung", "--label-column", "Urteil", "--json",
        )
    )  # fmt: skip
    assert parts["spec"]["data"]["source"] == {"train": "meine-filme:1", "test": "meine-filme:1"}
    dry = cli("train", str(file), "--dry-run")
    assert (dry.exit_code, "(file_not_uploaded)" in dry.stderr) == (2, True)
    both = cli("train", str(file), "--data", "imdb")
    assert (both.exit_code, "(wrong_usage)" in both.stderr) == (2, True)


@pytest.mark.usefixtures("sitting")
def test_answers_replace_the_columns_that_the_file_lacks(cli: Run, file: Path) -> None:
    named = ("--text-column", "review", "--text-pair-column", "second", "--label-column", "mood")
    data = answer(cli("train", str(file), *named, "--json", input="\n\n\n"))["spec"]["data"]
    assert (data["text_column"], data["label_column"]) == ("Meinung", "Urteil")
    assert data.get("text_pair_column") is None


@pytest.mark.usefixtures("sitting")
def test_nothing_is_asked_if_the_split_column_is_missing(cli: Run, file: Path) -> None:
    refused = cli("train", str(file), "--split-column", "part", input="\n\n\n")
    assert (refused.exit_code, "(missing_column)" in refused.stderr) == (3, True)
    assert "has these columns" not in refused.stderr


def test_train_shows_what_the_data_checks_found(cli: Run, tmp_path: Path) -> None:
    path = tmp_path / "films.csv"
    path.write_text(
        "text,label,Split\n" + "".join(f"film {i} yes,{'ab'[i % 2]},test\n" for i in range(20))
    )
    result = cli("train", str(path), "--json")
    assert result.exit_code == 0, result.output
    assert "Uploaded" in result.stderr
    assert "warning: The column 'Split' was not read" in result.stderr
    assert "Examples and advice: loraworks datasets check films:1\n" in result.stderr
    assert "info: " not in result.stderr


@pytest.mark.usefixtures("sitting")
def test_a_name_with_spaces_is_the_title(cli: Run, file: Path) -> None:
    named = ["--name", "Größe (Mai)", "--text-column", "Meinung", "--label-column", "Urteil"]
    result = cli("datasets", "upload", str(file), *named)
    assert result.exit_code == 0, result.output
    assert "title     Größe (Mai)" in result.stdout
    assert "grosse-mai:1" in result.stdout
