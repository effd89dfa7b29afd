"""Estimate the cost of training before it starts, in floating-point operations and seconds.

The operations per token follow from the sizes of the encoder alone.

For h layers of width d with a feed-forward width f, and L the mean length that a token attends to
(a gated feed-forward network has 3df; with attention in a window, L is shorter in some layers):

    lin = 2h (4d² + 2df)      att = 4h L d      forward = lin + att      full = 3 lin + 3.5 att

The backward pass of the linear layers costs twice their forward pass; half of it is for the weight
gradients, which frozen layers do not need. That of attention costs 2.5 times its forward pass.
There is no backward pass below the lowest trained layer, nor through its query, key and value
(6d²). Embeddings and head are too small to count. The last block is counted in full, though a
classifier needs less of it (`fast/first_token.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lora_core.compatibility import EncoderShape, count_adapted_layers_by_dims
from lora_core.linear.files import count_weight_rows
from lora_core.resolve_defaults import resolve_epochs_and_batch_size
from lora_core.specs.method import (
    EncoderMethod,
    FullFineTuningSpec,
    LastLayersBaselineSpec,
    LinearSpec,
    LoraSpec,
    ProbeSpec,
    SingleMethod,
)
from lora_core.specs.task import TaskType
from lora_core.specs.train import OptimSpec

# FLOP/s of a machine without measurements: two cores in float32; one large GPU in bfloat16.
DEFAULT_FLOPS_PER_SECOND: Mapping[str, float] = {"cpu": 1e11, "cuda": 2e13}
LINEAR_SECONDS_PER_TOKEN = 5e-6  # TF-IDF + logistic regression of two classes, on one core
LABEL_SHARE = 0.075  # of that, for each label of a multi-label task; measured with 1 to 14 labels
ATTENDED_LENGTH_RATIO = 1.25  # E[L²] / E[L]², measured on film reviews
_CHARACTERS_PER_TOKEN = 4.4  # English film reviews, WordPiece of 30,522 pieces


def estimate_mean_tokens(characters: float, limit: int) -> float:
    """Estimate the mean tokens per text, [CLS] and [SEP] included, from the mean of characters.

    Lengths vary, so truncation at `limit` lowers the mean before it reaches the limit.
    """
    return min(characters / _CHARACTERS_PER_TOKEN + 2, 0.85 * limit)


def forward_flops_per_token(shape: EncoderShape, *, length: float) -> float:
    """Return FLOPs per token for a forward pass. `length` is E[L²] / E[L] in tokens."""
    linears, attention = _linear_and_attention_flops(shape, length)
    return linears + attention


def training_flops_per_token(shape: EncoderShape, method: EncoderMethod, *, length: float) -> float:
    """Return FLOPs per token for a forward and a backward pass."""
    linears, attention = _linear_and_attention_flops(shape, length)
    not_needed = 6 * shape.width**2  # the input gradient of the lowest trained block
    match method:
        case FullFineTuningSpec():
            return 3 * linears + 3.5 * attention
        case ProbeSpec() | LastLayersBaselineSpec(blocks=0):
            return linears + attention
        case LastLayersBaselineSpec():
            backward = (1 - fraction_of_blocks_below_lowest_trained(shape, method)) * (
                2 * linears + 2.5 * attention
            )
            return linears + attention + backward - not_needed
        case LoraSpec():
            backward = (1 - fraction_of_blocks_below_lowest_trained(shape, method)) * (
                linears + 2.5 * attention
            )
            low_rank = sum(
                count * min(method.r, d_in, d_out) * (d_in + d_out)
                for (d_in, d_out), count in count_adapted_layers_by_dims(shape, method, 2).items()
            )
            return linears + attention + backward + 6 * low_rank - not_needed


def fraction_of_blocks_below_lowest_trained(shape: EncoderShape, method: EncoderMethod) -> float:
    """Return the share of the blocks that lie below the lowest trained one."""
    match method:
        case ProbeSpec():
            return 1.0
        case LastLayersBaselineSpec(blocks=blocks):
            return 1 - blocks / shape.layers
        case LoraSpec(layers=layers) if layers is not None:
            return min(layers) / shape.layers
        case _:
            return 0.0


def _linear_and_attention_flops(shape: EncoderShape, length: float) -> tuple[float, float]:
    linears = 2 * shape.block_passes * shape.block_multiplications
    return linears, 4 * shape.attended_tokens_in_all_blocks(length) * shape.width


def linear_model_seconds_per_token(task: TaskType, labels: int) -> float:
    """Return the time of fitting the linear model on one core, per token of the training texts.

    Logistic regression of several classes has a row of weights for each. One of several labels is
    fitted in a small part of the time that TF-IDF takes.
    """
    if task == "multi_label":
        return LINEAR_SECONDS_PER_TOKEN * (1 + LABEL_SHARE * labels)
    rows = count_weight_rows(labels) if task == "single_label" else 1
    return LINEAR_SECONDS_PER_TOKEN * max(1.0, rows / 2)


@dataclass(frozen=True)
class CostModel:
    """Estimates the duration of fits. `mean_tokens` is the mean length of the truncated texts."""

    shape: EncoderShape
    optim: OptimSpec
    mean_tokens: float
    flops_per_second: float
    task: TaskType = "single_label"
    labels: int = 2

    def seconds(self, method: SingleMethod, texts: int) -> float:
        """Return the seconds of one fit on `texts` texts, without the start of a process."""
        length = self.mean_tokens * ATTENDED_LENGTH_RATIO
        match method:
            case LinearSpec():
                of_a_token = linear_model_seconds_per_token(self.task, self.labels)
                return texts * self.mean_tokens * of_a_token
            case ProbeSpec():
                work = forward_flops_per_token(self.shape, length=length)
            case _:
                epochs, _ = resolve_epochs_and_batch_size(self.optim, texts)
                work = epochs * training_flops_per_token(self.shape, method, length=length)
        return texts * self.mean_tokens * work / self.flops_per_second
