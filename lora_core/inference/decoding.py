"""From logits to labels with scores."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lora_core.specs.predict import Function


def decode(
    logits: Tensor,
    labels: Sequence[str],
    function: Function | None = None,
    temperature: float = 1.0,
) -> list[list[tuple[str, float]]]:
    """A score for each label of each row, the highest first.

    By default the scores are probabilities: softmax of logits / temperature, or sigmoid where there
    is one label only. Their order is that of the logits.
    """
    function = function or ("softmax" if len(labels) > 1 else "sigmoid")
    divisor = temperature if function == "softmax" else 1.0
    scores = _FUNCTIONS[function](logits.double() / divisor)
    order = logits.argsort(dim=-1, descending=True, stable=True)
    return [
        [(labels[i], row[i]) for i in ranks]
        for row, ranks in zip(scores.tolist(), order.tolist(), strict=True)
    ]


_FUNCTIONS: Mapping[Function, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: torch.softmax(logits, dim=-1),
    "sigmoid": torch.sigmoid,
    "none": lambda logits: logits,
}
