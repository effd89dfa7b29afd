"""Tests of models of different tasks that share an encoder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lora_core.errors.artifact import EngineOutputMismatch
from lora_core.inference.engines import EngineCache
from lora_core.inference.predictor import Predictor
from lora_core.saved_predictions import check_golden_predictions
from lora_core.specs.method import LoraSpec
from lora_core.specs.task import MultiLabelSpec, RegressionSpec, SingleLabelSpec, TaskSpec
from lora_core.tasks.base import Calibration
from tests.lora_artifact import make_lora_artifact
from tests.plain_checkpoint import plain_checkpoint
from tests.tiny_artifact import TEXTS, TOPICS
from tests.tiny_base import make_base, tokenizer

MODELS: dict[str, tuple[TaskSpec, tuple[str, ...], Calibration | None]] = {
    "single_label": (SingleLabelSpec(), ("bad", "good"), None),
    "multi_label": (
        MultiLabelSpec(),
        TOPICS,
        Calibration(scale=(1.0, 2.0, 0.5), offset=(0.0, 0.1, -1.0), thresholds=(0.5,) * 3),
    ),
    "regression": (
        RegressionSpec(),
        ("value",),
        Calibration(scale=(2.0,), offset=(3.0,), half_width=0.5),
    ),
}


@pytest.fixture
def artifacts(tmp_path: Path) -> dict[str, Path]:
    """A model of each task on the same base."""
    base = make_base(tmp_path / "base")
    return {
        name: make_lora_artifact(
            tmp_path / name,
            LoraSpec(r=2 + seed),
            base=base,
            labels=labels,
            seed=seed,
            task=task,
            calibration=calibration,
        )
        for seed, (name, (task, labels, calibration)) in enumerate(MODELS.items())
    }


def test_texts_of_one_batch_may_have_models_of_different_tasks(artifacts: dict[str, Path]) -> None:
    """Each text gets the answer of an export of its own model, which has the calibration in it."""
    cache = EngineCache()
    predictors = [Predictor.load(each, engine_cache=cache) for each in artifacts.values()]
    [engine] = {predictor.engine for predictor in predictors}
    asked = [(predictor, text) for text in TEXTS for predictor in predictors]
    items = [predictor.encode([text])[0] for predictor, text in asked]
    rows = engine.logits(items, [predictor.adapter for predictor, _ in asked])
    plain = {
        predictor: AutoModelForSequenceClassification.from_pretrained(plain_checkpoint(each)).eval()
        for predictor, each in zip(predictors, artifacts.values(), strict=True)
    }
    for (predictor, text), row in zip(asked, rows, strict=True):
        with torch.no_grad():
            expected = plain[predictor](torch.tensor([tokenizer().encode(text).ids])).logits[0]
        assert row.shape == (len(predictor.labels),)
        calibrated = predictor.task.calibrated_logits(row.numpy(), predictor.calibration)
        np.testing.assert_allclose(calibrated, expected.numpy(), rtol=1e-4, atol=1e-5)
    single, several, number = (
        predictor.decode_outputs(row[None])[0]
        for predictor, row in zip(predictors, rows, strict=False)
    )
    assert sum(output.score for output in single) == pytest.approx(1)
    assert all(output.predicted == (output.score >= 0.5) for output in several)
    assert [output.label for output in number] == ["value"]


@pytest.mark.parametrize("name", list(MODELS))
def test_golden_predictions_of_each_task(artifacts: dict[str, Path], name: str) -> None:
    directory = artifacts[name]
    predictor = Predictor.load(directory)
    assert check_golden_predictions(predictor, directory) < 1e-4
    rows = json.loads((directory / "golden.json").read_text())
    rows[0]["logits"][0] += 2e-4
    (directory / "golden.json").write_text(json.dumps(rows))
    with pytest.raises(EngineOutputMismatch):
        check_golden_predictions(predictor, directory)


@pytest.mark.parametrize(("name", "refused"), [("single_label", True), ("multi_label", False)])
def test_first_label_matters_only_if_there_is_one(
    artifacts: dict[str, Path], name: str, refused: bool
) -> None:
    """Rounding may swap two labels that are equally probable, which changes no set of labels."""
    directory = artifacts[name]
    predictor = Predictor.load(directory)
    weight, bias = predictor.adapter.head[1]
    assert bias is not None
    weight[1], bias[1] = weight[0], bias[0] + 1e-6
    bias[2:] -= 100
    rows = json.loads((directory / "golden.json").read_text())
    logits = predictor.forward(predictor.encode([row["text"] for row in rows])).tolist()
    for row, (first, second, *others) in zip(rows, logits, strict=True):
        row["logits"] = [second, first, *others]
    (directory / "golden.json").write_text(json.dumps(rows))
    if refused:
        with pytest.raises(EngineOutputMismatch):
            check_golden_predictions(predictor, directory)
    else:
        assert check_golden_predictions(predictor, directory) < 1e-4
