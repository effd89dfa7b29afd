"""The command line with a model of several targets, on a real service."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.charts.formatting import format_number
from app.cli.client import Client
from app.cli.labeled_rows import read_labeled_rows
from app.jobs.schemas import MisclassifiedText
from app.resources import Resources
from lora_core.data.label_readers import LabelFormat
from lora_core.data.load import load_splits
from lora_core.data.rows import ColumnSelection
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.task import SeveralTargetsSpec
from lora_core.tasks.base import Calibration
from tests.app.cli.conftest import Run, answer
from tests.app.cli.versions import add_version
from tests.slow import slow_but
from tests.tiny_artifact import TARGETS, make_artifact, make_several_targets_artifact

ROWS = [
    {"text": f"a good film {i}", "topic": ("billing", "refund")[i % 2], "stars": i / 7,
     "flags": ["rude"] if i % 3 else []}
    for i in range(24)
]  # fmt: skip


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    file = tmp_path / "tickets.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    return file


@pytest.fixture
def model(resources: Resources, tmp_path: Path) -> Path:
    made = make_several_targets_artifact(tmp_path / "model")
    add_version(resources, made, tmp_path / "copy")
    return made


@pytest.mark.usefixtures("model")
def test_predict_shows_all_targets_or_one(cli: Run) -> None:
    response = answer(cli("predict", "a good film", "--json"))
    assert response["task"] == "several_targets"
    [prediction] = response["predictions"]
    assert list(prediction["targets"]) == list(TARGETS)
    [stars] = prediction["targets"]["stars"]
    shown = cli("predict", "a good film").stdout
    assert shown.split()[:3] == list(TARGETS)
    assert format_number(stars["score"]) in shown
    assert "refund" in shown
    one = answer(cli("predict", "a good film", "--target", "topic", "--explain", "--json"))
    assert one["task"] == "single_label"
    assert one["predictions"][0]["labels"] == prediction["targets"]["topic"]
    assert one["predictions"][0]["explanation"]["label"] == "refund"
    refused = cli("predict", "a good film", "--explain")
    assert refused.exit_code != 0
    assert "flags, stars, topic" in refused.stderr


def test_misclassified_texts_name_their_target(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: dict[str, Any] = {
        "row": 1, "text": "a", "cut": False, "label": "x", "predicted": "y",
        "score": 0.9, "true_score": 0.1,
    }  # fmt: skip
    found = [MisclassifiedText(**wrong, target=target) for target in ("topic", "stars")]
    monkeypatch.setattr(Client, "list_misclassified", lambda *_: found)
    lines = run("jobs", "misclassified", "some").stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["target", "topic", "stars"]


@pytest.mark.parametrize("target", slow_but(TARGETS, "stars"))
@pytest.mark.usefixtures("model")
def test_evaluate_one_target(cli: Run, tickets: Path, target: str) -> None:
    report = answer(
        cli("evaluate", "sentiment", "--data", str(tickets), "--target", target, "--json")
    )
    assert report["target"] == target
    assert report["texts"] == len(ROWS)
    if target == "topic":
        assert report["accuracy"] == 0.5  # it predicts `refund` for any text
    refused = cli("evaluate", "sentiment", "--data", str(tickets))
    assert "evaluate one target with --target: flags, stars, topic" in refused.stderr


def test_evaluate_one_of_two_targets_with_thresholds(
    cli: Run, resources: Resources, tmp_path: Path
) -> None:
    tickets = tmp_path / "tickets.jsonl"
    rows = [{**row, "topic": [row["topic"]]} for row in ROWS]
    tickets.write_text("\n".join(map(json.dumps, rows)))
    thresholds = {"flags": (0.5,), "topic": (0.5, 0.3)}
    made = make_artifact(
        tmp_path / "model",
        labels=("flags/rude", "topic/billing", "topic/refund"),
        top_label="topic/refund",
        task=SeveralTargetsSpec.model_validate(
            {"targets": {name: {"type": "multi_label"} for name in thresholds}}
        ),
        calibration=Calibration(
            targets={
                name: Calibration(
                    scale=(1.0,) * len(each), offset=(0.0,) * len(each), thresholds=each
                )
                for name, each in thresholds.items()
            }
        ),
    )
    add_version(resources, made, tmp_path / "copy")
    evaluate = ("evaluate", "sentiment", "--data", str(tickets), "--json", "--target")
    assert set(answer(cli(*evaluate, "topic"))["per_class"]) == {"billing", "refund"}
    assert set(answer(cli(*evaluate, "flags"))["per_class"]) == {"rude"}


@pytest.mark.usefixtures("model")
def test_evaluate_one_target_of_an_upload(cli: Run, tickets: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "renamed.jsonl"
    renamed.write_text(
        "".join(
            json.dumps(
                {"text": row["text"], "kind": row["topic"], "label": row["topic"],
                 "stars": row["stars"], "rude": int(bool(row["flags"]))}
            ) + "\n"
            for row in ROWS
        )
    )  # fmt: skip
    targets = {
        "stars": {"type": "regression"},
        "topic": {"column": "kind"},
        "flags": {"type": "multi_label", "label_columns": ["rude"]},
    }
    several = answer(
        cli("datasets", "upload", str(renamed), "--targets", json.dumps(targets), "--json")
    )
    evaluate = ("evaluate", "sentiment", "--json", "--data")
    for target in TARGETS:
        report = answer(cli(*evaluate, several["ref"], "--target", target))
        assert (report["target"], report["texts"]) == (target, len(ROWS))
    one = answer(cli("datasets", "upload", str(renamed), "--name", "one", "--json"))
    for ref in (several["ref"], one["ref"]):
        assert answer(cli(*evaluate, ref, "--target", "topic"))["accuracy"] == 0.5
    refused = cli(*evaluate, several["ref"], "--target", "topic", "--label-column", "label")
    assert "checked with the label column 'kind', not 'label'" in refused.stderr
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text('{"text": "a film", "topic": "billing", "label": "refund"}\n')
    of_file = cli(*evaluate, str(mixed), "--target", "topic", "--label-column", "label")
    assert answer(of_file)["accuracy"] == 1.0


@pytest.mark.parametrize("part", slow_but(Split, Split.TEST))
def test_splits_of_one_target_are_those_of_the_training(
    cli: Run, url: str, tickets: Path, part: Split
) -> None:
    spec = SeveralTargetsSpec.model_validate({"targets": TARGETS})
    answer(cli("datasets", "upload", str(tickets), "--targets", json.dumps(TARGETS), "--json"))
    columns = ColumnSelection(label="topic", label_format=LabelFormat("single_label"))
    tasks = {name: each.type for name, each in spec.targets.items()}
    with Client(url) as client:
        found = read_labeled_rows(client, "tickets", columns, part, "topic", tasks)
    trained = load_splits(DataSpec(source=str(tickets)), spec).examples_of(part)
    assert [row.number for row in found.rows] == [example.row for example in trained]
    assert {row.label for row in found.rows} == {"billing", "refund"}


@pytest.mark.usefixtures("model")
def test_splits_are_not_drawn_without_the_other_targets(cli: Run, tickets: Path) -> None:
    options = ("evaluate", "sentiment", "--target", "topic", "--split", "test")
    refused = cli(*options, "--data", str(tickets))
    assert (refused.exit_code, "(unknown_targets)" in refused.stderr) == (2, True), refused.output
    other = ("--targets", "topic,flags=multi_label")
    answer(cli("datasets", "upload", str(tickets), *other, "--json"))
    assert "(unknown_targets)" in cli(*options, "--data", "tickets").stderr


def test_check_and_upload_several_columns(cli: Run, tickets: Path) -> None:
    targets = "stars=regression,topic,flags=multi_label"
    checked = answer(cli("datasets", "check", str(tickets), "--targets", targets, "--json"))
    assert set(checked["targets"]) == set(TARGETS)
    uploaded = answer(cli("datasets", "upload", str(tickets), "--targets", targets, "--json"))
    assert uploaded["task"] == "several_targets"
    planned = answer(
        cli("train", "--data", uploaded["ref"], "--targets", targets, "--method", "linear",
            "--dry-run", "--json")
    )  # fmt: skip
    assert list(planned["spec"]["task"]["targets"]) == list(TARGETS)
    wrong = cli("datasets", "check", str(tickets), "--targets", "topic,stars=stars")
    assert "--targets: targets.stars.type" in wrong.stderr


@pytest.mark.parametrize(
    "targets", ["stars=regression,topic", {"stars": {"type": "regression"}, "topic": {}}], ids=str
)
def test_a_spec_names_targets_of_a_local_file(
    cli: Run, tickets: Path, tmp_path: Path, targets: object
) -> None:
    spec = tmp_path / "job.json"
    spec.write_text(
        json.dumps(
            {
                "method": {"type": "linear"},
                "task": {"targets": targets},
                "data": {"source": str(tickets)},
            }
        )
    )
    job = answer(cli("train", "--spec", str(spec), "--json"))
    assert list(job["spec"]["task"]["targets"]) == ["stars", "topic"]
