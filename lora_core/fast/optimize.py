"""One call that makes a model train faster without changing what it computes."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lora_core.adapters import adapter_layers
from lora_core.data.tokens import TokenizedSplit
from lora_core.encoders.encoder_parts import blocks
from lora_core.encoders.families import EncoderFamily, FastPathFamily
from lora_core.fast import cast_weights, first_token, folded_lora, frozen_encoder, unfused_attention
from lora_core.forward import Forward
from lora_core.progress_reporter import ProgressReporter
from lora_core.runtime import Runtime
from lora_core.specs.data import Split


def optimize(  # noqa: PLR0913 - everything that decides which optimizations are exact
    model: PreTrainedModel,
    family: EncoderFamily,
    runtime: Runtime,
    data: Mapping[Split, TokenizedSplit],
    *,
    encoder_dropout: float,
    micro_batch_tokens: int,
    progress: ProgressReporter,
    environment: Mapping[str, str],
) -> Forward:
    """Replace slow parts of `model` in place, and return the fastest exact forward pass.

    Call it when the model is on its device, has its adapters, and `requires_grad` is set. Names and
    weights stay the same. Without this call, a model computes the same result more slowly.
    """
    folded_lora.patch_lora_layers(model)
    if isinstance(family, FastPathFamily):
        first_token.patch_last_block(model, family)
        if unfused_attention.is_faster(runtime.device, runtime.precision):
            unfused_attention.patch_attention(model)
    if runtime.precision == "bf16":
        cast_weights.patch_frozen_linears(blocks(model, family), torch.bfloat16)
    if not isinstance(family, FastPathFamily):
        for adapter in adapter_layers(model).values():
            adapter.register_forward_hook(_round_to_autocast_type)
    return frozen_encoder.build_fastest_forward(
        model,
        runtime,
        family,
        data,
        encoder_dropout=encoder_dropout,
        budget=micro_batch_tokens,
        progress=progress,
        environment=environment,
    )


def _round_to_autocast_type(_layer: nn.Module, args: tuple[Tensor], y: Tensor) -> Tensor:
    """Round the output of a layer as autocast rounds that of a linear layer: DoRA's is float32.

    Attention in transformers takes it for granted that query and scores have the same type.
    """
    device = args[0].device.type
    return y.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else y
