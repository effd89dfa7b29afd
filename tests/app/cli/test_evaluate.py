"""`loraworks evaluate` against a running service with a small real model."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from app.cli import evaluate, labeled_rows
from app.cli.client import Client, PredictResponse
from app.cli.errors import RequestRejected, UsageError
from app.resources import Resources
from app.serving.schemas import LabelScore, ModelInfo
from lora_core.data.label_readers import LabelFormat
from lora_core.data.load import load_splits
from lora_core.data.rows import ColumnSelection
from lora_core.inference.predictor import Predictor
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.text_input import TextInput
from tests.app.cli.conftest import Run, answer
from tests.app.cli.versions import add_version
from tests.tiny_artifact import make_artifact

REVIEWS = [
    ("a good film", "good"),
    ("a dull plot that was not fine", "bad"),
    ("boring", "bad"),
    ("the story was fine and the cast of it great", "good"),
    ("lovely", "good"),
]


@pytest.fixture
def model(resources: Resources, tmp_path: Path) -> Path:
    """The artifact of `sentiment:1`, which is in production."""
    made = make_artifact(tmp_path / "made", seed=3)
    add_version(resources, made, tmp_path / "copy")
    return made


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    file = tmp_path / "reviews.csv"
    file.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in REVIEWS))
    return file


def test_metrics_match_the_model(
    cli: Run, model: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "BATCH_SIZE", 2)
    response = answer(cli("evaluate", "sentiment", "--data", str(reviews), "--json"))
    assert (response["model"], response["split"], response["texts"]) == ("sentiment:1", None, 5)
    predictor = Predictor.load(model)
    logits = predictor.forward(predictor.encode([text for text, _ in REVIEWS]))
    truth = torch.tensor([predictor.labels.index(label) for _, label in REVIEWS])
    assert response["loss"] == pytest.approx(float(F.cross_entropy(logits, truth)), abs=1e-5)
    assert response["accuracy"] == float((logits.argmax(1) == truth).double().mean())
    assert response["labels"] == ["bad", "good"]
    assert np.array(response["confusion_matrix"]).sum(axis=1).tolist() == [2, 3]


def test_requests_have_no_more_texts_than_the_service_takes(
    cli_of_two_inputs: Run, model: Path, reviews: Path
) -> None:
    shown = cli_of_two_inputs("evaluate", "sentiment", "--data", str(reviews), "--json")
    assert answer(shown)["texts"] == 5


def test_default_output_is_a_table(cli: Run, model: Path, reviews: Path) -> None:
    shown = cli("evaluate", "sentiment:1", "--data", str(reviews))
    assert shown.exit_code == 0, shown.output
    assert "60.0% ± 21.9% (standard error)" in shown.stdout
    assert "as good" in shown.stdout
    assert "5 texts" in shown.stdout


def test_split_column_of_a_file(cli: Run, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "parts.jsonl"
    rows = [
        {"review": text, "mood": label, "split": ("train", "test")[i % 2]}
        for i, (text, label) in enumerate(REVIEWS)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    columns = ("--text-column", "review", "--label-column", "mood")
    response = answer(cli("evaluate", "sentiment", "--data", str(file), *columns, "--json"))
    assert (response["split"], response["texts"]) == ("test", 2)
    more = answer(
        cli("evaluate", "sentiment", "--data", str(file), *columns, "--json", "--split", "train")
    )
    assert (more["split"], more["texts"]) == ("train", 3)
    missing = cli("evaluate", "sentiment", "--data", str(file), *columns, "--split", "validation")
    assert missing.exit_code == 2
    assert "(missing_split)" in missing.stderr


def test_dataset_uses_its_own_columns(cli: Run, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "films.tsv"
    rows = "".join(f"a film number {i}\t{'good' if i % 2 else 'bad'}\n" for i in range(40))
    file.write_text("review\tmood\n" + rows)
    columns = ("--text-column", "review", "--label-column", "mood")
    answer(cli("datasets", "upload", str(file), *columns, "--json"))
    response = answer(cli("evaluate", "sentiment", "--data", "films:1", "--json"))
    assert (response["texts"], response["split"], response["accuracy"]) == (40, None, 0.5)
    drawn = answer(cli("evaluate", "sentiment", "--data", "films", "--split", "test", "--json"))
    assert drawn["texts"] == 8


def test_dataset_without_labels_is_rejected_before_download(
    cli: Run, model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "films.csv"
    file.write_text("text\na good film\n")
    made = answer(cli("datasets", "upload", str(file), "--purpose", "predict", "--json"))
    refused = cli("evaluate", "sentiment", "--data", made["ref"])
    assert (refused.exit_code, "(no_labels)" in refused.stderr) == (2, True), refused.output


@pytest.mark.parametrize("part", list(Split))
def test_drawn_splits_match_those_of_a_training(part: Split, tmp_path: Path) -> None:
    file = tmp_path / "films.csv"
    file.write_text("text,label\n" + "".join(f"film {i},{'ab'[i % 2]}\n" for i in range(50)))
    with Client("http://127.0.0.1:9") as client:
        found = labeled_rows.read_labeled_rows(client, str(file), ColumnSelection(), part)
    trained = load_splits(DataSpec(source=str(file))).examples_of(part)
    assert [row.number for row in found.rows] == [example.row for example in trained]


def test_a_dataset_is_read_as_it_was_uploaded(cli: Run, url: str, tmp_path: Path) -> None:
    file = tmp_path / "topics.csv"
    file.write_text("text,label\na b,x;y\nc d,\ne f,x\n")
    options = ("--task", "multi_label", "--label-separator", ";")
    assert cli("datasets", "upload", str(file), *options).exit_code == 0
    columns = ColumnSelection(label_format=LabelFormat("multi_label"))
    with Client(url) as client:
        found = labeled_rows.read_labeled_rows(client, "topics", columns, None)
    assert [row.label for row in found.rows] == ['["x", "y"]', "[]", '["x"]']


@pytest.mark.parametrize(
    ("columns", "code", "message"),
    [
        (ColumnSelection(), "task_mismatch", "the task multi_label, and the model has the task "
         "single_label. Name a model of that task"),
        (ColumnSelection(text="review", label_format=LabelFormat("multi_label")),
         "column_not_checked", "the text column 'text', not 'review'. Leave out --text-column"),
        (ColumnSelection(pair="second", label_format=LabelFormat("multi_label")),
         "column_not_checked", "the text_pair column None, not 'second'. Leave out --text-pair-"),
    ],
    ids=["task", "text", "pair"],
)  # fmt: skip
def test_options_that_contradict_the_dataset(
    cli: Run, url: str, tmp_path: Path, columns: ColumnSelection, code: str, message: str
) -> None:
    file = tmp_path / "topics.jsonl"
    file.write_text('{"text": "a b", "label": ["x"]}\n{"text": "c d", "label": []}\n')
    assert cli("datasets", "upload", str(file), "--task", "multi_label").exit_code == 0
    with Client(url) as client, pytest.raises(UsageError, match=re.escape(message)) as error:
        labeled_rows.read_labeled_rows(client, "topics", columns, None)
    assert error.value.code == code


def test_sample_is_evaluated_on_its_test_split() -> None:
    with Client("http://127.0.0.1:9") as client:
        found = labeled_rows.read_labeled_rows(client, "rotten-tomatoes", ColumnSelection(), None)
    assert found.split is Split.TEST
    assert len(found.rows) == len(load_splits(DataSpec()).test)


@pytest.mark.parametrize(
    ("content", "code", "status"),
    [
        ("text,label\na film,superb\n", "unknown_label", 2),
        ("text,label\n", "empty_data", 2),
        ("", "empty_data", 2),
        ("review,label\na,good\n", "missing_column", 2),
        ("text,label\n,good\n", "empty_text", 2),
    ],
)
def test_unusable_data_is_rejected(
    content: str, code: str, status: int, cli: Run, model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "x.csv"
    file.write_text(content)
    result = cli("evaluate", "sentiment", "--data", str(file))
    assert (result.exit_code, f"({code})" in result.stderr) == (status, True), result.output


def test_unknown_label_error_lists_the_known_labels(cli: Run, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("text,label\na film,good\nfine,superb\n")
    result = cli("evaluate", "sentiment", "--data", str(file))
    assert "sentiment:1 has no label 'superb'; its labels are bad, good" in result.stderr
    assert "first in rows 2" in result.stderr


def test_unknown_labels_are_in_the_rows_of_the_file(cli: Run, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("text,label,part\na film,good,train\n\nfine,superb,test\nbad,bad,test\n")
    result = cli(
        *("evaluate", "sentiment", "--data", str(file), "--split-column", "part", "--split", "test")
    )
    assert (result.exit_code, "first in rows 3" in result.stderr) == (2, True), result.output


def test_unknown_names(cli: Run, model: Path, reviews: Path) -> None:
    no_model = cli("evaluate", "other", "--data", str(reviews))
    assert (no_model.exit_code, "(model_not_found)" in no_model.stderr) == (3, True)
    no_data = cli("evaluate", "sentiment", "--data", "films")
    assert (no_data.exit_code, "(dataset_not_found)" in no_data.stderr) == (3, True)
    no_file = cli("evaluate", "sentiment", "--data", "films.csv")
    assert (no_file.exit_code, "(data_not_found)" in no_file.stderr) == (2, True)


def test_truncated_texts_are_counted(cli: Run, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(f"text,label\n{'a film ' * 100},good\nfine,good\n")
    assert "1 of 2 texts were truncated" in cli("evaluate", "sentiment", "--data", str(file)).stderr


class Busy(Client):
    """Rejects the first requests, like an overloaded service."""

    left = 2
    code = 429

    def predict(
        self,
        texts: Sequence[TextInput],
        model: str | None,  # noqa: ARG002
        *,
        truncate: bool,  # noqa: ARG002
        target: str | None = None,  # noqa: ARG002
    ) -> PredictResponse:
        if self.left:
            self.left -= 1
            raise RequestRejected("full", "overloaded", self.code, (), 0.001)
        scores = [LabelScore(label="good", score=1.0), LabelScore(label="bad", score=0.0)]
        return PredictResponse(labels=[scores] * len(texts), version="m:1", truncated=0)


def test_only_overload_is_retried() -> None:
    needed: dict[str, Any] = {"model_id": "m:1", "max_client_batch_size": 1}
    info = ModelInfo.model_construct(**needed)
    with Busy("http://127.0.0.1:9") as client:
        assert evaluate.predict_all(client, info, ["a"], [["good"]]).version == "m:1"
        client.left, client.code = 1, 404
        with pytest.raises(RequestRejected):
            evaluate.predict_all(client, info, ["a"], [["good"]])
