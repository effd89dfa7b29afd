"""`loraworks evaluate` against a running service with a small real model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from app.cli import evaluate
from app.cli.client import Client, Predictions
from app.cli.errors import Refused
from app.resources import Resources
from lora_core.data.load import load
from lora_core.data.rows import Columns
from lora_core.inference.predictor import Predictor
from lora_core.specs.data import DataSpec, Split
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


def test_figures_are_those_of_the_model_itself(
    cli: Run, model: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "BATCH", 2)
    told = answer(cli("evaluate", "sentiment", "--data", str(reviews), "--json"))
    assert (told["model"], told["split"], told["texts"]) == ("sentiment:1", None, 5)
    predictor = Predictor.load(model)
    logits = predictor.forward(predictor.encode([text for text, _ in REVIEWS]))
    truth = torch.tensor([predictor.labels.index(label) for _, label in REVIEWS])
    assert told["loss"] == pytest.approx(float(F.cross_entropy(logits, truth)), abs=1e-5)
    assert told["accuracy"] == float((logits.argmax(1) == truth).double().mean())
    assert told["labels"] == ["bad", "good"]
    assert np.array(told["confusion_matrix"]).sum(axis=1).tolist() == [2, 3]


def test_people_get_a_table(cli: Run, model: Path, reviews: Path) -> None:
    shown = cli("evaluate", "sentiment:1", "--data", str(reviews))
    assert shown.exit_code == 0, shown.output
    assert "60.0 % ± 21.9 % (standard error)" in shown.stdout
    assert "as good" in shown.stdout
    assert "5 texts" in shown.stdout


def test_a_part_that_the_file_names(cli: Run, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "parts.jsonl"
    rows = [
        {"review": text, "mood": label, "split": ("train", "test")[i % 2]}
        for i, (text, label) in enumerate(REVIEWS)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    columns = ("--text-column", "review", "--label-column", "mood")
    told = answer(cli("evaluate", "sentiment", "--data", str(file), *columns, "--json"))
    assert (told["split"], told["texts"]) == ("test", 2)
    more = answer(
        cli("evaluate", "sentiment", "--data", str(file), *columns, "--json", "--split", "train")
    )
    assert (more["split"], more["texts"]) == ("train", 3)
    missing = cli("evaluate", "sentiment", "--data", str(file), *columns, "--split", "validation")
    assert missing.exit_code == 2
    assert "(missing_split)" in missing.stderr


def test_a_data_set_of_the_service_with_its_own_columns(
    cli: Run, model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "films.tsv"
    rows = "".join(f"a film number {i}\t{'good' if i % 2 else 'bad'}\n" for i in range(40))
    file.write_text("review\tmood\n" + rows)
    columns = ("--text-column", "review", "--label-column", "mood")
    answer(cli("datasets", "upload", str(file), *columns, "--json"))
    told = answer(cli("evaluate", "sentiment", "--data", "films:1", "--json"))
    assert (told["texts"], told["split"], told["accuracy"]) == (40, None, 0.5)
    drawn = answer(cli("evaluate", "sentiment", "--data", "films", "--split", "test", "--json"))
    assert drawn["texts"] == 8


def test_an_upload_without_labels_is_refused_before_it_is_fetched(
    cli: Run, model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "films.csv"
    file.write_text("text\na good film\n")
    made = answer(cli("datasets", "upload", str(file), "--purpose", "predict", "--json"))
    refused = cli("evaluate", "sentiment", "--data", made["ref"])
    assert (refused.exit_code, "(no_labels)" in refused.stderr) == (2, True), refused.output


@pytest.mark.parametrize("part", list(Split))
def test_parts_that_are_drawn_are_those_of_a_training(part: Split, tmp_path: Path) -> None:
    file = tmp_path / "films.csv"
    file.write_text("text,label\n" + "".join(f"film {i},{'ab'[i % 2]}\n" for i in range(50)))
    with Client("http://127.0.0.1:9") as client:
        found = evaluate.read(client, str(file), Columns(), part)
    trained = load(DataSpec(source=str(file))).part(part)
    assert [row.number for row in found.rows] == [example.row for example in trained]


def test_of_a_sample_the_test_part_is_scored() -> None:
    with Client("http://127.0.0.1:9") as client:
        found = evaluate.read(client, "rotten-tomatoes", Columns(), None)
    assert found.part is Split.TEST
    assert len(found.rows) == len(load(DataSpec()).test)


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
def test_what_cannot_be_scored_is_refused(
    content: str, code: str, status: int, cli: Run, model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "x.csv"
    file.write_text(content)
    result = cli("evaluate", "sentiment", "--data", str(file))
    assert (result.exit_code, f"({code})" in result.stderr) == (status, True), result.output


def test_an_unknown_label_is_named_beside_those_that_there_are(
    cli: Run, model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "x.csv"
    file.write_text("text,label\na film,good\nfine,superb\n")
    result = cli("evaluate", "sentiment", "--data", str(file))
    assert "'superb' is none of sentiment:1's, which are bad, good" in result.stderr
    assert "first in places 2" in result.stderr


def test_names_of_nothing(cli: Run, model: Path, reviews: Path) -> None:
    no_model = cli("evaluate", "other", "--data", str(reviews))
    assert (no_model.exit_code, "(model_not_found)" in no_model.stderr) == (3, True)
    no_data = cli("evaluate", "sentiment", "--data", "films")
    assert (no_data.exit_code, "(dataset_not_found)" in no_data.stderr) == (3, True)
    no_file = cli("evaluate", "sentiment", "--data", "films.csv")
    assert (no_file.exit_code, "(data_not_found)" in no_file.stderr) == (2, True)


def test_texts_that_were_cut_are_counted(cli: Run, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(f"text,label\n{'a film ' * 100},good\nfine,good\n")
    assert "1 of 2 texts were longer" in cli("evaluate", "sentiment", "--data", str(file)).stderr


class Busy(Client):
    """Refuses the first calls as an overloaded service does."""

    left = 2
    code = 429

    def predict(
        self,
        texts: list[str],
        model: str | None,  # noqa: ARG002
        *,
        truncate: bool,  # noqa: ARG002
    ) -> Predictions:
        if self.left:
            self.left -= 1
            raise Refused("full", "overloaded", self.code, (), 0.001)
        labels = [[{"label": "good", "score": 1.0}, {"label": "bad", "score": 0.0}] for _ in texts]
        return Predictions(labels=labels, version="m:1", truncated=0)  # type: ignore[arg-type]


def test_an_overloaded_service_is_waited_for_and_no_other_refusal() -> None:
    with Busy("http://127.0.0.1:9") as client:
        assert evaluate._ask(client, "m", ["a"], ["good"]).version == "m:1"
        client.left, client.code = 1, 404
        with pytest.raises(Refused):
            evaluate._ask(client, "m", ["a"], ["good"])
