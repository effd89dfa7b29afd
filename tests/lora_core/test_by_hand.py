"""The example in the docstring of the library trains a model."""

import doctest
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification

import lora_core
from tests import tiny_base
from tests.slow import slow_but


@pytest.mark.parametrize("family", slow_but(tiny_base.FAMILIES, "modernbert"))
def test_layers_can_be_trained_merged_and_saved_by_hand(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = tiny_base.FAMILIES[family]()
    names = model.state_dict().keys()
    input_ids, labels = torch.tensor([[2, 7, 9, 3], [2, 8, 30, 3]]), torch.tensor([0, 1])
    with torch.no_grad():
        before = cross_entropy(model(input_ids).logits, labels)
    given = {"model": model, "batches": [(input_ids, torch.ones_like(input_ids), labels)] * 40}
    done = doctest.testmod(lora_core, extraglobs=given)
    assert (done.failed, done.attempted > 10) == (0, True)
    assert model.state_dict().keys() == names
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        logits = saved(input_ids).logits
    assert cross_entropy(logits, labels) < before / 2
    torch.testing.assert_close(logits, model(input_ids).logits.detach())
