"""The check of a base finds one that would give wrong answers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_core import base_model_check
from lora_core.base_model_check import run_base_model_check
from lora_core.errors.base_model import (
    BaseNotBatchInvariant,
    BaseNotFound,
    NoFastTokenizer,
    UnreadableBase,
)
from lora_core.inference.padded_encoder import PaddedEncoder
from tests.slow import slow_but
from tests.tiny_base import EVERY_FAMILY, make_base


# Fast: one with an engine of its own, and a general one. The others are run in other tests.
@pytest.mark.parametrize("family", slow_but(EVERY_FAMILY, "bert", "nomic_bert"))
def test_every_family_passes(family: str, tmp_path: Path) -> None:
    found = run_base_model_check(str(make_base(tmp_path / "base", family)))
    assert found.model_type == family
    assert max(found.logits_difference, found.merge_difference) < 1e-5
    assert all(each.parameters > 0 for each in found.adapted)


def test_memory_for_lora_is_that_of_base_head_and_adapters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_model_check, "_memory_mb", lambda parameters, _: float(parameters))
    found = run_base_model_check(str(make_base(tmp_path / "base")))
    adapters = sum(each.parameters for each in found.adapted)
    assert found.lora_memory_mb == found.parameters + adapters


def test_answers_that_depend_on_padding_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute: Any = PaddedEncoder._compute

    def padded(self: PaddedEncoder, model: Any, texts: Any) -> Any:
        logits, states = compute(self, model, texts)
        return logits + 0.01 * len(texts), states

    monkeypatch.setattr(PaddedEncoder, "_compute", padded)
    base = make_base(tmp_path / "base", "mpnet")
    with pytest.raises(BaseNotBatchInvariant, match="alone"):
        base_model_check.run_base_model_check(str(base))


def test_a_hub_model_without_a_fast_tokenizer_has_the_error_of_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = make_base(tmp_path / ("a" * 40))
    (snapshot / "tokenizer.json").rename(snapshot / "vocab.txt")
    monkeypatch.setattr("lora_core.encoders.load._download", lambda *_: snapshot)
    with pytest.raises(NoFastTokenizer, match=r"'org/tiny' has no tokenizer.json \(only vocab.txt"):
        run_base_model_check("org/tiny")


def test_only_hub_models_have_a_revision(tmp_path: Path) -> None:
    with pytest.raises(BaseNotFound, match="only hub models"):
        run_base_model_check(str(make_base(tmp_path / "base")), "v2")


def test_a_base_whose_logits_are_not_finite_is_an_error(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["distilbert.transformer.layer.1.ffn.lin2.bias"].fill_(torch.nan)
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnreadableBase, match="not finite"):
        run_base_model_check(str(base))
