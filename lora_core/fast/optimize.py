"""One call that makes a model train faster without changing what it computes."""

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from lora_core.data.tokenized_split import Part
from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.modules import blocks
from lora_core.fast import cast_weights, first_token, folded_lora, frozen_encoder, unfused_attention
from lora_core.forward import BlockwiseForward
from lora_core.progress_reporter import Pulse
from lora_core.runtime import Runtime
from lora_core.specs.data import Split


def optimize(  # noqa: PLR0913 - whatever decides which optimization is exact here
    model: PreTrainedModel,
    family: EncoderFamily,
    runtime: Runtime,
    parts: Mapping[Split, Part],
    *,
    encoder_dropout: float,
    micro_batch_tokens: int,
    pulse: Pulse,
    environment: Mapping[str, str],
) -> BlockwiseForward:
    """Replace slow parts of `model` in place, and return the fastest exact forward pass.

    The model is on its device, its adapters are in place, and what trains has been chosen. Names
    and weights stay as they are. Without this call a model computes the same, more slowly.
    """
    folded_lora.use(model)
    first_token.use(model, family)
    if unfused_attention.pays(runtime.device, runtime.precision):
        unfused_attention.use(model)
    if runtime.precision == "bf16":
        cast_weights.use(blocks(model, family), torch.bfloat16)
    return frozen_encoder.fastest_forward(
        model,
        runtime,
        family,
        parts,
        encoder_dropout=encoder_dropout,
        budget=micro_batch_tokens,
        pulse=pulse,
        environment=environment,
    )
