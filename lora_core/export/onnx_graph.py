"""Translate a classifier into an ONNX graph: token ids in, logits out.

The graph takes any number of texts of any length: its inputs are `input_ids`, `attention_mask` and,
for pairs of texts, `token_type_ids`, each (batch, sequence) int64; its output is `logits`
(batch, outputs) float32.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.onnx import OnnxExporterError
from transformers import PreTrainedModel

from lora_core.encoders.load import disable_transformers_logging
from lora_core.errors.export import NotTranslatableToOnnx

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "logits"
_AXES = {0: "batch", 1: "sequence"}
_EXAMPLE_SHAPE = (2, 8)  # any: a size of 1 would become a constant of the graph


def export_onnx_graph(path: Path, model: PreTrainedModel, *, segments: bool) -> None:
    """Write the graph of a model in evaluation mode, which is of no use afterwards.

    Weights of more than 2 GB go into a file of their own beside it. `segments`: whether it takes
    the segment of each token. Raises `NotTranslatableToOnnx`.
    """
    inputs = INPUTS if segments else INPUTS[:2]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # The exporter warns of axes that inputs share, and of its own deprecated calls.
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _traceable(model),
                tuple(torch.ones(_EXAMPLE_SHAPE, dtype=torch.int64) for _ in inputs),
                input_names=inputs,
                output_names=[OUTPUT],
                dynamic_shapes=(_AXES,) * len(inputs),
                dynamo=True,
                verbose=False,
            )
            assert program is not None  # noqa: S101 - it is, of dynamo
            program.save(path)
    except OnnxExporterError as error:
        cause = error.__cause__ or error
        raise NotTranslatableToOnnx(
            encoder=model.config.model_type,
            torch=torch.__version__,
            reason=f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}.",
        ) from error


def _traceable(model: PreTrainedModel) -> nn.Module:
    """Return a function of the inputs that always takes the same way."""
    disable_transformers_logging()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision
    # `eager` adds the lowest number to the scores of hidden tokens, where the operator of ONNX adds
    # -inf: a padding token that sees nothing within its window would be NaN, and so all others.
    model.set_attn_implementation("eager")
    kind = _DenseLongformer if model.config.model_type == "longformer" else _Classifier
    classifier: nn.Module = kind(model)
    return classifier.eval()


class _Classifier(nn.Module):
    """A classifier of transformers, without everything else that it returns."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: Tensor = self.model(
            input_ids=input_ids, attention_mask=attention_mask, **segments
        ).logits
        return logits


# -- Longformer -----------------------------------------------------------------------------------

# transformers cuts a text into chunks, and looks up which tokens see all others. The number of
# chunks and of these tokens would be constants of the graph, so the same attention is computed with
# a mask instead.


class _DenseLongformer(nn.Module):
    """A Longformer whose first token sees all others and is seen by them."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.embeddings = model.longformer.embeddings
        self.layers = model.longformer.encoder.layer
        self.classifier = model.classifier
        for layer in self.layers:
            layer.attention.self = _DenseAttention(layer.attention.self)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        x = self.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
        for layer in self.layers:
            (x,) = layer(x, attention_mask=attention_mask.bool())
        logits: Tensor = self.classifier(x)
        return logits


class _DenseAttention(nn.Module):
    """Attention within a window, and from and to the first token (Beltagy et al. 2020)."""

    def __init__(self, sparse: Any) -> None:
        super().__init__()
        self.sparse: Any = sparse

    def forward(self, x: Tensor, attention_mask: Tensor, **_: object) -> tuple[Tensor]:
        """Return states (batch, length, width); `attention_mask` (batch, length) is true at tokens
        of a text."""
        layer, positions = self.sparse, torch.arange(x.shape[1])
        near = (positions[:, None] - positions).abs() <= layer.one_sided_attn_window_size
        seen = attention_mask[:, None] & near | (positions == 0)  # (batch, length, length)
        y = self._attend(layer.query(x), layer.key(x), layer.value(x), seen)
        first = self._attend(
            layer.query_global(x[:, :1]),
            layer.key_global(x),
            layer.value_global(x),
            attention_mask[:, None],
        )
        return (torch.cat((first, y[:, 1:]), dim=1),)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
        q, k, v = (
            t.view(*t.shape[:2], self.sparse.num_heads, -1).transpose(1, 2)
            for t in (query, key, value)
        )
        y = F.scaled_dot_product_attention(q, k, v, seen[:, None])
        return y.transpose(1, 2).flatten(2)
