"""A round through a real Label Studio: train, predict, import there, label, export, train again."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.label_studio_server import LabelStudio, label_studio
from tests.e2e.up import loraworks_up

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1800)]

ASSETS = Path(__file__).parents[1] / "assets" / "label_studio"
DOCS = Path(__file__).parents[2] / "docs"

Json = dict[str, Any]


def chosen(control: str, *choices: str) -> Json:
    value = {"choices": list(choices)}
    return {"from_name": control, "to_name": "text", "type": "choices", "value": value}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    with label_studio(tmp_path_factory.mktemp("label-studio") / "data") as server:
        yield server


def config(control: str, choice: str, labels: list[str]) -> str:
    options = "".join(f'<Choice value="{label}"/>' for label in labels)
    return (
        '<View><Text name="text" value="$text"/>'
        f'<Choices name="{control}" toName="text" choice="{choice}">{options}</Choices></View>'
    )


# -- The exports that tests of `lora_core` read ---------------------------------------------------


def sentiment(server: LabelStudio) -> int:
    """A project with one choice for each text: skipped tasks, and annotations that differ."""
    project = server.create_project(
        "sentiment", config("sentiment", "single", ["positive", "negative"])
    )
    texts = [
        "The film was a joy.",
        "Two hours that I shall not get back.",
        "I laughed, and then I left.",
        "Nobody has labeled this.",
        "Somebody has skipped this.",
    ]
    server.import_tasks(project, [{"data": {"text": text}} for text in texts])
    ids = [task["id"] for task in server.tasks(project)]
    server.annotate(ids[0], [chosen("sentiment", "positive")])
    server.annotate(ids[1], [chosen("sentiment", "positive")], was_cancelled=True)
    server.annotate(ids[1], [chosen("sentiment", "negative")])
    for label in ("negative", "positive", "negative"):
        server.annotate(ids[2], [chosen("sentiment", label)])
    server.annotate(ids[4], [], was_cancelled=True)
    return project


def topics(server: LabelStudio) -> int:
    """A project with any number of choices for each text."""
    project = server.create_project("topics", config("topics", "multiple", ["billing", "shipping"]))
    texts = [
        "The parcel is late and the bill is wrong.",
        "Where is my parcel?",
        "Thank you for everything!",
    ]
    server.import_tasks(project, [{"data": {"text": text}} for text in texts])
    ids = [task["id"] for task in server.tasks(project)]
    server.annotate(ids[0], [chosen("topics", "shipping", "billing")])
    server.annotate(ids[1], [chosen("topics", "shipping")])
    server.annotate(ids[2], [])
    return project


def without_ids(value: Any) -> Any:
    """An export without what is different in each: ids, times, and where they are counted."""
    match value:
        case dict():
            return {
                name: None if name in VARYING else without_ids(each) for name, each in value.items()
            }
        case list():
            return [without_ids(each) for each in value]
        case _:
            return value


VARYING = {
    *("id", "annotation_id", "created_at", "updated_at", "draft_created_at", "lead_time"),
    *("unique_id", "import_id", "project", "task", "completed_by", "updated_by", "annotator"),
    *("inner_id", "last_action", "result_count"),
}


@pytest.mark.parametrize("make", [sentiment, topics], ids=["sentiment", "topics"])
def test_assets_are_what_the_server_exports(
    server: LabelStudio, make: Callable[[LabelStudio], int]
) -> None:
    project = make(server)
    for form, suffix in (("JSON", ""), ("JSON_MIN", "-min")):
        asset = ASSETS / f"{make.__name__}{suffix}.json"
        exported = json.loads(server.export(project, form))
        if os.environ.get("UPDATE_DOCS") == "1":
            asset.write_text(json.dumps(exported, indent=1) + "\n", encoding="utf-8")
        kept = json.loads(asset.read_text(encoding="utf-8"))
        assert without_ids(exported) == without_ids(kept)


# -- The round ------------------------------------------------------------------------------------


def loraworks(url: str, *arguments: object) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name("loraworks"), *map(str, arguments)],
        capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, "LORAWORKS_URL": url},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_train_predict_label_and_train_again(server: LabelStudio, tmp_path: Path) -> None:
    with loraworks_up(tmp_path / "data") as url:
        loraworks(url, "datasets", "upload", DOCS / "tickets.csv", "--name", "tickets")
        train = ("--method", "linear", "--register-as", "tickets", "--watch")
        loraworks(url, "train", "--data", "tickets", *train)
        loraworks(url, "models", "promote", "tickets:1")
        tasks_file, config_file = tmp_path / "tasks.json", tmp_path / "config.xml"
        loraworks(url, "predict", "--file", DOCS / "more-tickets.csv", "--out", tasks_file)
        (run,) = json.loads(loraworks(url, "predictions", "list", "--json"))
        loraworks(url, "predictions", "labeling-config", run["id"], "--out", config_file)

        project = server.create_project("tickets", config_file.read_text(encoding="utf-8"))
        sent = json.loads(tasks_file.read_text(encoding="utf-8"))
        imported = server.import_tasks(project, sent)
        assert imported["task_count"] == imported["prediction_count"] == len(sent)
        for number, (task, ours) in enumerate(
            zip(server.tasks(project), sent, strict=True), start=1
        ):
            (prediction,), (predicted,) = task["predictions"], ours["predictions"]
            assert prediction["model_version"] == "tickets:1"
            assert prediction["score"] == pytest.approx(predicted["score"])
            assert prediction["result"][0]["value"] == predicted["result"][0]["value"]
            label = task["data"]["label"]  # the true one is a column of our file
            server.annotate(task["id"], [chosen("label", label)])
            if number == 1:
                server.annotate(task["id"], [chosen("label", label)], ground_truth=True)

        uploaded = {}
        for form in ("JSON", "JSON_MIN"):
            export = tmp_path / f"{form.lower()}.json"
            export.write_bytes(server.export(project, form))
            shown = loraworks(url, "datasets", "upload", export, "--name", "labeled", "--json")
            uploaded[form] = json.loads(shown)
        assert uploaded["JSON"]["labels"] == uploaded["JSON_MIN"]["labels"]
        assert uploaded["JSON"]["rows"] == len(sent)
        loraworks(url, "train", "--data", "labeled", *train)
        versions = json.loads(loraworks(url, "models", "show", "tickets", "--json"))["versions"]
        assert len(versions) == 2


def test_sets_of_labels_and_several_targets_are_imported(
    server: LabelStudio, tmp_path: Path
) -> None:
    rows = [
        {"text": f"{word} {i}", "mood": mood, "topics": topics}
        for i in range(12)
        for word, mood, topics in (
            ("a late parcel", "bad", ["shipping"]),
            ("a wrong bill for a parcel", "bad", ["billing", "shipping"]),
            ("thank you all", "good", []),
        )
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = {
        "sets": ("--task", "multi_label", "--label-column", "topics"),
        "several": ("--targets", "mood,topics=multi_label"),
    }
    with loraworks_up(tmp_path / "data") as url:
        for name, chosen_options in options.items():
            loraworks(url, "datasets", "upload", file, "--name", name, *chosen_options)
            loraworks(url, "train", "--data", name, "--method", "linear", "--register-as", name,
                      "--watch")  # fmt: skip
            loraworks(url, "models", "promote", f"{name}:1")
            out, labeling = tmp_path / f"{name}.json", tmp_path / f"{name}.xml"
            loraworks(url, "predict", "--model", name, "--file", file, "--out", out)
            run, *_ = json.loads(loraworks(url, "predictions", "list", "--json"))
            loraworks(url, "predictions", "labeling-config", run["id"], "--out", labeling)
            project = server.create_project(name, labeling.read_text(encoding="utf-8"))
            sent = json.loads(out.read_text(encoding="utf-8"))
            assert server.import_tasks(project, sent)["prediction_count"] == len(sent)
            for task in server.tasks(project):
                server.annotate(task["id"], task["predictions"][0]["result"])
            for form in ("JSON", "JSON_MIN"):
                export = tmp_path / f"{name}-{form}.json"
                export.write_bytes(server.export(project, form))
                columns = chosen_options if name == "several" else ("--task", "multi_label")
                shown = loraworks(
                    url, "datasets", "upload", export, "--name", f"{name}-again", *columns,
                    "--text-column", "text", "--json",
                )  # fmt: skip
                assert json.loads(shown)["rows"] == len(sent)
