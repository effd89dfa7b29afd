"""Initialization of the head, against scikit-learn on vectors of transformers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression, Ridge

from lora_core.errors.training import NonFiniteEncoderStates
from lora_core.progress_reporter import ProgressReporter
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec
from lora_core.training import model_outputs, probe
from lora_core.training.prepare import PreparedRun, prepare_run
from lora_core.training.probe import draw_stratified_indices
from lora_core.training.resume import build_or_resume_trainer
from tests.lora_core.training.test_probe import break_states, vectors
from tests.recording_observer import RecordingObserver
from tests.task_files import make_numbers
from tests.tiny_base import FAMILIES, make_base, make_reviews, whole_layers

Make = Callable[..., TrainSpec]
Train = Callable[..., tuple[RecordingObserver, Path]]


def activation(family: str, x: Any) -> Any:
    """What the first layer of the head makes of states x."""
    match family:
        case "distilbert":
            return np.maximum(x + 2, 0)
        case "electra":
            return (x + 2) * norm.cdf(x + 2)  # gelu
        case "modernbert":
            hidden = 0.3 * x * norm.cdf(0.3 * x)  # gelu, then a norm
            hidden -= hidden.mean(axis=1, keepdims=True)
            return hidden / hidden.std(axis=1, keepdims=True)
        case _:
            return np.tanh(0.3 * x)


LORA = {"type": "lora", "r": 4, "dropout": 0.1, "targets": ["query", "value"]}
QUICK = ("distilbert", "roberta", "modernbert")  # families whose heads differ
METHODS: dict[str, dict[str, Any]] = {
    "lora": LORA,
    "one block": {"type": "baseline", "blocks": 1},
    "last layers": {"type": "baseline"},
    "full": {"type": "full"},
}


def started(spec: TrainSpec) -> PreparedRun:
    """A run before its first step."""
    observer = RecordingObserver()
    progress = ProgressReporter(observer, observer)
    prepared = prepare_run(spec, observer, progress)
    build_or_resume_trainer(
        prepared, observer=observer, progress=progress, checkpoint_settings=None, saved=None
    )
    return prepared


def answers(prepared: PreparedRun) -> Any:
    """Probabilities (texts, labels) for the test split."""
    observer, part = RecordingObserver(), prepared.tokenized[Split.TEST]
    progress = ProgressReporter(observer, observer)
    return softmax(
        model_outputs.compute_logits(prepared.forward, part, budget=512, progress=progress), axis=1
    )


def expected(prepared: PreparedRun, base: Path, family: str, weights: str, which: Any) -> Any:
    """Probabilities of a regression on some of the training texts."""
    train, test = (
        activation(family, vectors(base, [example.text for example in part]))
        for part in (prepared.splits.train, prepared.splits.test)
    )
    # Any shift gives the same probabilities, since the intercept is not regularized.
    slope = 1.0 if family in ("distilbert", "electra", "modernbert") else 0.3
    scale = slope * np.sqrt(train.shape[1])
    labels = np.array([example.label for example in prepared.splits.train])
    model = LogisticRegression(
        C=80 * len(set(labels)) / len(labels[which]),
        max_iter=10_000,
        tol=1e-8,
        class_weight=None if weights == "none" else "balanced",
    )
    model.fit(train[which] / scale, labels[which])
    return model.predict_proba(test / scale)


@pytest.mark.parametrize(
    ("family", "method", "weights"),
    [
        *(
            pytest.param(family, "lora", "none", marks=() if family in QUICK else pytest.mark.slow)
            for family in FAMILIES
        ),
        *(
            pytest.param(
                *("distilbert", method, "balanced"),
                marks=() if method in ("lora", "full") else pytest.mark.slow,
            )
            for method in METHODS
        ),
    ],
)
def test_initial_head_matches_logistic_regression(
    spec: Make, tmp_path: Path, family: str, method: str, weights: str
) -> None:
    labels = ("bad", "good") if method == "lora" else ("bad", "bad", "good", "fine")
    base = make_base(tmp_path / "a base", family)
    described = dict(METHODS[method])
    if "targets" in described:
        described["targets"] = whole_layers(family, *described["targets"])
    prepared = started(
        spec(
            method=described,
            base=str(base),
            pooling="mean",
            head_init="probe",
            data={"source": str(make_reviews(tmp_path / "texts.csv", labels=labels))},
            task={"class_weights": weights},
            optim={"encoder_dropout": 0.1 if method == "full" else 0.0, "head_dropout": 0.2},
            runtime={"precision": "fp32"},
        )
    )
    reference = expected(prepared, base, family, weights, slice(None))
    # ModernBERT's gelu comes before the norm, on means that are not normalized.
    tolerance = 0.05 if family == "modernbert" else 0.01
    np.testing.assert_allclose(answers(prepared), reference, atol=tolerance)
    assert prepared.forward.setup_seconds > 0


def test_initial_head_of_a_regression_matches_ridge_regression(
    spec: Make, tmp_path: Path, base: Path
) -> None:
    prepared = started(
        spec(
            pooling="mean",
            data={"source": str(make_numbers(tmp_path / "numbers.csv"))},
            task={"type": "regression"},
            runtime={"precision": "fp32"},
        )
    )
    train, test = (
        activation("distilbert", vectors(base, [example.text for example in part]))
        for part in (prepared.splits.train, prepared.splits.test)
    )
    scale = np.sqrt(train.shape[1])
    numbers = np.array([example.label for example in prepared.splits.train])
    model = Ridge(alpha=10).fit(train / scale, (numbers - numbers.mean()) / numbers.std())
    observer, part = RecordingObserver(), prepared.tokenized[Split.TEST]
    logits = model_outputs.compute_logits(
        prepared.forward, part, budget=512, progress=ProgressReporter(observer, observer)
    )
    np.testing.assert_allclose(logits[:, 0], model.predict(test / scale), atol=0.01)


def test_many_texts_are_subsampled(
    spec: Make, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "HEAD_INIT_MAX_TEXTS", 20)
    prepared = started(spec(pooling="mean", runtime={"precision": "fp32"}))
    which = draw_stratified_indices(prepared.tokenized[Split.TRAIN].targets, 20)
    reference = expected(prepared, base, "distilbert", "none", which)
    np.testing.assert_allclose(answers(prepared), reference, atol=0.01)


@given(st.lists(st.integers(0, 4), min_size=5, max_size=60), st.integers(5, 70))
def test_subsample_is_stratified(labels: list[int], most: int) -> None:
    every = np.array([*labels, *range(5)])
    which = draw_stratified_indices(every, most)
    assert len(which) == min(most, len(every))
    assert (np.diff(which) > 0).all()
    assert set(every[which]) == set(range(5))
    shares = np.bincount(every[which]) - len(which) * np.bincount(every) / len(every)
    assert np.abs(shares).max() <= 3  # five labels with at least one text


@pytest.mark.parametrize(
    "method",
    [{**LORA, "head": "frozen"}, {**LORA, "head": "lora"}, {"type": "baseline"}, {"type": "full"}],
    ids=["frozen", "adapter", "alone", "full"],
)
def test_other_heads_are_initialized_randomly(spec: Make, method: dict[str, Any]) -> None:
    described = spec(method=method)
    observer = RecordingObserver()
    untouched = prepare_run(described, observer, ProgressReporter(observer, observer))
    prepared = started(described)
    assert prepared.spec.head_init == "random"
    for name, weight in untouched.model.state_dict().items():
        assert torch.equal(weight, prepared.model.state_dict()[name])


def test_frozen_head_can_be_initialized_from_the_probe(spec: Make) -> None:
    prepared = started(spec(method={**LORA, "head": "frozen"}, head_init="probe"))
    trained = [name for name, p in prepared.model.named_parameters() if p.requires_grad]
    assert not [name for name in trained if "classifier" in name]
    assert torch.equal(prepared.model.pre_classifier.bias, torch.full((32,), 2.0))


def test_head_of_the_base_is_kept_unless_the_probe_is_requested(
    spec: Make, train: Train, tmp_path: Path
) -> None:
    trained = str(train(spec(optim={"epochs": 1}))[1])
    kept = started(spec(base=trained))
    assert kept.spec.head_init == "random"
    assert kept.spec.optim.head_learning_rate == kept.spec.optim.learning_rate
    fitted = started(spec(base=trained, head_init="probe"))
    assert fitted.spec.head_init == "probe"
    heads = [each.model.pre_classifier.weight for each in (kept, fitted)]
    assert not torch.equal(*heads)


def test_nonfinite_hidden_states_fail_the_run(spec: Make, tmp_path: Path) -> None:
    base = break_states(make_base(tmp_path / "broken"))
    with pytest.raises(NonFiniteEncoderStates):
        started(spec(base=str(base)))
