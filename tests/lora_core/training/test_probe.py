"""The probe against scikit-learn on the same vectors."""

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel

from lora_core import manifest
from lora_core.data.load import load_splits
from lora_core.data.tokens import load_tokenizer
from lora_core.errors.training import NonFiniteEncoderStates
from lora_core.inference.engines import EngineCache
from lora_core.saved_predictions import load_golden_predictions
from lora_core.specs.text_input import TextInput
from lora_core.specs.train import TrainSpec
from tests.lora_core.training.twins import product
from tests.recording_observer import RecordingObserver
from tests.tiny_base import FAMILIES, make_base, make_reviews

Make = Callable[..., TrainSpec]
Train = Callable[..., tuple[RecordingObserver, Path]]


@torch.no_grad()
def vectors(base: Path, texts: Sequence[TextInput]) -> np.ndarray[Any, Any]:
    """Mean over the tokens of each text, normalized."""
    tokenizer = load_tokenizer(base / "tokenizer.json")
    encoder = AutoModel.from_pretrained(base).eval()
    found = []
    for text in texts:
        mean = (
            encoder(torch.tensor([tokenizer.encode(str(text)).ids]))
            .last_hidden_state[0]
            .mean(dim=0)
        )
        found.append(torch.nn.functional.layer_norm(mean, mean.shape).numpy())
    return np.stack(found)


@pytest.mark.parametrize(
    ("family", "labels", "class_weights"),
    [
        pytest.param(
            *(family, labels, class_weights),
            # Fast: two that differ in both with one family, and one with the one that differs most.
            marks=()
            if (family, len(labels), class_weights)
            in {
                ("distilbert", 2, "none"),
                ("distilbert", 3, "balanced"),
                ("modernbert", 3, "balanced"),
            }
            else pytest.mark.slow,
            id=f"{family}-{len(labels)}-{class_weights}",
        )
        for family, labels, class_weights in itertools.product(
            FAMILIES, (("bad", "good"), ("bad", "fine", "good")), ("none", "balanced")
        )
    ],
)
def test_probe_matches_scikit_learn(
    spec: Make,
    train: Train,
    tmp_path: Path,
    family: str,
    labels: tuple[str, ...],
    class_weights: str,
) -> None:
    base = make_base(tmp_path / "a base", family)
    texts = make_reviews(tmp_path / "texts.csv", labels=labels)
    described = spec(
        method={"type": "probe", "C": 2.0},
        base=str(base),
        pooling="mean",
        data={"source": str(texts)},
        task={"class_weights": class_weights},
        runtime={"precision": "fp32"},
    )
    observer, out = train(described)
    splits = load_splits(described.data)
    x = vectors(base, [example.text for example in splits.train])
    norm = np.linalg.norm(x, axis=1).mean()
    model = LogisticRegression(
        C=2.0,
        max_iter=10_000,
        tol=1e-8,
        class_weight=None if class_weights == "none" else "balanced",
    )
    model.fit(x / norm, [example.label for example in splits.train])
    golden_texts, logits = load_golden_predictions(out)
    expected = model.predict_proba(vectors(base, golden_texts) / norm)
    # ModernBERT's gelu is slightly curved.
    tolerance = 2e-2 if family == "modernbert" else 5e-3
    np.testing.assert_allclose(softmax(logits, axis=1), expected, atol=tolerance)
    started = observer.all("started")[0]
    assert (started.total_steps, started.learning_rate) == (1, None)
    assert manifest.verify(out)["metrics"]["trainable_parameters"] == len(labels) * 33


def test_probes_share_the_encoder_of_their_base(spec: Make, train: Train) -> None:
    engine_cache = EngineCache()
    outs = [train(spec(method={"type": "probe", "C": C}, pooling="mean"))[1] for C in (0.1, 10.0)]
    first, second = (engine_cache.load(out, "torch-fp32") for out in outs)
    assert first.engine is second.engine
    assert first.adapter is not second.adapter


def break_states(base: Path) -> Path:
    """A base whose last block returns NaN."""
    weights = load_file(base / "model.safetensors")
    name = next(n for n in weights if n.endswith("layer.1.output_layer_norm.bias"))
    weights[name].fill_(float("nan"))
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    return base


def test_nonfinite_hidden_states_fail_the_run(spec: Make, train: Train, tmp_path: Path) -> None:
    base = break_states(make_base(tmp_path / "broken"))
    with pytest.raises(NonFiniteEncoderStates):
        train(spec(method={"type": "probe"}, base=str(base)))


def test_states_for_the_initial_head_are_read_from_the_cache(
    spec: Make, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path / "cache"))
    optim = {"epochs": 1}
    described = spec(head_init="probe", optim=optim, trial={"budget": 0.5})  # without a verdict
    computed = product(train(described)[1])
    (entry,) = (tmp_path / "cache" / "features").iterdir()
    os.utime(entry, (0, 0))
    assert product(train(described)[1]) == computed
    assert entry.stat().st_mtime > 0  # it was used
    train(spec(head_init="probe", optim=optim, trial={"budget": 0.5}, pooling="mean"))
    assert len(list(entry.parent.iterdir())) == 2
