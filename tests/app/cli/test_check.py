"""`loraworks datasets check` for files and datasets."""

import json
from pathlib import Path

import xlsxwriter

from app.database.engines import Database
from tests.app.cli.conftest import Run, answer
from tests.app.datasets.test_diagnosis import LEAKING, MANY, remove_diagnosis
from tests.app.datasets.test_kinds_of_labels import INDICATORS, NUMBERS, SETS


def write(tmp_path: Path, content: str, name: str = "films.csv") -> str:
    file = tmp_path / name
    file.write_text(content)
    return str(file)


SOUND = LEAKING.removesuffix("sentence0 word0 end0,neg,test\n")


def test_a_file_is_checked_without_a_service(run: Run, tmp_path: Path) -> None:
    found = run("datasets", "check", write(tmp_path, LEAKING))
    assert found.exit_code == 1, found.output
    output = " ".join(found.stdout.split())
    assert "error: Texts that occur in two splits: 1 row of test in train. (leaked)" in output
    assert "rows 1 (neg, train) and 49 (neg, test): sentence0 word0 end0" in output
    assert "labels neg 51.0%, pos 49.0%" in output
    assert "warning: 1 row with the same text as an earlier row. (duplicates)" in output
    assert found.stderr == ""


def test_clean_data_exits_with_0(run: Run, tmp_path: Path) -> None:
    found = run("datasets", "check", write(tmp_path, MANY))
    assert found.exit_code == 0, found.output
    assert "No problems found" in found.stdout
    output = " ".join(found.stdout.split())
    assert "Would more labels help? With twice as many labels (600) expect" in output
    assert "This is the curve of a linear model (TF-IDF + logistic regression)" in output


def test_few_rows_are_reported(run: Run, tmp_path: Path) -> None:
    found = run("datasets", "check", write(tmp_path, SOUND))
    assert found.exit_code == 0, found.output
    output = " ".join(found.stdout.split())
    assert "warning: Only 48 rows. Accuracy measured on a tenth" in output
    assert "Would more labels help? 24 labeled texts are too few to estimate" in output


def test_warnings_alone_exit_with_0(run: Run, tmp_path: Path) -> None:
    found = run("datasets", "check", write(tmp_path, "text,label\na a,x\nb b,y\nb b,y\n"))
    assert found.exit_code == 0, found.output
    assert "warning: 2 labels with fewer than 10 rows: x (1), y (2). (rare_labels)" in found.stdout


def test_json_output_is_only_the_diagnosis(run: Run, tmp_path: Path) -> None:
    found = run("datasets", "check", write(tmp_path, LEAKING), "--json")
    assert found.exit_code == 1
    diagnosis = json.loads(found.stdout)
    assert [each["code"] for each in diagnosis["findings"]] == ["leaked", "few_rows", "duplicates"]
    assert diagnosis["tokens"]["truncated"]["512"] == 0


def test_unreadable_file_is_rejected(run: Run, tmp_path: Path) -> None:
    broken = run("datasets", "check", write(tmp_path, "text,label\na,x\n,y\n"))
    assert broken.exit_code == 2
    assert "(empty_text)" in broken.stderr
    missing = run("datasets", "check", str(tmp_path / "none.csv"))
    assert (missing.exit_code, "(data_not_found)" in missing.stderr) == (2, True)


def test_columns_of_a_file_may_have_any_name(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path, SOUND.replace("text,label,split", "body,mood,part"))
    columns = ("--text-column", "body", "--label-column", "mood", "--split-column", "part")
    assert run("datasets", "check", file, *columns).exit_code == 0
    texts = run(
        "datasets", "check", file, "--text-column", "body", "--purpose", "predict", "--json"
    )
    assert json.loads(texts.stdout)["balance"] is None


def test_the_sheet_of_a_workbook_is_named(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "films.xlsx"
    with xlsxwriter.Workbook(file) as made:
        made.add_worksheet("Other").write("A1", "something")
        sheet = made.add_worksheet("Films")
        for number, row in enumerate(SOUND.splitlines()):
            sheet.write_row(number, 0, row.split(","))
    found = run("datasets", "check", str(file), "--sheet", "Films", "--json")
    assert found.exit_code == 0, found.output
    few, finding = json.loads(found.stdout)["findings"]
    assert few["code"] == "few_rows"
    assert (finding["code"], "not Other" in finding["message"]) == ("other_sheets", True)
    wrong = run("datasets", "check", str(file), "--sheet", "None")
    assert (wrong.exit_code, "Sheets: Other, Films. (missing_sheet)" in wrong.stderr) == (2, True)


def test_an_upload_is_checked_by_its_name(cli: Run, tmp_path: Path, database: Database) -> None:
    dataset = answer(cli("datasets", "upload", write(tmp_path, LEAKING), "--json"))
    for ref in ("films", "films:1", dataset["id"]):
        found = cli("datasets", "check", ref, "--json")
        assert (found.exit_code, json.loads(found.stdout)) == (1, dataset["diagnosis"])
    remove_diagnosis(database, "films")
    assert json.loads(cli("datasets", "check", "films", "--json").stdout) == dataset["diagnosis"]
    assert cli("datasets", "check", "none").exit_code == 3


def test_an_upload_has_its_own_columns(cli: Run) -> None:
    refused = cli("datasets", "check", "films", "--text-column", "body")
    assert (refused.exit_code, "(columns_of_upload)" in refused.stderr) == (2, True)


def test_control_characters_of_texts_are_removed(run: Run, tmp_path: Path) -> None:
    hostile = "\x1b[31m [bold]red[/bold] \x9b31m"
    file = write(tmp_path, SOUND + f"{hostile},pos,train\n{hostile},pos,train\n")
    found = run("datasets", "check", file)
    assert "[bold]red[/bold]" in found.stdout
    assert "\x1b[31m" not in found.stdout
    assert "\x9b" not in found.stdout


def test_kinds_of_labels_are_checked_without_a_service(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path, SETS)
    options = ("--task", "multi_label", "--label-separator", ";")
    found = run("datasets", "check", file, *options)
    assert found.exit_code == 0, found.output
    output = " ".join(found.stdout.split())
    assert "label sets 4 different, 1 labels per row, 12 rows without any" in output
    assert "together a and b 12" in output
    file = write(tmp_path, NUMBERS)
    found = run("datasets", "check", file, "--task", "regression", "--json")
    assert json.loads(found.stdout)["numbers"]["distinct"] == 48
    refused = run("datasets", "check", file, "--label-separator", ";")
    assert refused.exit_code == 2
    assert "need --task multi_label" in refused.stderr


def test_kinds_of_labels_are_uploaded_by_train(cli: Run, tmp_path: Path) -> None:
    file = write(tmp_path, INDICATORS)
    options = ("--task", "multi_label", "--label-columns", "toxic,insult")
    found = cli("datasets", "upload", file, *options)
    assert found.exit_code == 0, found.output
    assert "insult 8, toxic 12" in " ".join(found.stdout.split())
    job = answer(cli("train", "--data", file, "--method", "linear", *options, "--json"))
    assert job["spec"]["data"]["source"] == "films:1"  # the upload that exists already
