"""Mean pooling as an additional transformer block, so that other tools compute it, too.

Sentence encoders are trained to be read as the mean of their token states, but the classifiers of
transformers read the first token. A block whose attention averages bridges the difference. Its
query and key weights are 0, so that the softmax gives each visible token the same weight. Its
values are the states themselves, scaled at the output so that the residual is negligible. Its
feed-forward network adds 0. With n tokens x_t, the scale S, and LN a layer norm that only
normalizes:

y₁ = LN(LN(S · (1/n) Σ_t x_t + x₁)) ≈ LN((1/n) Σ_t x_t)

The output at the first token is the normalized mean. The model is an ordinary one of its
architecture with one more layer, which is never trained and has no dropout.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lora_core.encoders.encoder_parts import blocks, get_linear_submodule, has_mean_pooling_block
from lora_core.encoders.families import EncoderFamily, FastPathFamily
from lora_core.specs.method import LayerRole
from lora_core.specs.pooling import POOLING_BLOCK_KEY, Pooling

# The residual is about one thousandth; states times 10,000 may overflow float16.
MEAN_SCALE = 1000.0


def set_pooling(model: PreTrainedModel, family: EncoderFamily, pooling: Pooling) -> None:
    """Make the head read the state that `pooling` selects.

    Some configs select it. In other models the mean is an additional block; a model that already
    has the block keeps it.
    """
    if family.pooling_key is not None:
        setattr(model.config, family.pooling_key, pooling.value)
    elif (
        pooling is Pooling.MEAN
        and isinstance(family, FastPathFamily)
        and not has_mean_pooling_block(model.config)
    ):
        _append_pooling_block(model, family)
    model.config.pooling = pooling.value
    if has_mean_pooling_block(model.config):
        for module in blocks(model, family)[-1].modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0


def freeze_mean_pooling_block(model: nn.Module, family: EncoderFamily) -> None:
    """Freeze the pooling block, whatever else is trained."""
    if has_mean_pooling_block(model.config):
        blocks(model, family)[-1].requires_grad_(False)


def run_mean_pooling_block(
    block: Any, norms: tuple[str, str], x: Tensor, mask: Tensor | None
) -> Tensor:
    """Return the output of the block for states (batch, length, width): (batch, 1, width), first
    token.

    `mask` is (batch, 1, 1 or length, length) and true, or 0, where a token is visible.
    """
    if mask is None:
        mean = x.float().mean(dim=1, keepdim=True)
    else:
        row = mask[:, 0, :1].transpose(1, 2)  # (batch, length, 1)
        seen = row if row.dtype == torch.bool else row == 0
        mean = (x.float() * seen).sum(dim=1, keepdim=True) / seen.sum(dim=1, keepdim=True)
    first, second = (block.get_submodule(name) for name in norms)
    out: Tensor = second(first(MEAN_SCALE * mean + x[:, :1].float()))
    return out


@torch.no_grad()
def _append_pooling_block(model: PreTrainedModel, family: FastPathFamily) -> None:
    """Append the block, and count it in the config."""
    block_list = model.get_submodule(family.block_list)
    if not isinstance(block_list, nn.ModuleList):
        raise TypeError(f"{family.block_list} is not a list of blocks")
    block = deepcopy(block_list[-1])
    for parameter in block.parameters():
        parameter.zero_()
    identity = torch.eye(model.config.hidden_size)
    get_linear_submodule(block, family.roles[LayerRole.VALUE][0]).weight.copy_(identity)
    get_linear_submodule(block, family.roles[LayerRole.PROJECTION][0]).weight.copy_(
        MEAN_SCALE * identity
    )
    for name in family.norms:
        block.get_submodule(name).get_parameter("weight").fill_(1.0)
    block_list.append(block)
    setattr(model.config, family.sizes["layers"].names[0], len(block_list))
    setattr(model.config, POOLING_BLOCK_KEY, True)
