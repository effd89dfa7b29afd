"""The states that a head reads, by both kinds of encoders, against transformers' own outputs."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from lora_core.inference.predictor import Predictor
from lora_core.specs.method import LoraSpec
from tests.lora_artifact import make_lora_artifact
from tests.plain_checkpoint import plain_checkpoint
from tests.slow import slow_but
from tests.tiny_artifact import make_artifact
from tests.tiny_base import FAMILIES, make_base

TEXTS = ["good", "a very dull film and it was awful", "the plot is fine", "bad " * 20]
LONG = "the plot was dull and the cast was fine " * 4
PADDED = ("deberta-v2", "mpnet")


def first_tokens(model: PreTrainedModel, predictor: Predictor, text: str) -> Tensor:
    """Return the last hidden state (width,) of the first token, computed alone by transformers."""
    [item] = predictor.encode([text])
    with torch.inference_mode():
        states: Tensor = model.base_model(torch.tensor([item.windows[0].ids])).last_hidden_state
    return states[0, 0]


@pytest.mark.parametrize("family", slow_but([*FAMILIES, *PADDED], "bert", "modernbert", "mpnet"))
def test_states_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2), family=family)
    predictor = Predictor.load(artifact)
    assert (type(predictor.engine).__name__ == "PaddedEncoder") == (family in PADDED)
    model = AutoModelForSequenceClassification.from_pretrained(plain_checkpoint(artifact)).eval()
    states = torch.from_numpy(predictor.states(predictor.encode(TEXTS)))
    expected = torch.stack([first_tokens(model, predictor, text) for text in TEXTS])
    torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["distilbert", "mpnet"])
def test_each_text_has_the_state_of_its_own_adapter(family: str, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", family)
    one, two = (
        Predictor.load(
            make_lora_artifact(
                tmp_path / str(seed), LoraSpec(r=2), base=base, family=family, seed=seed
            )
        )
        for seed in (1, 2)
    )
    items = one.encode(TEXTS)
    alone = {each: torch.from_numpy(each.states(items)) for each in (one, two)}
    assert not torch.allclose(alone[one], alone[two], atol=1e-2)
    if family == "distilbert":  # one batch may have several adapters
        pairs = [(item, each) for item in items for each in (one, two)]
    else:
        pairs = [(item, one) for item in items]
    computed = one.engine.logits_and_states(
        [item for item, _ in pairs], [each.adapter for _, each in pairs]
    )
    for (item, each), (logits, state) in zip(pairs, computed, strict=True):
        place = next(i for i, other in enumerate(items) if other is item)
        torch.testing.assert_close(state, alone[each][place], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(logits, each.forward(items)[place], rtol=1e-4, atol=1e-4)


def test_bf16_states_are_similar(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "model")
    exact, rounded = (
        torch.from_numpy(each.states(each.encode(TEXTS)))
        for each in (Predictor.load(artifact, engine=f"torch-{name}") for name in ("fp32", "bf16"))
    )
    assert (torch.cosine_similarity(exact, rounded) > 0.999).all()
    assert rounded.dtype == torch.float32


def test_state_of_a_long_text_is_the_mean_of_its_windows(tmp_path: Path) -> None:
    predictor = Predictor.load(make_artifact(tmp_path / "model", windows=True, max_length=16))
    items = predictor.encode([TEXTS[0], LONG])
    assert [len(item.windows) for item in items] == [1, 3]
    states = torch.from_numpy(predictor.states(items))
    windows = predictor.engine.logits_and_states(items[1].windows, [predictor.adapter] * 3)
    torch.testing.assert_close(states[1], torch.stack([s for _, s in windows]).mean(dim=0))
    assert states.shape == (2, 32)
