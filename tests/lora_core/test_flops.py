"""FLOPs per token, compared with the published table and a count by torch."""

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertForSequenceClassification,
)

from lora_core import cost_model
from lora_core.compatibility import EncoderShape, read_encoder_shape
from lora_core.encoders import modernbert
from lora_core.encoders.families import MODERNBERT
from lora_core.specs.method import FullFineTuningSpec, LastLayersBaselineSpec, LayerRole, LoraSpec
from lora_core.specs.task import TaskType


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

    lora = LoraSpec(targets=(LayerRole.QUERY, LayerRole.VALUE))
    everywhere = LoraSpec(targets=tuple(LayerRole))
    assert [
        gigaflops(cost_model.forward_flops_per_token(encoder, length=346)),
        gigaflops(cost_model.training_flops_per_token(encoder, FullFineTuningSpec(), length=346)),
        gigaflops(cost_model.training_flops_per_token(encoder, lora, length=346)),
        gigaflops(cost_model.training_flops_per_token(encoder, everywhere, length=346)),
    ] == pytest.approx([forward, full, query_value, all_linears], rel=0.02)


def test_forward_flops_match_the_torch_counter() -> None:
    config = DistilBertConfig(n_layers=2, n_heads=2, dim=32, hidden_dim=64, vocab_size=20)
    config._attn_implementation = "eager"
    model: Any = DistilBertModel(config)
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.ones(3, 10, dtype=torch.long))
    a_token = cost_model.forward_flops_per_token(
        shape({**config.to_dict(), "model_type": "distilbert"}), length=10
    )
    assert counter.get_total_flops() == 30 * a_token


def test_fewer_trained_parameters_need_fewer_flops() -> None:
    def cost(method: LastLayersBaselineSpec | LoraSpec | FullFineTuningSpec) -> float:
        return cost_model.training_flops_per_token(SAMPLE, method, length=100)

    costs = [
        cost(LastLayersBaselineSpec()),
        cost(LoraSpec(layers=(5,))),
        cost(LastLayersBaselineSpec(blocks=1)),
        cost(LoraSpec(targets=(LayerRole.QUERY, LayerRole.VALUE))),
        cost(LoraSpec(targets=tuple(LayerRole))),
        cost(FullFineTuningSpec()),
    ]
    assert costs == sorted(costs)
    assert cost(LastLayersBaselineSpec()) == cost_model.forward_flops_per_token(SAMPLE, length=100)


def test_attention_in_windows_matches_the_torch_counter() -> None:
    """For texts of few and of many windows."""
    config = ModernBertConfig(
        num_hidden_layers=4,
        num_attention_heads=2,
        hidden_size=32,
        intermediate_size=48,
        vocab_size=20,
        local_attention=16,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0),
        **dict.fromkeys(("cls_token_id", "sep_token_id"), 0),
    )
    model: Any = ModernBertForSequenceClassification(config).eval()
    modernbert.patch_blocks(model, MODERNBERT)
    encoder = shape(config.to_dict())
    assert (encoder.local_blocks, encoder.window) == (2, 16)
    for length in (32, 128):
        counter = FlopCounterMode(display=False)  # does not know the fused attention of CPUs
        with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            model.model(torch.ones(3, length, dtype=torch.long))
        a_token = cost_model.forward_flops_per_token(encoder, length=length)
        assert counter.get_total_flops() == 3 * length * a_token
    old = {name: value for name, value in config.to_dict().items() if name != "layer_types"}
    assert shape(old).local_blocks == 2
    assert shape({**old, "global_attn_every_n_layers": 1}).local_blocks == 0


@pytest.mark.parametrize(
    ("task", "labels", "factor"),
    [
        ("single_label", 2, 1),
        ("single_label", 20, 10),
        ("multi_label", 20, 2.5),
        ("regression", 1, 1),
    ],
)
def test_a_linear_model_of_more_labels_takes_longer(
    task: TaskType, labels: int, factor: float
) -> None:
    seconds = cost_model.linear_model_seconds_per_token(task, labels)
    assert seconds == pytest.approx(factor * cost_model.LINEAR_SECONDS_PER_TOKEN)
