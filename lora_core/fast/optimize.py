"""One call that makes a model train faster without changing what it computes."""

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from lora_core.data.tokens import TokenizedSplit
from lora_core.encoders.families import FastFamily
from lora_core.encoders.modules import blocks
from lora_core.fast import (
    cast_weights,
    first_token,
    folded_lora,
    frozen_encoder,
    unfused_attention,
)
from lora_core.forward import BlockwiseForward
from lora_core.progress_reporter import ProgressReporter
from lora_core.runtime import Runtime
from lora_core.specs.data import Split


def optimize(  # noqa: PLR0913 - everything that decides which optimizations are exact
    model: PreTrainedModel,
    family: FastFamily,
    runtime: Runtime,
    data: Mapping[Split, TokenizedSplit],
    *,
    encoder_dropout: float,
    micro_batch_tokens: int,
    progress: ProgressReporter,
    environment: Mapping[str, str],
) -> BlockwiseForward:
    """Replace slow parts of `model` in place, and return the fastest exact forward pass.

    Call it when the model is on its device, has its adapters, and `requires_grad` is set. Names and
    weights stay the same. Without this call, a model computes the same result more slowly.
    """
    folded_lora.patch(model)
    first_token.patch(model, family)
    if unfused_attention.is_faster(runtime.device, runtime.precision):
        unfused_attention.patch(model)
    if runtime.precision == "bf16":
        cast_weights.patch(blocks(model, family), torch.bfloat16)
    return frozen_encoder.build_forward(
        model,
        runtime,
        family,
        data,
        encoder_dropout=encoder_dropout,
        budget=micro_batch_tokens,
        progress=progress,
        environment=environment,
    )
