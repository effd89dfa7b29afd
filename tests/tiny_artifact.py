"""Make the artifact of a tiny encoder in a fraction of a second."""

from pathlib import Path
from typing import Any

import torch

from lora_core import manifest
from lora_core.artifact import save_merged_model
from lora_core.inference.predictor import Predictor
from lora_core.manifest import FORMAT_VERSION
from lora_core.saved_predictions import save_golden_predictions
from lora_core.specs.data import DataSpec
from lora_core.specs.method import LoraSpec
from lora_core.specs.task import (
    MultiLabelSpec,
    RegressionSpec,
    SeveralTargetsSpec,
    SingleLabelSpec,
    TaskSpec,
)
from lora_core.specs.train import TrainSpec
from lora_core.tasks.base import Calibration
from tests.made_once import make_or_copy
from tests.tiny_base import distilbert, tokenizer

TEXTS = ("a good film", "a dull plot", "the story was fine")
PROBLEM_TYPES = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
    "several_targets": None,
}
PAIRS = tuple(zip(TEXTS, reversed(TEXTS), strict=True))


def make_artifact(
    directory: Path,
    *,
    labels: tuple[str, ...] = ("bad", "good"),
    top_label: str = "good",
    seed: int = 0,
    max_length: int = 64,
    metrics: dict[str, Any] | None = None,
    task: TaskSpec = SingleLabelSpec(),
    calibration: Calibration | None = None,
    pairs: bool = False,
    windows: bool = False,
    heads: int = 4,
) -> Path:
    """Make a two-layer DistilBERT that gives `top_label` the highest score for any text, or for any
    pair of texts. With `windows` it reads long texts in windows."""
    return make_or_copy(
        _write_artifact,
        directory,
        labels=labels,
        top_label=top_label,
        seed=seed,
        max_length=max_length,
        metrics=metrics,
        task=task,
        calibration=calibration,
        pairs=pairs,
        windows=windows,
        heads=heads,
    )


def _write_artifact(
    directory: Path,
    *,
    labels: tuple[str, ...],
    top_label: str,
    seed: int,
    max_length: int,
    metrics: dict[str, Any] | None,
    task: TaskSpec,
    calibration: Calibration | None,
    pairs: bool,
    windows: bool,
    heads: int,
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = distilbert(labels=len(labels), n_heads=heads)
    with torch.no_grad():
        model.get_parameter("classifier.bias")[labels.index(top_label)] += 3.0
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: i for i, label in enumerate(labels)}
    model.config.problem_type = PROBLEM_TYPES[task.type]

    directory.mkdir(parents=True)
    save_merged_model(directory, model, tokenizer(), max_length, pairs=pairs)
    predictor = Predictor.from_model(model, tokenizer(), max_length, pairs=pairs, windows=windows)
    texts = PAIRS if pairs else TEXTS
    save_golden_predictions(directory, texts, predictor.forward(predictor.encode(texts)).numpy())
    data = DataSpec(
        text_pair_column="second" if pairs else None, long_texts="windows" if windows else "cut"
    )
    spec = TrainSpec(method=LoraSpec(), task=task, data=data)
    manifest.create_and_save(
        directory,
        {
            "format": FORMAT_VERSION,
            "created_by": {"loraworks": "0"},
            "spec": spec.model_dump(mode="json"),
            "encoder": "distilbert",
            "max_length": max_length,
            "data_sha256": "0" * 64,
            "metrics": metrics
            or {"labels": list(labels), "validation": {"accuracy": 0.8, "macro_f1": 0.79}},
            **({"calibration": calibration.model_dump(mode="json")} if calibration else {}),
        },
    )


TOPICS = ("acting", "plot", "music")
THRESHOLDS = (0.5, 0.9, 0.2)


def make_multi_label_artifact(
    directory: Path,
    *,
    thresholds: tuple[float, ...] = THRESHOLDS,
    seed: int = 0,
    metrics: dict[str, Any] | None = None,
) -> Path:
    """Make a model of `TOPICS` that predicts only `acting` for most texts."""
    return make_artifact(
        directory,
        metrics=metrics,
        labels=TOPICS,
        top_label="acting",
        seed=seed,
        task=MultiLabelSpec(),
        calibration=Calibration(
            scale=(1.0, 1.5, 0.5), offset=(0.0, 0.1, -2.0), thresholds=thresholds
        ),
    )


def make_regression_artifact(
    directory: Path, *, half_width: float | None = 0.5, pairs: bool = False, seed: int = 0
) -> Path:
    """Make a model of numbers with the mean 3 and the standard deviation 2."""
    return make_artifact(
        directory,
        labels=("value",),
        top_label="value",
        seed=seed,
        pairs=pairs,
        task=RegressionSpec(),
        calibration=Calibration(scale=(2.0,), offset=(3.0,), half_width=half_width),
    )


TARGETS = {"flags": {"type": "multi_label"}, "stars": {"type": "regression"}, "topic": {}}


def make_several_targets_artifact(
    directory: Path, *, metrics: dict[str, Any] | None = None
) -> Path:
    """Make a model of `TARGETS` that predicts the topic `refund` for any text."""
    outputs = ("flags/rude", "flags/urgent", "stars/value", "topic/billing", "topic/refund")
    calibration = Calibration(
        targets={
            "flags": Calibration(scale=(1.0, 2.0), offset=(0.0, 0.5), thresholds=(0.5, 0.3)),
            "stars": Calibration(scale=(2.0,), offset=(3.0,), half_width=0.25),
            "topic": Calibration(temperature=2.0),
        }
    )
    return make_artifact(
        directory,
        metrics=metrics,
        labels=outputs,
        top_label="topic/refund",
        task=SeveralTargetsSpec.model_validate({"targets": TARGETS}),
        calibration=calibration,
    )
