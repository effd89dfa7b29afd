"""Runs with several targets: against transformers and plain torch, and against single tasks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, r2_score, root_mean_squared_error
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, pipeline

from lora_core.data.batching import epoch_batches
from lora_core.data.load import load_splits
from lora_core.errors.artifact import TargetRequired, UnknownTarget
from lora_core.export.hugging_face import export_adapter, export_merged
from lora_core.inference.load import load_predictor
from lora_core.saved_predictions import check_golden_predictions
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec
from lora_core.tasks.several_targets import SeveralTargets
from lora_core.training.auto import train_auto
from lora_core.training.linear import train_linear
from lora_core.training.prepare import PreparedRun
from tests.lora_core.training.plain_updates import PLAIN_UPDATES, check_losses
from tests.lora_core.training.twins import product, stop_and_resume
from tests.recording_observer import RecordingObserver
from tests.slow import slow_but

Make = Callable[..., TrainSpec]
Train = Callable[..., tuple[RecordingObserver, Path]]

WORDS = ("good", "bad", "boring", "film", "story", "cast")
TARGETS: dict[str, Any] = {
    "stars": {"type": "regression", "column": "rating", "weight": 0.5},
    "topic": {"type": "single_label", "class_weights": "balanced"},
    "flags": {"type": "multi_label", "weight": 2.0},
}
TASK: dict[str, Any] = {"type": "several_targets", "targets": TARGETS}
ORDER = ("flags", "stars", "topic")


def row_of(words: list[str]) -> dict[str, Any]:
    return {
        "text": " ".join(words),
        "rating": 50.0 + 10 * words.count("good") - 10 * words.count("bad"),
        "topic": max(("film", "story", "cast"), key=words.count),
        "flags": [word for word in ("bad", "boring") if word in words],
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Texts of which three things are to be predicted."""
    generator = np.random.default_rng(0)
    rows = [row_of([WORDS[i] for i in generator.integers(0, len(WORDS), 6)]) for _ in range(240)]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def losses_by_hand(prepared: PreparedRun, rate: float) -> list[float]:
    """The loss of each update of a plain loop, from the losses of torch."""
    model = AutoModelForSequenceClassification.from_config(prepared.model.config)
    model.load_state_dict(prepared.model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    part, spec = prepared.tokenized[Split.TRAIN], prepared.spec
    examples = prepared.splits.train
    flags = torch.tensor([[float(i in each.label["flags"]) for i in (0, 1)] for each in examples])
    stars = torch.tensor([each.label["stars"] for each in examples])
    stars = (stars - stars.mean()) / stars.std(correction=0)
    topic = torch.tensor([each.label["topic"] for each in examples])
    class_weights = len(topic) / (3 * torch.bincount(topic))
    losses = []
    for texts in epoch_batches(
        part.lengths, batch_size=spec.optim.batch_size or 0, seed=spec.runtime.seed, epoch=0
    ):
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(part.ids[i]).long() for i in texts], batch_first=True
        )
        logits = model(ids, attention_mask=(ids != 0).long()).logits
        loss = (
            2.0 * F.binary_cross_entropy_with_logits(logits[:, :2], flags[texts])
            + 0.5 * F.mse_loss(logits[:, 2], stars[texts])
            + F.cross_entropy(logits[:, 3:], topic[texts], weight=class_weights)
        )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_losses_are_the_weighted_sums_of_those_of_torch(spec: Make, source: Path) -> None:
    described = spec(task=TASK, data={"source": str(source)}, **PLAIN_UPDATES)
    prepared = check_losses(described, losses_by_hand)
    assert prepared.task.labels == (
        "flags/bad", "flags/boring", "stars/value", "topic/cast", "topic/film", "topic/story",
    )  # fmt: skip


@pytest.mark.parametrize(
    "method",
    [
        *("lora", "probe", "linear"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("full", "baseline", "auto")),
    ],
)
def test_run_of_each_method(
    spec: Make, source: Path, train: Train, method: str, tmp_path: Path
) -> None:
    described = spec(
        method={"type": method, **({"r": 4} if method == "lora" else {})},
        task=TASK,
        data={"source": str(source)},
        runtime={"precision": "fp32"},
        **(
            {"optim": {"epochs": 8, "learning_rate": 0.01 if method == "lora" else 2e-3}}
            if method in ("lora", "full", "baseline")
            else {}
        ),
        **({"stop": {}} if method == "auto" else {}),
    )
    if method in ("linear", "auto"):
        observer, artifact = RecordingObserver(), tmp_path / "out"
        run = train_linear if method == "linear" else train_auto
        run(described, out_dir=artifact, observer=observer, stop=observer)
    else:
        observer, artifact = train(described)
    summary = observer.all("finished")[0].summary
    assert set(summary["more_labels"]["targets"]) == {"topic", "stars", "flags"}
    splits = load_splits(described.data, described.task)
    predictor = load_predictor(artifact)
    check_golden_predictions(predictor, artifact)
    items: Any = predictor.encode([example.input for example in splits.test])
    outputs = predictor.decode_outputs(predictor.forward(items))
    assert [output.target for output in outputs[0]] == [
        "flags", "flags", "stars", "topic", "topic", "topic",
    ]  # fmt: skip
    by_target = [
        {name: [each for each in row if each.target == name] for name in ORDER} for row in outputs
    ]
    truth = [example.label for example in splits.test]
    metrics = summary["test"]["targets"]
    names = ("cast", "film", "story")
    accuracy = accuracy_score(
        [names[each["topic"]] for each in truth], [row["topic"][0].label for row in by_target]
    )
    assert metrics["topic"]["accuracy"] == pytest.approx(accuracy)
    numbers = [each["stars"] for each in truth]
    predicted = [row["stars"][0].score for row in by_target]
    assert metrics["stars"]["rmse"] == pytest.approx(
        root_mean_squared_error(numbers, predicted), rel=1e-3
    )
    true_flags = [[i in each["flags"] for i in (0, 1)] for each in truth]
    flags = [
        [{each.label: each.predicted for each in row["flags"]}[name] for name in ("bad", "boring")]
        for row in by_target
    ]
    macro_f1 = f1_score(true_flags, flags, average="macro")
    assert metrics["flags"]["macro_f1"] == pytest.approx(macro_f1)
    majority = max(np.bincount([each["topic"] for each in truth])) / len(truth)
    always = f1_score(true_flags, np.ones_like(true_flags), average="macro")
    skills = [
        (accuracy - majority) / (1 - majority),
        r2_score(numbers, predicted),
        (macro_f1 - always) / (1 - always),
    ]
    assert summary["test"]["skill"] == pytest.approx(np.mean(skills), abs=1e-3)
    verdict = summary["verdict"]
    assert verdict["metric"] == "skill"
    assert set(verdict["targets"]) == set(ORDER)
    assert verdict["targets"]["topic"]["metric"] == "accuracy"
    if method not in ("probe", "baseline"):  # the vectors of the tiny base are random
        assert summary["test"]["skill"] > 0.2


def test_probe_of_a_target_is_that_of_the_target_alone(
    spec: Make, source: Path, train: Train
) -> None:
    """The probe fits each target on the same vectors, so the others change nothing."""
    files = {"source": str(source)}
    split: dict[str, Any] = {"validation_size": 40, "test_size": 40}
    _, several = train(spec(method={"type": "probe"}, task=TASK, data={**files, **split}))
    predictor = load_predictor(several)
    assert isinstance(predictor.task, SeveralTargets)
    described = spec(method={"type": "probe"}, task=TASK, data={**files, **split})
    splits = load_splits(described.data, described.task)
    rows = [
        json.dumps(
            {"text": each.text, "label": splits.labels[3 + each.label["topic"]], "split": name}
        )
        for name in Split
        for each in splits.examples_of(name)
    ]
    alone = source.with_name("topic.jsonl")
    alone.write_text("\n".join(rows), encoding="utf-8")
    _, single = train(
        spec(
            method={"type": "probe"},
            task={"type": "single_label", "class_weights": "balanced"},
            data={"source": str(alone)},
        )
    )
    texts = [each.text for each in splits.test]
    reference = load_predictor(single)
    items: Any = predictor.encode(texts)
    of_topic = np.asarray(predictor.forward(items))[:, predictor.task.outputs["topic"]]
    items = reference.encode(texts)
    np.testing.assert_allclose(of_topic, np.asarray(reference.forward(items)), atol=1e-4)


@pytest.mark.parametrize("target", slow_but(ORDER, "stars"))
def test_export_of_a_target_answers_the_same_in_the_stock_pipeline(
    spec: Make, source: Path, train: Train, target: str, tmp_path: Path
) -> None:
    described = spec(task=TASK, data={"source": str(source)}, runtime={"precision": "fp32"})
    _, artifact = train(described)
    predictor = load_predictor(artifact)
    texts = ["good film film story", "bad cast boring", "story"]
    items: Any = predictor.encode(texts)
    expected = [
        {each.label: each.score for each in row if each.target == target}
        for row in predictor.decode_outputs(predictor.forward(items))
    ]
    export_merged(artifact, tmp_path / "merged", target=target)
    export_adapter(artifact, tmp_path / "peft", target=target)
    for folder in ("merged", "peft"):
        answers = pipeline("text-classification", model=str(tmp_path / folder), top_k=None)(texts)
        found = [{each["label"]: each["score"] for each in answer} for answer in answers]
        for one, other in zip(found, expected, strict=True):
            assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    with pytest.raises(TargetRequired, match="flags, stars, topic"):
        export_merged(artifact, tmp_path / "none")
    with pytest.raises(UnknownTarget):
        export_adapter(artifact, tmp_path / "none", target="mood")


@pytest.mark.slow  # resumes as test_exactness.py and test_tasks.py do
def test_resumed_run_is_bitwise_equal(
    spec: Make, source: Path, train: Train, tmp_path: Path
) -> None:
    described = spec(task=TASK, data={"source": str(source)}, optim={"encoder_dropout": 0.1})
    _, whole = train(described)
    resumed = stop_and_resume(described, tmp_path, stop_at=10)
    assert product(resumed) == product(whole)
