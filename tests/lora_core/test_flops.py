"""FLOPs per token, compared with the published table and a count by torch."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DistilBertConfig, DistilBertModel

from lora_core import cost_model
from lora_core.compatibility import EncoderShape, read_encoder_shape
from lora_core.specs.method import BaselineSpec, FullSpec, LoraSpec, Role


def shape(config: dict[str, Any]) -> EncoderShape:
    return read_encoder_shape(config, base="the base")


SAMPLE = shape({"model_type": "distilbert", "dim": 384, "hidden_dim": 1536})
DISTILBERT = shape({"model_type": "distilbert"})
BERT = shape({"model_type": "bert"})


@pytest.mark.parametrize(
    ("encoder", "forward", "full", "query_value", "all_linears"),
    [(SAMPLE, 6.7, 20.6, 14.7, 14.9), (DISTILBERT, 25.2, 76.3, 52.2, 52.7),
     (BERT, 50.3, 152.7, 105.4, 106.4)],
)  # fmt: skip
def test_flops_of_a_275_token_review(
    encoder: EncoderShape, forward: float, full: float, query_value: float, all_linears: float
) -> None:
    def gigaflops(a_token: float) -> float:
        return 275 * a_token / 1e9

    lora = LoraSpec(targets=(Role.QUERY, Role.VALUE))
    everywhere = LoraSpec(targets=tuple(Role))
    assert [
        gigaflops(cost_model.forward_flops(encoder, length=346)),
        gigaflops(cost_model.training_flops(encoder, FullSpec(), length=346)),
        gigaflops(cost_model.training_flops(encoder, lora, length=346)),
        gigaflops(cost_model.training_flops(encoder, everywhere, length=346)),
    ] == pytest.approx([forward, full, query_value, all_linears], rel=0.02)


def test_forward_flops_match_the_torch_counter() -> None:
    config = DistilBertConfig(n_layers=2, n_heads=2, dim=32, hidden_dim=64, vocab_size=20)
    config._attn_implementation = "eager"
    model: Any = DistilBertModel(config)
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.ones(3, 10, dtype=torch.long))
    a_token = cost_model.forward_flops(
        shape({**config.to_dict(), "model_type": "distilbert"}), length=10
    )
    assert counter.get_total_flops() == 30 * a_token


def test_fewer_trained_parameters_need_fewer_flops() -> None:
    def cost(method: BaselineSpec | LoraSpec | FullSpec) -> float:
        return cost_model.training_flops(SAMPLE, method, length=100)

    costs = [
        cost(BaselineSpec()),
        cost(LoraSpec(layers=(5,))),
        cost(BaselineSpec(blocks=1)),
        cost(LoraSpec(targets=(Role.QUERY, Role.VALUE))),
        cost(LoraSpec(targets=tuple(Role))),
        cost(FullSpec()),
    ]
    assert costs == sorted(costs)
    assert cost(BaselineSpec()) == cost_model.forward_flops(SAMPLE, length=100)
