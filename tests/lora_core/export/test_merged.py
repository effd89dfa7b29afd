"""Tests of the merged export with transformers, and for text-embeddings-inference."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from lora_core import manifest
from lora_core.artifact import load_merged_model, save_weights_and_config
from lora_core.errors.export import OutputExists
from lora_core.export.hugging_face import export_merged
from lora_core.inference.predictor import Predictor
from lora_core.specs.method import LoraSpec, LoraVariant
from tests.lora_artifact import make_lora_artifact
from tests.plain_checkpoint import plain_checkpoint
from tests.slow import slow_but
from tests.tiny_artifact import make_artifact
from tests.tiny_base import each_family, modernbert

# Config fields that text-embeddings-inference reads; it fails if one is missing or null.
SIZES = {
    "distilbert": ("vocab_size", "dim", "n_layers", "n_heads", "hidden_dim"),
    "bert": (
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
        "intermediate_size", "type_vocab_size",
    ),
}  # fmt: skip
SIZES |= dict.fromkeys(("roberta", "xlm-roberta", "camembert", "electra"), SIZES["bert"])
PADDING = {"distilbert": 0, "bert": 0, "electra": 0}
HEAD = {
    "distilbert": {"pre_classifier.weight", "classifier.weight", "classifier.bias"},
    "bert": {"bert.pooler.dense.weight", "classifier.weight", "classifier.bias"},
}
ROBERTA_HEAD = {
    "classifier.dense.weight",
    "classifier.out_proj.weight",
    "classifier.out_proj.bias",
}
TEXTS = ["a good film", "not a very good story and it was boring"]
CLASSES = {
    "distilbert": "DistilBertForSequenceClassification",
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "xlm-roberta": "XLMRobertaForSequenceClassification",
    "camembert": "CamembertForSequenceClassification",
    "electra": "ElectraForSequenceClassification",
}


@pytest.mark.parametrize("family", each_family())
def test_transformers_loads_it_strictly_with_the_same_logits(family: str, tmp_path: Path) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(variant=LoraVariant.DORA, r=3), family=family)
    out = tmp_path / "merged"
    export_merged(artifact, out)
    model, info = AutoModelForSequenceClassification.from_pretrained(out, output_loading_info=True)
    assert not any(info.values()), info
    batch = AutoTokenizer.from_pretrained(out)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model.eval()(**batch).logits
    [reference, *_] = json.loads((artifact / "golden.json").read_text())
    assert reference["text"] == TEXTS[0]
    torch.testing.assert_close(logits[0], torch.tensor(reference["logits"]), rtol=1e-5, atol=1e-5)
    predictions = pipeline("text-classification", model=str(out), top_k=None)(TEXTS)
    predicted = Predictor.load(artifact).predict(TEXTS)
    for prediction, expected in zip(predictions, predicted, strict=True):
        assert [each["label"] for each in prediction] == [label for label, _ in expected]


@pytest.mark.parametrize("labels", [("bad", "good"), ("LABEL_0", "LABEL_1"), ("a", "b", "c")])
@pytest.mark.parametrize("family", slow_but(SIZES, "distilbert", "roberta"))
def test_requirements_of_text_embeddings_inference(
    family: str, labels: tuple[str, ...], tmp_path: Path
) -> None:
    """Those of `router/src/lib.rs`, and of `bert.rs` and `distilbert.rs` in its candle backend."""
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2), family=family, labels=labels)
    checkpoint = plain_checkpoint(artifact)
    config = json.loads((checkpoint / "config.json").read_text())
    assert config["architectures"] == [CLASSES[family]]
    assert config["model_type"] == family
    assert config["id2label"] == {str(i): label for i, label in enumerate(labels)}
    assert config["label2id"] == {label: i for i, label in enumerate(labels)}
    assert config["max_position_embeddings"] == (64 if family in PADDING else 66)
    assert config["pad_token_id"] == PADDING.get(family, 1)
    assert all(isinstance(config[name], int) for name in SIZES[family])
    assert config["activation" if family == "distilbert" else "hidden_act"] == "gelu"
    if family != "distilbert":
        assert config["layer_norm_eps"] == 1e-12
        assert config["hidden_dropout_prob"] == 0
        assert config["initializer_range"] == 0.1
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    assert tokenizer["truncation"] is None
    assert tokenizer["padding"] is None
    assert not (checkpoint / "sentence_bert_config.json").exists()
    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        names = set(file.keys())
        assert {str(file.get_tensor(name).dtype) for name in names} == {"torch.float32"}
    assert names >= HEAD.get(family, ROBERTA_HEAD)
    encoder = family if family in PADDING else "roberta"
    assert not [name for name in names if not name.startswith((encoder, "pre_", "classifier"))]


@pytest.mark.parametrize("layers", [2, 5])
def test_text_embeddings_inference_reads_modernbert(layers: int, tmp_path: Path) -> None:
    """The fields without a default in its `modernbert.rs`; it takes one label if not told."""
    base = tmp_path / "base"
    made = modernbert(labels=3, num_hidden_layers=layers)
    save_weights_and_config(base, made)
    config = json.loads((base / "config.json").read_text())
    assert config["num_labels"] == 3
    assert config["local_attention"] == 8
    assert config["classifier_pooling"] == "cls"
    assert (config["global_rope_theta"], config["local_rope_theta"]) == (160_000, 10_000)
    assert config["global_attn_every_n_layers"] == (2 if layers == 2 else 3)
    again = AutoModelForSequenceClassification.from_pretrained(base).eval()
    assert again.config.layer_types == made.config.layer_types
    assert again.config.rope_parameters == made.config.rope_parameters
    ids = torch.arange(5, 30)[None]
    torch.testing.assert_close(again(ids).logits, made(ids).logits, rtol=1e-5, atol=1e-6)


def test_tokenizer_does_not_truncate_like_the_base(tmp_path: Path) -> None:
    """The sample base truncates at 128 tokens and pads to 128."""
    artifact = make_artifact(tmp_path / "made")
    tokens = AutoTokenizer.from_pretrained(artifact / "merged")(["film " * 300, "film"])
    assert [len(ids) for ids in tokens["input_ids"]] == [302, 3]


def test_export_adds_labels_missing_in_version_0_1(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "made", labels=("LABEL_0", "LABEL_1"), top_label="LABEL_1")
    path = artifact / "merged" / "config.json"
    config = json.loads(path.read_text())
    del config["id2label"], config["label2id"]
    path.write_text(json.dumps(config))
    facts = manifest.read(artifact)
    facts.pop("files")
    (artifact / "manifest.json").unlink()
    manifest.create_and_save(artifact, facts)
    export_merged(artifact, tmp_path / "out")
    config_out = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config_out["label2id"] == {"LABEL_0": 0, "LABEL_1": 1}
    assert load_merged_model(artifact).config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    with pytest.raises(OutputExists):
        export_merged(artifact, tmp_path / "out")
