"""Results for Label Studio: tasks with predictions, and the labeling configuration."""

import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from starlette.testclient import TestClient

from app.predictions.label_studio import LabelStudioProject
from app.resources import Resources
from app.settings import Settings
from lora_core.data import file_inspection
from lora_core.data.label_readers import LabelFormat
from lora_core.data.rows import ColumnSelection
from lora_core.specs.predict import PredictDataSpec
from tests.app.predictions.conftest import (
    MULTI_LABEL,
    REGRESSION,
    SEVERAL_TARGETS,
    Answer,
    store_results,
)

URL = "/v1/predictions"

pytestmark = pytest.mark.usefixtures("model", "texts")


def submit(client: TestClient) -> str:
    run_id: str = client.post(URL, json={"dataset": "texts"}).json()["id"]
    return f"{URL}/{run_id}"


def choices(*labels: str, control: str = "label", score: float) -> dict[str, Any]:
    value = {"choices": list(labels)}
    named = {"id": control, "from_name": control, "to_name": "text", "type": "choices"}
    return {**named, "value": value, "score": score}


def tasks(client: TestClient, run: str) -> list[dict[str, Any]]:
    got = client.get(f"{run}/results", params={"format": "label-studio"})
    assert got.status_code == 200, got.text
    found: list[dict[str, Any]] = got.json()
    return found


def config(client: TestClient, run: str) -> ElementTree.Element:
    got = client.get(f"{run}/labeling-config")
    assert got.headers["content-type"] == "text/xml; charset=utf-8"
    return ElementTree.fromstring(got.text)  # noqa: S314 - ours


def test_rows_are_tasks_with_predictions(client: TestClient, answer: Answer) -> None:
    run = submit(client)
    answer()
    first, second = tasks(client, run)
    assert first == {
        "data": {
            "id": "1", "body": "good, and more", "share": 0.5, "seen": True, "tags": ["a", "b"],
        },
        "predictions": [
            {"model_version": "sentiment:1", "score": 0.75, "result": [choices("good", score=0.75)]}
        ],
    }  # fmt: skip
    assert second["predictions"][0]["result"] == [choices("bad", score=1.0)]
    got = client.get(f"{run}/results", params={"format": "label-studio"})
    assert got.headers["content-type"] == "application/json"
    assert got.headers["content-disposition"].endswith('.json"')


def test_no_rows_are_an_empty_array() -> None:
    topics = {"label": {"task": "single_label", "labels": ["a", "b"]}}
    project = LabelStudioProject("m:1", PredictDataSpec(source="texts:1"), ["text"], topics)
    assert json.loads(b"".join(project.stream_tasks_as_json(io.BytesIO()))) == []


def test_config_has_the_text_and_the_labels(client: TestClient, answer: Answer) -> None:
    run = submit(client)
    answer()
    text, choice = config(client, run)
    assert text.attrib == {"name": "text", "value": "$body"}
    assert choice.attrib == {
        "name": "label", "toName": "text", "choice": "single", "required": "true",
        "showInline": "true",
    }  # fmt: skip
    assert [each.attrib for each in choice] == [{"value": "bad"}, {"value": "good"}]


def test_config_needs_no_rows(client: TestClient, answer: Answer, settings: Settings) -> None:
    run = submit(client)
    answer()
    [rows] = settings.artifacts_dir.rglob("results.jsonl")
    rows.parent.chmod(0o700)
    rows.unlink()
    assert [each.attrib["name"] for each in config(client, run)] == ["text", "label"]


def test_sets_of_labels(client: TestClient, resources: Resources, tmp_path: Path) -> None:
    run = submit(client)
    store_results(resources, tmp_path / "results", **MULTI_LABEL)
    first, second = (each["predictions"][0] for each in tasks(client, run))
    assert first["result"] == [choices("bad", "good", score=0.5)]
    # No label is predicted, and the least certain decision was that against `bad`.
    assert (second["result"], second["score"]) == ([], 0.75)
    assert config(client, run)[1].attrib["choice"] == "multiple"


def test_numbers_of_several_targets_are_left_out(
    client: TestClient, resources: Resources, tmp_path: Path
) -> None:
    run = submit(client)
    store_results(resources, tmp_path / "results", **SEVERAL_TARGETS)
    (only,) = tasks(client, run)
    assert only["data"] == {"id": "1"}
    assert only["predictions"][0]["result"] == [choices("good", control="topic", score=0.75)]
    assert [each.attrib.get("name") for each in config(client, run)] == ["text", "topic"]


def test_numbers_alone_are_refused(
    client: TestClient, resources: Resources, tmp_path: Path
) -> None:
    run = submit(client)
    store_results(resources, tmp_path / "results", **REGRESSION)
    for path in ("results?format=label-studio", "labeling-config"):
        got = client.get(f"{run}/{path}")
        assert (got.status_code, got.json()["code"]) == (409, "no_labels_predicted")


def test_names_that_a_variable_cannot_have_are_replaced() -> None:
    project = LabelStudioProject(
        "m:1",
        PredictDataSpec(source="texts:1", text_column="Your review?", text_pair_column="Größe"),
        ["Your review?", "Your_review_", "Größe"],
        {"text": {"task": "single_label", "labels": ["<a>", '"b"']},
         "topic": {"task": "multi_label", "labels": ["c"]}},
    )  # fmt: skip
    assert project.text_variables == {"Your review?": "Your_review__", "Größe": "Gr__e"}
    view = ElementTree.fromstring(project.labeling_config())  # noqa: S314 - ours
    assert [(each.tag, each.attrib.get("name"), each.attrib.get("value")) for each in view] == [
        ("Text", "text_", "$Your_review__"),
        ("Text", "text__pair", "$Gr__e"),
        ("Header", None, "text"),
        ("Choices", "text", None),
        ("Header", None, "topic"),
        ("Choices", "topic", None),
    ]
    assert [each.attrib["value"] for each in view[3]] == ["<a>", '"b"']


def test_a_text_column_is_found_by_what_is_seen_of_its_name() -> None:
    project = LabelStudioProject(
        "m:1",
        PredictDataSpec(source="texts:1", text_column="Gr\u00f6\u00dfe"),
        ["Gro\u0308\u00dfe "],
        {"label": {"task": "single_label", "labels": ["a", "b"]}},
    )
    assert project.text_variables == {"Gro\u0308\u00dfe ": "Gro__e_"}


def test_accepted_predictions_are_read_back_as_labels(
    client: TestClient, resources: Resources, tmp_path: Path
) -> None:
    run = submit(client)
    store_results(resources, tmp_path / "results", **MULTI_LABEL)
    export = tmp_path / "export.json"
    for task in (exported := tasks(client, run)):
        task["data"]["text"] = f"text {task['data']['id']}"
        task["annotations"] = [{"result": task["predictions"][0]["result"]}]
    export.write_text(json.dumps(exported), encoding="utf-8")
    found = file_inspection.read_contents(
        export, ColumnSelection(label_format=LabelFormat("multi_label"))
    )
    assert [(row.text, row.label) for row in found.rows] == [
        ("text 1", '["bad", "good"]'),
        ("text 2", "[]"),
    ]
