"""ModernBERT block by block and on packed texts, compared with transformers."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lora_core.data.tokens import TokenizedSplit
from lora_core.encoders import FAMILIES
from lora_core.encoders.modernbert import RotaryEmbedding, apply_rotary
from lora_core.fast import first_token, unfused_attention
from lora_core.forward import BlockwiseForward, Forward
from lora_core.inference.engines import build_encoder
from lora_core.inference.tokenization import TokenizedText
from lora_core.runtime import Runtime
from lora_core.specs.data import Split
from tests import tiny_base

FAMILY = FAMILIES["modernbert"]
MACHINE = Runtime(device="cpu", precision="fp32", threads=1)
LENGTHS = (128, 97, 40, 13, 6, 5, 1)
MODELS: dict[str, dict[str, Any]] = {
    "first token": {},
    "mean": {"classifier_pooling": "mean"},
    "last block sees all": {"num_hidden_layers": 4},
    "all biases": {
        "attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True,
        "num_hidden_layers": 3,
    },
    "wide window": {"local_attention": 128},
    "window of some texts": {"local_attention": 80, "classifier_pooling": "mean"},
    "other angles": {
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        },
        "num_hidden_layers": 3,
    },
}  # fmt: skip


def drawn(**changes: Any) -> PreTrainedModel:
    """A model that is far from its initial state."""
    torch.manual_seed(0)
    model = tiny_base.modernbert(
        labels=3, max_position_embeddings=128, initializer_range=0.2, **changes
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def texts() -> TokenizedSplit:
    rng = np.random.default_rng(0)
    ids = [rng.integers(5, 400, n, dtype=np.int32) for n in LENGTHS]
    labels = np.zeros(len(ids), dtype=np.int64)
    return TokenizedSplit(Split.TRAIN, ids, np.array(LENGTHS), labels, pad_id=0)


def alone(model: PreTrainedModel) -> Tensor:
    """The logits of transformers for each text without padding."""
    with torch.no_grad():
        rows = [model(torch.from_numpy(ids)[None].long()).logits for ids in texts().ids]
    return torch.cat(rows)


@pytest.mark.parametrize("unfused", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_logits_and_gradients_match_transformers(kind: str, unfused: bool) -> None:
    plain = drawn(**MODELS[kind])
    fast, every = copy.deepcopy(plain), range(len(LENGTHS))
    first_token.patch_last_block(fast, FAMILY)
    if unfused:
        unfused_attention.patch_attention(fast)
    found = BlockwiseForward(fast, MACHINE, FAMILY)(texts(), every)
    expected = Forward(plain, MACHINE)(texts(), every)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(found, alone(plain), rtol=0, atol=1e-5)
    pairs = zip(
        plain.named_parameters(),
        torch.autograd.grad(expected.square().sum(), [*plain.parameters()]),
        torch.autograd.grad(found.square().sum(), [*fast.parameters()]),
        strict=True,
    )
    for (name, _), theirs, ours in pairs:
        scale = theirs.abs().max().item()
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * max(1, scale), msg=name)


@pytest.mark.parametrize("kind", MODELS)
def test_packed_texts_match_transformers(kind: str) -> None:
    model = drawn(**MODELS[kind])
    expected = alone(model)
    engine = build_encoder(model, torch.float32)
    adapter = engine.extract_adapter(model)
    rows = engine.logits(
        [TokenizedText(ids.tolist(), truncated=False) for ids in texts().ids],
        [adapter] * len(LENGTHS),
    )
    torch.testing.assert_close(torch.stack(rows), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["first token", "mean"])
def test_bf16_is_close_to_fp32(kind: str) -> None:
    model = drawn(**MODELS[kind])
    expected = alone(model)
    engine = build_encoder(copy.deepcopy(model), torch.bfloat16)
    adapter = engine.extract_adapter(model)
    tokenized = [TokenizedText(ids.tolist(), truncated=False) for ids in texts().ids]
    rows = torch.stack(engine.logits(tokenized, [adapter] * len(LENGTHS)))
    first_token.patch_last_block(model, FAMILY)
    unfused_attention.patch_attention(model)
    machine = Runtime(device="cpu", precision="bf16", threads=1)
    forward = BlockwiseForward(model, machine, FAMILY, pad_multiple=16)
    trained = forward(texts(), range(len(LENGTHS))).float()
    scale = torch.linalg.vector_norm(expected)
    for found in (rows, trained):
        assert torch.linalg.vector_norm(found - expected) < 0.03 * scale


def test_rotation_preserves_products_of_equal_distances() -> None:
    """Query and key meet in an angle that depends on their distance alone."""
    model = drawn()
    cos, sin = RotaryEmbedding(model)("sliding_attention", 20, torch.device("cpu"))
    torch.manual_seed(0)
    same = torch.randn(2, 1, 8).expand(20, 2, 1, 8)
    query, key = apply_rotary(same, cos, sin)[:, :, 0].unbind(1)
    products = query @ key.t()
    for distance in (-7, 0, 3):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
