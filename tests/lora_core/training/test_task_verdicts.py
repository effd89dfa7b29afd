"""Verdict, probe and `auto` on several labels and on numbers, against scikit-learn."""

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, root_mean_squared_error

from lora_core import manifest
from lora_core.data.load import load_splits
from lora_core.data.split import Example
from lora_core.inference.linear import LinearPredictor
from lora_core.inference.load import load_predictor
from lora_core.model_imports.check import check_imported_model
from lora_core.model_imports.metadata import MAX_MANIFEST_BYTES
from lora_core.specs.task import LossName
from lora_core.specs.train import TrainSpec
from lora_core.tasks.regression import Regression
from lora_core.tasks.several_targets import SeveralTargets
from lora_core.training import correctness
from lora_core.training.auto import train_auto
from lora_core.training.correctness import grade_predictions
from lora_core.training.encoder import train_encoder
from lora_core.training.linear import train_linear
from tests.lora_core.training.test_probe import vectors
from tests.recording_observer import RecordingObserver
from tests.slow import slow_but
from tests.task_files import LABELS, make_label_sets, make_numbers, make_rare

Make = Callable[..., TrainSpec]
TASKS = ("multi_label", "regression")
LINEAR: dict[str, Any] = {"type": "linear"}
LORA = {"type": "lora", "r": 4, "targets": ["query", "value"]}
AUTO = {
    "type": "auto",
    "candidates": [{"method": each} for each in (LINEAR, {"type": "probe"}, LORA)],
}


@pytest.fixture
def of_task(spec: Make, tmp_path: Path) -> Callable[..., TrainSpec]:
    """Return a function that describes a run of a task."""

    def make(task: str, **changes: Any) -> TrainSpec:
        files: dict[str, Callable[[Path], Path]] = {
            "multi_label": make_label_sets,
            "regression": make_numbers,
        }
        source = files[task](tmp_path / f"texts.{'jsonl' if task == 'multi_label' else 'csv'}")
        return spec(task={"type": task}, data={"source": str(source)}, **changes)

    return make


def run(spec: TrainSpec, out: Path) -> dict[str, Any]:
    train: Any = {"linear": train_linear, "auto": train_auto}.get(spec.method.type, train_encoder)
    observer = RecordingObserver()
    train(spec, out_dir=out, observer=observer, stop=observer)
    return manifest.verify(out)


def answers(out: Path, split: str = "test") -> list[dict[str, Any]]:
    lines = (out / "predictions" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def true_and_predicted(out: Path, task: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    lines = answers(out)
    if task == "regression":
        return tuple(np.array([each[name] for each in lines]) for name in ("label", "predicted"))  # type: ignore[return-value]
    rows = [
        [[i in each[name] for i in range(len(LABELS))] for each in lines]
        for name in ("label", "predicted")
    ]
    return np.array(rows[0]), np.array(rows[1])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "method",
    [
        LINEAR,
        *(pytest.param(each, marks=pytest.mark.slow) for each in (LORA, {"type": "probe"}, AUTO)),
    ],
    ids=lambda m: m["type"],
)
def test_run_is_evaluated_and_judged(
    task: str, method: dict[str, Any], of_task: Callable[..., TrainSpec], tmp_path: Path
) -> None:
    facts = run(of_task(task, method=method), tmp_path / "out")
    summary, out = facts["metrics"], tmp_path / "out"
    truth, predicted = true_and_predicted(out, task)
    verdict = summary["verdict"]
    if task == "multi_label":
        value = f1_score(truth, predicted, average="macro")
        assert summary["test"]["macro_f1"] == pytest.approx(value)
        assert (verdict["metric"], verdict["majority_label"]) == ("macro_f1", "every label")
        for name, labels in (("true_labels", truth), ("predicted_labels", predicted)):
            stored = zlib.decompress(base64.b64decode(facts["correctness"]["test"][name]))
            rows = np.frombuffer(stored, dtype=np.uint8).reshape(len(labels), -1)
            bits = np.unpackbits(rows, axis=1, count=len(LABELS))
            np.testing.assert_array_equal(bits, labels)
    else:
        value = root_mean_squared_error(truth, predicted)
        assert summary["test"]["rmse"] == pytest.approx(value, rel=1e-6)
        assert (verdict["metric"], verdict["majority_label"][:9]) == ("rmse", "the mean,")
        stored = base64.b64decode(facts["correctness"]["test"]["errors"])
        errors = np.frombuffer(stored, dtype="<f4")
        np.testing.assert_allclose(errors, predicted - truth, atol=1e-4)
    assert verdict["learned"]
    assert verdict["value"] == pytest.approx(value, rel=1e-6)
    assert verdict["low"] <= value <= verdict["high"]
    candidates = summary.get("selection", {"candidates": []})["candidates"]
    assert {each["metric"] for each in candidates} <= {verdict["metric"]}
    assert all(each["low"] <= each["value"] <= each["high"] for each in candidates)
    if "linear" in summary:
        assert summary["linear"]["test"][verdict["metric"]] > 0
    assert facts["calibration"]["scale"]
    assert summary["more_labels"]["code"] == "too_few"
    wrong = (out / "misclassified" / "test.jsonl").read_text().splitlines()
    if task == "regression":
        assert len(wrong) == len(truth)
        distances = [abs(float(each["label"]) - float(each["predicted"]))
                     for each in map(json.loads, wrong)]  # fmt: skip
        assert distances == sorted(distances, reverse=True)
    else:
        assert len(wrong) == int((truth != predicted).any(axis=1).sum())
    [texts] = [[each["text"] for each in json.loads((out / "golden.json").read_text())]]
    assert len(load_predictor(out).predict(texts)) == len(texts)
    assert check_imported_model(out).difference < 1e-3


@pytest.mark.parametrize("task", TASKS)
def test_probe_matches_scikit_learn(
    task: str, base: Path, of_task: Callable[..., TrainSpec], tmp_path: Path
) -> None:
    described = of_task(
        task, method={"type": "probe", "C": 2.0}, pooling="mean", runtime={"precision": "fp32"}
    )
    run(described, tmp_path / "out")
    splits = load_splits(described.data, described.task)
    x, test = (vectors(base, [each.text for each in part]) for part in (splits.train, splits.test))
    norm = np.linalg.norm(x, axis=1).mean()
    logits = np.array([each["logits"] for each in answers(tmp_path / "out")])
    if task == "regression":
        numbers = np.array([each.label for each in splits.train])
        ridge = Ridge(alpha=0.5).fit(x / norm, (numbers - numbers.mean()) / numbers.std())
        np.testing.assert_allclose(logits[:, 0], ridge.predict(test / norm), atol=5e-3)
        return
    for i in range(len(LABELS)):
        has_label = [i in each.label for each in splits.train]
        model = LogisticRegression(C=2.0, max_iter=10_000, tol=1e-8).fit(x / norm, has_label)
        expected = model.predict_proba(test / norm)[:, 1]
        np.testing.assert_allclose(expit(logits[:, i]), expected, atol=5e-3)


@pytest.mark.parametrize("task", TASKS)
def test_few_texts_are_judged_by_cross_validation(
    task: str, of_task: Callable[..., TrainSpec], tmp_path: Path
) -> None:
    few = {"train_size": 100, "validation_size": 40, "test_size": 60}
    described = of_task(task, method={"type": "probe"}, result={"cross_validation": True})
    described = described.model_copy(update={"data": described.data.model_copy(update=few)})
    verdict = run(described, tmp_path / "out")["metrics"]["verdict"]
    assert (verdict["measured_on"], verdict["texts"]) == ("cross_validation", 100)
    assert verdict["references"]["linear"]["texts"] == 100


@pytest.mark.parametrize("task", TASKS)
def test_explanation_of_a_linear_model_adds_up(
    task: str, of_task: Callable[..., TrainSpec], tmp_path: Path
) -> None:
    run(of_task(task, method=LINEAR), tmp_path / "out")
    predictor = load_predictor(tmp_path / "out")
    assert isinstance(predictor, LinearPredictor)
    [answer] = predictor.predict(["the film was great and fine"])
    for label, score in answer:
        words, start = predictor.contributions("the film was great and fine", label)
        assert start + sum(value for _, value in words) == pytest.approx(score, abs=1e-9)


def test_few_enough_texts_are_stored_for_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correctness, "MAX_COMPARED_TEXTS", 3)
    examples = [Example(i, f"text {i}", float(i)) for i in range(5)]
    found = grade_predictions(examples, Regression(0.0, 1.0), np.arange(5) + 0.5)
    assert found == grade_predictions(examples[:3], Regression(0.0, 1.0), np.arange(3) + 0.5)
    assert np.frombuffer(base64.b64decode(found["errors"]), dtype="<f4").tolist() == [0.5] * 3


def test_several_targets_share_the_texts_that_are_stored_for_comparisons() -> None:
    names = [f"number_{i}" for i in range(10)]
    task = SeveralTargets({name: Regression(0.0, 1.0) for name in names}, dict.fromkeys(names, 1.0))
    examples = [Example(i, f"text {i}", dict.fromkeys(names, float(i))) for i in range(10_000)]
    predicted = np.random.default_rng(0).random((10_000, 10))
    found = grade_predictions(examples, task, predicted)
    assert found["count"] == 1000
    assert 2 * len(json.dumps(found)) < MAX_MANIFEST_BYTES / 4  # validation and test


def test_head_of_lora_starts_from_the_regression(
    of_task: Callable[..., TrainSpec], tmp_path: Path
) -> None:
    """Even with a rate of nearly nothing, a model of numbers is better than the mean."""
    slow = {"epochs": 1, "learning_rate": 1e-10, "head_learning_rate": 1e-10}
    described = of_task("regression", method=LORA, optim=slow, head_init="probe")
    assert run(described, tmp_path / "out")["metrics"]["test"]["r2"] > 0


def test_ordered_labels_name_their_agreement(spec: Make, reviews: Path, tmp_path: Path) -> None:
    described = spec(method={"type": "linear"}, task={"ordered": True})
    summary = run(described, tmp_path / "out")["metrics"]
    assert "quadratic kappa is" in summary["verdict"]["sentences"][0]


@pytest.mark.parametrize(
    "method", slow_but([LINEAR, {"type": "probe"}], {"type": "probe"}), ids=lambda m: m["type"]
)
def test_thresholds_of_a_rare_label(method: dict[str, Any], spec: Make, tmp_path: Path) -> None:
    source = make_rare(tmp_path / "rare.csv")
    data = {"source": str(source), "validation_size": 0.25}
    facts = run(spec(method=method, task={"tune_thresholds": True}, data=data), tmp_path / "tuned")
    _, threshold = facts["calibration"]["thresholds"]
    assert threshold < 0.5  # of the rare label
    plain = run(spec(method=method, data=data), tmp_path / "plain")
    assert "thresholds" not in plain["calibration"]
    validation = [each["metrics"]["validation"]["macro_f1"] for each in (facts, plain)]
    assert validation[0] >= validation[1]
    lines = answers(tmp_path / "tuned")
    texts = {example.row: example.text for example in load_splits(
        TrainSpec.model_validate(facts["spec"]).data).test}  # fmt: skip
    predictor = load_predictor(tmp_path / "tuned")
    found = predictor.predict([texts[each["row"]] for each in lines])
    labels = facts["metrics"]["labels"]
    assert [row[0][0] for row in found] == [labels[each["predicted"]] for each in lines]


@pytest.mark.parametrize("task", slow_but(["single_label", "multi_label"], "single_label"))
def test_focal_loss_learns(
    task: str, spec: Make, of_task: Callable[..., TrainSpec], tmp_path: Path
) -> None:
    described = spec() if task == "single_label" else of_task(task, method=LORA)
    focal = described.task.model_copy(update={"loss": LossName.FOCAL})
    facts = run(described.model_copy(update={"task": focal}), tmp_path / "out")
    assert facts["spec"]["task"]["loss"] == "focal"
    assert facts["metrics"]["verdict"]["learned"]
