"""Base models: which are loaded, and which are refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_core.encoders.load import load_classifier, resolve_base
from lora_core.errors.base_model import (
    BaseNotFound,
    UnreadableBase,
    UnsafeWeights,
    UnsupportedEncoder,
    UntrustedCode,
)
from tests.tiny_base import FAMILIES, make_base

INPUT = torch.tensor([[2, 7, 9, 3]])


def change_config(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("family", FAMILIES)
def test_encoder_weights_match_the_base_model(tmp_path: Path, family: str) -> None:
    directory = make_base(tmp_path / "base", family)
    base = resolve_base(str(directory))
    assert base.family.model_type == family
    model, _ = load_classifier(base, ["a", "b", "c"])
    stored = load_file(directory / "model.safetensors")
    loaded = model.state_dict()
    below = [name for name in stored if not name.startswith("classifier.")]
    assert all(torch.equal(loaded[name], stored[name]) for name in below)
    assert loaded[f"{base.family.head[-1]}.weight"].shape == (3, 32)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert model.config.label2id == {"a": 0, "b": 1, "c": 2}


def test_head_is_kept_only_with_the_same_labels(tmp_path: Path) -> None:
    directory = make_base(tmp_path / "base", id2label={0: "bad", 1: "good"},
                          label2id={"bad": 0, "good": 1})  # fmt: skip
    stored = load_file(directory / "model.safetensors")["classifier.weight"]
    model, kept = load_classifier(resolve_base(str(directory)), ["bad", "good"])
    assert kept
    assert torch.equal(model.classifier.weight, stored)
    model, kept = load_classifier(resolve_base(str(directory)), ["good", "bad"])
    assert not kept
    assert not torch.equal(model.classifier.weight, stored)


def test_head_initialization_follows_the_seed(tmp_path: Path) -> None:
    directory = make_base(tmp_path / "base")
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        heads.append(load_classifier(resolve_base(str(directory)), ["x", "y"])[0].classifier.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_dropout_is_applied(tmp_path: Path) -> None:
    base = resolve_base(str(make_base(tmp_path / "base")))
    model, _ = load_classifier(base, ["x", "y"], encoder_dropout=0.25, head_dropout=0.5)
    rates = {name: m.p for name, m in model.named_modules() if isinstance(m, torch.nn.Dropout)}
    assert rates.pop("dropout") == 0.5
    assert set(rates.values()) == {0.25}


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(BaseNotFound, match="does not exist"):
        resolve_base(str(tmp_path / "nothing"))


@pytest.mark.parametrize("name", ["../x/../../etc", "file:///etc", "a/b/c", "C:\\base", "x y"])
def test_invalid_base_name(name: str) -> None:
    with pytest.raises(BaseNotFound):
        resolve_base(name)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    directory = make_base(tmp_path / "base")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(UnsafeWeights, match=r"pytorch_model\.bin"):
        resolve_base(str(directory))


def test_custom_code_is_refused_and_not_run(tmp_path: Path) -> None:
    directory = make_base(tmp_path / "base")
    marker = tmp_path / "ran"
    (directory / "modeling_x.py").write_text(f"open({str(marker)!r}, 'w')")
    auto_map = {"AutoModelForSequenceClassification": "modeling_x.X"}
    change_config(directory, auto_map=auto_map, model_type="hf_new_bert")
    with pytest.raises(UntrustedCode):
        resolve_base(str(directory))
    assert not marker.exists()


def test_unsupported_architecture_is_refused(tmp_path: Path) -> None:
    directory = make_base(tmp_path / "base")
    change_config(directory, model_type="t6")
    with pytest.raises(UnsupportedEncoder, match=r"'t6' model\. Supported: distilbert, bert"):
        resolve_base(str(directory))


def test_missing_tensor_is_reported(tmp_path: Path) -> None:
    directory = make_base(tmp_path / "base")
    tensors = load_file(directory / "model.safetensors")
    del tensors["distilbert.transformer.layer.1.ffn.lin1.weight"]
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnreadableBase, match=r"layer\.1\.ffn\.lin1\.weight"):
        load_classifier(resolve_base(str(directory)), ["x", "y"])


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 64])
def test_damaged_weights_are_refused(tmp_path: Path, content: bytes) -> None:
    directory = make_base(tmp_path / "base")
    (directory / "model.safetensors").write_bytes(content)
    with pytest.raises(UnreadableBase):
        load_classifier(resolve_base(str(directory)), ["x", "y"])


def test_invalid_config_is_refused(tmp_path: Path) -> None:
    directory = make_base(tmp_path / "base")
    (directory / "config.json").write_text("{")
    with pytest.raises(UnreadableBase, match="not JSON"):
        resolve_base(str(directory))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"activation": "nope"}, "KeyError: .*nope"),
        ({"pad_token_id": 5000}, "Padding_idx"),
        ({"sinusoidal_pos_embds": "x"}, "'sinusoidal_pos_embds'"),
        ({"id2label": ["0", "1"]}, "id2label is not an object"),
        ({"id2label": 5}, "id2label is not an object"),
    ],
    ids=str,
)
def test_config_that_transformers_cannot_use_is_refused(
    tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    directory = make_base(tmp_path / "base")
    change_config(directory, **changes)
    with pytest.raises(UnreadableBase, match=problem):
        load_classifier(resolve_base(str(directory)), ["x", "y"])


def test_labels_may_be_null(tmp_path: Path) -> None:
    directory = make_base(tmp_path / "base")
    change_config(directory, id2label=None)
    _, head_kept = load_classifier(resolve_base(str(directory)), ["x", "y"])
    assert not head_kept


def test_outputs_have_names_whatever_the_config_says(tmp_path: Path) -> None:
    directory = make_base(tmp_path / "base")
    change_config(directory, return_dict=False)
    model, _ = load_classifier(resolve_base(str(directory)), ["x", "y"])
    assert model(INPUT).logits.shape == (1, 2)
