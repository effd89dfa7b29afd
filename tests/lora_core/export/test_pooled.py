"""Tests of exporting mean-pooled models to PEFT, transformers and its pipeline."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from lora_core.export.hugging_face import export_adapter, export_merged
from lora_core.saved_predictions import load_golden_predictions
from lora_core.specs.train import TrainSpec
from lora_core.training.encoder import train_encoder
from tests.lora_core.export.test_merged import SIZES
from tests.lora_core.export.test_peft import load_with_peft
from tests.recording_observer import RecordingObserver
from tests.slow import slow_but
from tests.tiny_base import FAMILIES, make_base, make_reviews

TOLERANCE = 1e-4


@pytest.mark.parametrize("family", slow_but(FAMILIES, "roberta", "modernbert"))
def test_exports_give_the_same_logits(family: str, tmp_path: Path) -> None:
    base = make_base(tmp_path / "a base", family)
    spec = TrainSpec.model_validate({
        "method": {"type": "lora", "r": 2},
        "base": str(base),
        "pooling": "mean",
        "data": {"source": str(make_reviews(tmp_path / "texts.csv"))},
        "optim": {"epochs": 1, "learning_rate": 0.01},
        "runtime": {"precision": "fp32", "threads": 1},
        "result": {"cross_validation": False},
    })  # fmt: skip
    listener, artifact = RecordingObserver(), tmp_path / "artifact"
    train_encoder(spec, out_dir=artifact, observer=listener, stop=listener)
    texts, expected = load_golden_predictions(artifact)
    export_merged(artifact, tmp_path / "merged")
    export_adapter(artifact, tmp_path / "peft")

    merged_model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    for model, folder in (
        (merged_model, tmp_path / "merged"),
        (load_with_peft(tmp_path / "peft").eval(), tmp_path / "peft"),
    ):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**batch).logits
        torch.testing.assert_close(logits, torch.from_numpy(expected), rtol=0, atol=TOLERANCE)

    predictions = pipeline("text-classification", model=str(tmp_path / "merged"), top_k=None)(texts)
    for prediction, row in zip(predictions, expected, strict=True):
        score = max(each["score"] for each in prediction)
        assert score == pytest.approx(max(1 / (1 + math.exp(row[1 - i] - row[i])) for i in (0, 1)),
                                      abs=TOLERANCE)  # fmt: skip


@pytest.mark.parametrize("family", slow_but(SIZES, "distilbert", "roberta"))
def test_pooling_block_is_counted_in_the_config(family: str, tmp_path: Path) -> None:
    """text-embeddings-inference loads as many blocks as the config says, by name."""
    base = make_base(tmp_path / "a base", family)
    spec = TrainSpec.model_validate({
        "method": {"type": "probe"},
        "base": str(base),
        "pooling": "mean",
        "data": {"source": str(make_reviews(tmp_path / "texts.csv"))},
        "runtime": {"precision": "fp32", "threads": 1},
    })  # fmt: skip
    listener = RecordingObserver()
    train_encoder(spec, out_dir=tmp_path / "artifact", observer=listener, stop=listener)
    folder = tmp_path / "artifact" / "base"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with safe_open(folder / "model.safetensors", "pt") as file:
        parts = {part for name in file.keys() for part in name.split(".") if part.isdigit()}  # noqa: SIM118
    layers = next(name for name in SIZES[family] if "layers" in name)
    assert parts == {str(number) for number in range(config[layers])}
    assert config[layers] == 3  # two pretrained blocks, one pooling block
