"""`loraworks predict` and `evaluate` with multi-label models and regressions, on a real service."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, f1_score, mean_absolute_error, r2_score

from app.resources import Resources
from lora_core.inference.predictor import Predictor
from tests.app.cli.conftest import Run, answer
from tests.app.cli.versions import add_version
from tests.tiny_artifact import (
    THRESHOLDS,
    TOPICS,
    make_multi_label_artifact,
    make_regression_artifact,
)

LABELED = [
    ("a good film", ("acting", "music")),
    ("a dull plot that was not fine", ("plot",)),
    ("boring", ()),
    ("the story was fine and the cast of it great", ("acting",)),
]
NUMBERS = [("a good film", 4.5), ("a dull plot", 1.0), ("the story was fine", 30.25)]


@pytest.fixture
def topics(resources: Resources, tmp_path: Path) -> Path:
    made = make_multi_label_artifact(tmp_path / "topics")
    add_version(resources, made, tmp_path / "copy")
    return made


@pytest.fixture
def stars(resources: Resources, tmp_path: Path) -> Path:
    made = make_regression_artifact(tmp_path / "stars")
    add_version(resources, made, tmp_path / "copy")
    return made


@pytest.fixture
def label_sets(tmp_path: Path) -> Path:
    file = tmp_path / "sets.jsonl"
    rows = [{"text": text, "label": labels} for text, labels in LABELED]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@pytest.mark.usefixtures("topics")
def test_predicted_labels_are_listed(cli: Run) -> None:
    response = answer(cli("predict", "a good film", "--json"))
    assert response["task"] == "multi_label"
    [prediction] = response["predictions"]
    predicted = [each for each in prediction["labels"] if each["predicted"]]
    shown = ", ".join(f"{each['label']} {100 * each['score']:.1f}%" for each in predicted)
    assert predicted
    assert f"{shown}  a good film" in cli("predict", "a good film").stdout


@pytest.mark.usefixtures("stars")
def test_number_is_shown_with_its_interval(cli: Run) -> None:
    [prediction] = answer(cli("predict", "a good film", "--json"))["predictions"]
    [number] = prediction["labels"]
    shown = cli("predict", "a good film", "--explain").stdout
    assert f"{number['score']:.4g}  {number['low']:.4g} to {number['high']:.4g}" in shown
    assert "towards value" in shown
    assert "%" not in shown


def scores_and_truth(topics: Path) -> tuple[Any, Any]:
    """Return the scores by the library, and the true labels, both (texts, labels)."""
    predictor = Predictor.load(topics)
    logits = predictor.forward(predictor.encode([text for text, _ in LABELED])).double().numpy()
    scale, offset = predictor.calibration.scale, predictor.calibration.offset
    truth = np.array([[name in labels for name in TOPICS] for _, labels in LABELED])
    return expit(np.array(scale) * logits + np.array(offset)), truth


def test_metrics_of_label_sets(cli: Run, topics: Path, label_sets: Path) -> None:
    response = answer(cli("evaluate", "sentiment", "--data", str(label_sets), "--json"))
    scores, truth = scores_and_truth(topics)
    predicted = scores >= np.array(THRESHOLDS)
    occurring = [f1_score(truth[:, i], predicted[:, i], zero_division=0) for i in range(3)]
    assert response["micro_f1"] == pytest.approx(f1_score(truth, predicted, average="micro"))
    assert response["macro_f1"] == pytest.approx(np.mean(occurring))
    assert response["map"] == pytest.approx(average_precision_score(truth, scores))
    assert response["accuracy"] == (truth == predicted).all(axis=1).mean()
    assert response["per_class"]["plot"]["threshold"] == THRESHOLDS[1]
    assert (response["task"], response["texts"], response["labels"]) == (
        "multi_label",
        len(LABELED),
        list(TOPICS),
    )
    shown = cli("evaluate", "sentiment", "--data", str(label_sets)).stdout
    assert f"micro F1                {100 * response['micro_f1']:.1f}%" in shown
    assert "threshold" in shown


@pytest.mark.usefixtures("topics")
def test_label_sets_in_other_forms(cli: Run, label_sets: Path, tmp_path: Path) -> None:
    expected = answer(cli("evaluate", "sentiment", "--data", str(label_sets), "--json"))
    separated, columns = tmp_path / "separated.csv", tmp_path / "columns.csv"
    separated.write_text(
        "text,label\n" + "".join(f"{t},{';'.join(names)}\n" for t, names in LABELED[:2])
    )
    columns.write_text(
        f"text,{','.join(TOPICS)}\n"
        + "".join(f"{t},{','.join(str(int(n in names)) for n in TOPICS)}\n" for t, names in LABELED)
    )
    options = ("--label-separator", ";", "--json")
    found = answer(cli("evaluate", "sentiment", "--data", str(separated), *options))
    assert found["texts"] == 2
    found = answer(
        cli("evaluate", "sentiment", "--data", str(columns), "--label-columns", ",".join(TOPICS),
            "--json")
    )  # fmt: skip
    assert found["per_class"] == expected["per_class"]
    assert found["accuracy"] == expected["accuracy"]


@pytest.mark.usefixtures("topics")
def test_labels_that_the_model_lacks(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "sets.jsonl"
    file.write_text('{"text": "a", "label": ["plot"]}\n{"text": "b", "label": ["plot", "zoo"]}\n')
    refused = cli("evaluate", "sentiment", "--data", str(file))
    assert (refused.exit_code, "(unknown_label)" in refused.stderr) == (2, True), refused.output
    assert "no label 'zoo'" in refused.stderr
    assert "first in rows 2" in refused.stderr


def test_metrics_of_numbers(cli: Run, stars: Path, tmp_path: Path) -> None:
    file = tmp_path / "numbers.csv"
    file.write_text("text,label\n" + "".join(f"{text},{number}\n" for text, number in NUMBERS))
    response = answer(cli("evaluate", "sentiment", "--data", str(file), "--json"))
    predictor, truth = Predictor.load(stars), [number for _, number in NUMBERS]
    logits = predictor.forward(predictor.encode([text for text, _ in NUMBERS])).double().numpy()
    values = 3.0 + 2.0 * logits[:, 0]
    assert response["mae"] == pytest.approx(mean_absolute_error(truth, values))
    assert response["r2"] == pytest.approx(r2_score(truth, values))
    assert response["spearman"] == pytest.approx(spearmanr(truth, values).statistic)
    assert response["rmse"] == pytest.approx(np.sqrt(np.mean((values - truth) ** 2)))
    assert response["coverage"] == np.mean(np.abs(values - truth) <= 0.5)
    shown = cli("evaluate", "sentiment", "--data", str(file)).stdout
    assert "mean absolute error" in shown
    assert "numbers within their interval" in shown


@pytest.mark.usefixtures("stars")
def test_options_of_another_task(cli: Run, label_sets: Path) -> None:
    refused = cli("evaluate", "sentiment", "--data", str(label_sets), "--label-separator", ";")
    assert (refused.exit_code, "(wrong_options)" in refused.stderr) == (2, True), refused.output
    refused = cli("evaluate", "sentiment", "--data", str(label_sets))
    assert "regression" not in refused.stdout
    assert refused.exit_code == 2
