"""Mean pooling as one more transformer block, so that every other tool computes it as well.

Sentence encoders are trained to be read as the mean of their token states, but the classifiers of
transformers read the first token. A block whose attention averages bridges the two: its query and
key weights are 0, so that the softmax gives each visible token the same share; its values are the
states themselves, scaled up at the output, so that the residual hardly counts; its feed-forward
network adds 0. With n tokens x_t, the scale S, and LN a layer norm that only normalizes:

y₁ = LN(LN(S · (1/n) Σ_t x_t + x₁)) ≈ LN((1/n) Σ_t x_t)

What comes out at the first token is the normalized mean. The model is an ordinary DistilBERT, BERT
or RoBERTa with one more layer, which never trains and in which nothing drops out.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.modules import blocks, is_pooled, linear
from lora_core.specs.method import Role
from lora_core.specs.pooling import MARK, Pooling

SCALE = 1000.0  # the residual is about a thousandth; states times 10,000 may exceed float16


def pool(model: PreTrainedModel, family: EncoderFamily, pooling: Pooling) -> None:
    """Let the head read the state that `pooling` says; for the mean, with a block after the last.

    A model that has the block already keeps it.
    """
    if pooling is Pooling.MEAN and not is_pooled(model.config):
        _append(model, family)
    model.config.pooling = pooling.value
    if is_pooled(model.config):
        for module in blocks(model, family)[-1].modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0


def freeze(model: nn.Module, family: EncoderFamily) -> None:
    """Keep the block as it is, whatever else trains."""
    if is_pooled(model.config):
        blocks(model, family)[-1].requires_grad_(False)


def average(block: Any, norms: tuple[str, str], x: Tensor, mask: Tensor | None) -> Tensor:
    """What the block makes of states (batch, length, width): (batch, 1, width), of the first token.

    `mask` is (batch, 1, 1 or length, length) and true, or 0, where a token is visible.
    """
    if mask is None:
        mean = x.float().mean(dim=1, keepdim=True)
    else:
        row = mask[:, 0, :1].transpose(1, 2)  # (batch, length, 1)
        seen = row if row.dtype == torch.bool else row == 0
        mean = (x.float() * seen).sum(dim=1, keepdim=True) / seen.sum(dim=1, keepdim=True)
    first, second = (block.get_submodule(name) for name in norms)
    out: Tensor = second(first(SCALE * mean + x[:, :1].float()))
    return out


@torch.no_grad()
def _append(model: PreTrainedModel, family: EncoderFamily) -> None:
    """Add the block, and count it in the config."""
    found = model.get_submodule(family.block_list)
    if not isinstance(found, nn.ModuleList):
        raise TypeError(f"{family.block_list} is not a list of blocks")
    block = deepcopy(found[-1])
    for parameter in block.parameters():
        parameter.zero_()
    identity = torch.eye(model.config.hidden_size)
    linear(block, family.roles[Role.VALUE][0]).weight.copy_(identity)
    linear(block, family.roles[Role.PROJECTION][0]).weight.copy_(SCALE * identity)
    for name in family.norms:
        block.get_submodule(name).get_parameter("weight").fill_(1.0)
    found.append(block)
    setattr(model.config, family.sizes["layers"].names[0], len(found))
    setattr(model.config, MARK, True)
