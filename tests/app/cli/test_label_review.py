"""`loraworks datasets suspects`, `correct` and `diff`."""

import json
import shlex
from pathlib import Path

from app.cli.label_review import format_label
from tests.app.cli.conftest import Run, answer
from tests.app.label_review.conftest import WRONG, WRONG_LABELS
from tests.app.label_review.test_corrections import SETS, TARGETS


def test_suspect_labels_are_corrected(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(WRONG_LABELS)
    assert cli("datasets", "upload", str(file)).exit_code == 0
    listed = cli("datasets", "suspects", "a", "--limit", "3")
    assert listed.exit_code == 0, listed.output
    assert "loraworks datasets correct a:1 --change" in listed.output
    found = answer(cli("datasets", "suspects", "a", "--json"))
    assert {each["row"] for each in found["data"][:3]} == set(WRONG)
    for row in WRONG:
        assert str(row) in listed.output

    file.write_text(WRONG_LABELS.replace("pos", "isn't good").replace("neg", "isn't bad"))
    assert cli("datasets", "upload", str(file), "--name", "quotes").exit_code == 0
    command = " ".join(
        cli("datasets", "suspects", "quotes").output.split("Correct them: ")[1].split()
    )
    assert shlex.split(command)[:3] == ["loraworks", "datasets", "correct"]
    first, second, third = found["data"][:3]
    changes = tmp_path / "changes.jsonl"
    lines = [
        {"row": second["row"], "label": second["proposed"], "given": second["given"]},
        {"row": third["row"], "keep": True},
    ]
    changes.write_text("\n\n".join(map(json.dumps, lines)))
    option = f"{first['row']}={first['proposed']}"
    done = cli("datasets", "correct", "a:1", "--change", option, "--file", str(changes))
    assert done.exit_code == 0, done.output
    assert "Created a:2: 2 label(s) changed." in done.output
    shown = cli("datasets", "diff", "a:2")
    assert "a:1" in shown.output
    diff = answer(cli("datasets", "diff", "a", "--json"))
    assert [each["row"] for each in diff["changes"]] == sorted((first["row"], second["row"]))
    assert diff["kept"] == 1
    kept = cli("datasets", "correct", "a:2", "--keep", "1", "--keep", "2")
    assert "Kept 2 label(s) of a:2." in kept.output


def test_other_kinds_of_labels(cli: Run, tmp_path: Path) -> None:
    sets, targets = tmp_path / "sets.csv", tmp_path / "targets.csv"
    sets.write_text(SETS)
    targets.write_text(TARGETS)
    options = ("--task", "multi_label", "--label-separator", ";")
    assert cli("datasets", "upload", str(sets), *options).exit_code == 0
    done = cli("datasets", "correct", "sets:1", "--change", "2=a, b", "--change", "1=")
    assert done.exit_code == 0, done.output
    diff = cli("datasets", "diff", "sets").output
    assert "a,b" in diff
    assert " -" in diff
    assert (
        cli("datasets", "upload", str(targets), "--targets", "topic,stars=regression").exit_code
        == 0
    )
    changed = ("--target", "stars", "--change", "2=7.5", "--keep", "3")
    done = cli("datasets", "correct", "targets:1", *changed, "--json")
    assert answer(done)["changes"] == [{"row": 2, "target": "stars", "before": 1.0, "after": 7.5}]
    assert "stars" in cli("datasets", "diff", "targets").output
    changes = ("--target", "stars", "--change", "2=20241.5")
    assert cli("datasets", "correct", "targets:2", *changes).exit_code == 0
    assert "20241.5" in cli("datasets", "diff", "targets").output


def test_names_with_a_comma(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "meals.jsonl"
    names = ["Food, drink", "other"]
    file.write_text(
        "".join(
            json.dumps({"text": f"text {i}", "label": names[: i % 3]}) + "\n" for i in range(20)
        )
    )
    assert cli("datasets", "upload", str(file), "--task", "multi_label").exit_code == 0
    done = cli("datasets", "correct", "meals:1", "--change", f"1={format_label(names)}", "--json")
    assert [each["after"] for each in answer(done)["changes"]] == [names]
    assert '["Food, drink", "other"]' in cli("datasets", "diff", "meals").output


def test_usage_errors(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "numbers.csv"
    file.write_text("text,label\n" + "".join(f"text {i},{i}\n" for i in range(20)))
    cli("datasets", "upload", str(file), "--task", "regression")
    broken = tmp_path / "changes.jsonl"
    broken.write_text("{\n")
    for options in (
        ("--change", "3"),
        ("--change", "x=3"),
        ("--change", "3=much"),
        ("--file", str(broken)),
    ):
        result = cli("datasets", "correct", "numbers:1", *options)
        assert result.exit_code == 2
        assert "invalid_change" in result.output
    broken.write_bytes(b'{"row": 3, "label": "\xe9"}\n')
    other_encoding = cli("datasets", "correct", "numbers:1", "--file", str(broken))
    assert (other_encoding.exit_code, "not_utf8" in other_encoding.output) == (2, True)
    nothing = cli("datasets", "correct", "numbers:1")
    assert (nothing.exit_code, "validation_failed" in nothing.output) == (3, True)
    unnamed = cli("datasets", "correct", "numbers", "--change", "3=4")
    assert (unnamed.exit_code, "dataset_version_required" in unnamed.output) == (3, True)
    assert "dataset_not_corrected" in cli("datasets", "diff", "numbers").output
    assert "dataset_not_found" in cli("datasets", "suspects", "none").output
