"""Runs of every kind of task: against transformers, and from the file to the predictor."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, root_mean_squared_error
from transformers import AutoModelForSequenceClassification, pipeline

from lora_core.data.batching import epoch_batches
from lora_core.data.load import load_splits
from lora_core.export.hugging_face import export_merged
from lora_core.inference.predictor import Predictor
from lora_core.saved_predictions import check_golden_predictions
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec
from lora_core.tasks.regression import Regression
from lora_core.training.prepare import PreparedRun
from tests.lora_core.training.plain_updates import PLAIN_UPDATES, check_losses
from tests.lora_core.training.twins import product, stop_and_resume
from tests.recording_observer import RecordingObserver
from tests.slow import slow_but

Make = Callable[..., TrainSpec]
Train = Callable[..., tuple[RecordingObserver, Path]]

WORDS = ("good", "bad", "boring", "film", "story", "cast")
MULTI_LABEL: dict[str, Any] = {"type": "multi_label"}
REGRESSION: dict[str, Any] = {"type": "regression"}
RANKS: dict[str, Any] = {"type": "single_label", "ordered": True}


def write(path: Path, label: Callable[[list[str]], Any], rows: int = 240) -> Path:
    """Texts whose label is a function of their words."""
    generator = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            words = [WORDS[i] for i in generator.integers(0, len(WORDS), 6)]
            file.write(json.dumps({"text": " ".join(words), "label": label(words)}) + "\n")
    return path


def label_set(words: list[str]) -> list[str]:
    return [word for word in ("good", "bad", "boring") if word in words]


def number(words: list[str]) -> float:
    return 50.0 + 10 * words.count("good") - 10 * words.count("bad")


def rank(words: list[str]) -> int:
    return int(np.clip(3 + words.count("good") - words.count("bad"), 1, 5))


LABELS: dict[str, Callable[[list[str]], Any]] = {
    "multi_label": label_set,
    "regression": number,
    "ranks": rank,
}
TASKS = {"multi_label": MULTI_LABEL, "regression": REGRESSION, "ranks": RANKS}


@pytest.fixture(params=list(TASKS))
def data(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[dict[str, Any], Path]:
    """A task, and texts for it."""
    return TASKS[request.param], write(tmp_path / "texts.jsonl", LABELS[request.param])


def losses_of_transformers(prepared: PreparedRun, rate: float) -> list[float]:
    """The loss of each update of a plain loop; transformers computes it by the `problem_type`."""
    model = AutoModelForSequenceClassification.from_config(prepared.model.config)
    model.load_state_dict(prepared.model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    part, spec = prepared.tokenized[Split.TRAIN], prepared.spec
    targets = torch.from_numpy(part.targets)
    if isinstance(prepared.task, Regression):
        targets = (targets - targets.mean()) / targets.std(correction=0)
    losses = []
    for texts in epoch_batches(
        part.lengths, batch_size=spec.optim.batch_size or 0, seed=spec.runtime.seed, epoch=0
    ):
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(part.ids[i]).long() for i in texts], batch_first=True
        )
        loss = model(ids, attention_mask=(ids != 0).long(), labels=targets[texts]).loss
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("task", "label"), [(MULTI_LABEL, label_set), (REGRESSION, number)])
def test_losses_are_those_of_transformers(
    spec: Make, tmp_path: Path, task: dict[str, Any], label: Callable[[list[str]], Any]
) -> None:
    source = str(write(tmp_path / "texts.jsonl", label))
    check_losses(spec(task=task, data={"source": source}, **PLAIN_UPDATES), losses_of_transformers)


# Fast: `test_several_targets.py` has numbers as well. The vectors of the tiny base are random, so a
# probe learns less from them.
@pytest.mark.parametrize(
    "method", ["lora", *(pytest.param(name, marks=pytest.mark.slow) for name in ("probe", "full"))]
)
@pytest.mark.parametrize("data", slow_but(TASKS, "multi_label"), indirect=True)
def test_run_from_file_to_pipeline(
    spec: Make, train: Train, data: tuple[dict[str, Any], Path], method: str, tmp_path: Path
) -> None:
    task, source = data
    methods = {
        "lora": {"type": "lora", "r": 4},
        "probe": {"type": "probe"},
        "full": {"type": "full"},
    }
    described = spec(
        method=methods[method],
        task=task,
        data={"source": str(source)},
        optim={"epochs": 8, "learning_rate": 0.01 if method == "lora" else 2e-3},
    )
    observer, artifact = train(described)
    summary = observer.all("finished")[0].summary
    splits = load_splits(described.data, described.task)
    texts = [example.text for example in splits.test]
    predictor = Predictor.load(artifact)
    check_golden_predictions(predictor, artifact)
    scores = predictor.predict(texts)
    out = tmp_path / "exported"
    export_merged(artifact, out)
    config = json.loads((out / "config.json").read_text())
    assert config["problem_type"] == predictor.task.problem_type
    answers = pipeline("text-classification", model=str(out), top_k=None)(texts[:5])
    for answer, expected in zip(answers, scores, strict=False):
        found = {each["label"]: each["score"] for each in answer}
        assert found == pytest.approx(dict(expected), rel=1e-3, abs=1e-4)
    metrics = summary["test"]
    if task == MULTI_LABEL:
        thresholds = dict(zip(predictor.labels, predictor.calibration.thresholds, strict=True))
        predicted = [
            [dict(row)[name] >= thresholds[name] for name in splits.labels] for row in scores
        ]
        truth = predictor.task.targets([example.label for example in splits.test])
        assert metrics["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
        assert metrics["macro_f1"] > (0.7 if method == "probe" else 0.9)
    elif task == REGRESSION:
        truth = np.array([example.label for example in splits.test])
        predicted_numbers = [row[0][1] for row in scores]
        rmse = root_mean_squared_error(truth, predicted_numbers)
        assert metrics["rmse"] == pytest.approx(rmse, rel=0.01)
        assert rmse < truth.std() * (0.9 if method == "probe" else 0.5)
        assert metrics["spearman"] > (0.5 if method == "probe" else 0.8)
    else:
        assert metrics["kappa"] > (0.05 if method == "probe" else 0.7)
        assert metrics["mae"] < (1.2 if method == "probe" else 0.6)


@pytest.mark.parametrize("data", slow_but(TASKS, "multi_label"), indirect=True)
def test_resumed_run_is_bitwise_equal(
    spec: Make, train: Train, data: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    task, source = data
    optim = {"epochs": 1, "encoder_dropout": 0.1}
    described = spec(task=task, data={"source": str(source)}, optim=optim)
    _, whole = train(described)
    resumed = stop_and_resume(described, tmp_path, stop_at=10)
    assert product(resumed) == product(whole)
