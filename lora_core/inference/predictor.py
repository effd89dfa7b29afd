"""Texts in, labels with probabilities out, from the merged model of an artifact."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from lora_core import manifest
from lora_core.artifact import load_merged
from lora_core.data.batching import by_length, collate
from lora_core.data.tokens import cut, load_tokenizer
from lora_core.errors import EmptyInput, TextTooLong
from lora_core.tasks.sequence_classification import decode

BATCH_TOKENS = 4096  # padded tokens computed at once


@dataclass(frozen=True)
class Encoded:
    """One text as token ids; its length is what it costs."""

    ids: Sequence[int]
    truncated: bool

    @property
    def length(self) -> int:
        return len(self.ids)


class Predictor:
    """A loaded model version. Not safe for use by two threads at once."""

    def __init__(self, model: PreTrainedModel, tokenizer: Tokenizer, max_length: int) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.pad = tokenizer.token_to_id("[PAD]") or 0
        self.labels: list[str] = [model.config.id2label[i] for i in range(model.config.num_labels)]

    @classmethod
    def load(cls, directory: Path) -> "Predictor":
        """From an artifact directory, every digest checked. Raises `ArtifactCorrupt`."""
        facts = manifest.verify(directory)
        tokenizer = load_tokenizer(directory / manifest.MERGED / "tokenizer.json")
        return cls(load_merged(directory), tokenizer, facts["max_length"])

    def encode(self, texts: Sequence[str], *, truncate: bool = True) -> list[Encoded]:
        """Token ids, cut to the length the model was trained with.

        Raises `EmptyInput`, and `TextTooLong` if `truncate` is false.
        """
        for index, text in enumerate(texts):
            if not text.strip():
                raise EmptyInput(index=index)
        rows = []
        for index, encoding in enumerate(self.tokenizer.encode_batch(list(texts))):
            too_long = len(encoding.ids) > self.max_length
            if too_long and not truncate:
                tokens = len(encoding.ids)
                raise TextTooLong(index=index, tokens=tokens, limit=self.max_length)
            rows.append(Encoded(cut(encoding.ids, self.max_length), too_long))
        return rows

    @torch.inference_mode()
    def forward(self, items: Sequence[Encoded]) -> Tensor:
        """Logits (items, classes) in float32, in the order given; computed by length."""
        lengths = np.array([item.length for item in items])
        logits = torch.empty(len(items), len(self.labels))
        for indices in by_length(lengths, BATCH_TOKENS):
            no_labels = np.zeros(len(indices), dtype=np.int64)
            batch = collate([items[i].ids for i in indices], no_labels, self.pad)
            out = self.model(batch.input_ids, attention_mask=batch.attention_mask)
            logits[indices] = out.logits
        return logits

    def decode(self, logits: Tensor) -> list[list[tuple[str, float]]]:
        """All labels with their probabilities, highest first."""
        return decode(logits, self.labels)

    def predict(
        self, texts: Sequence[str], *, truncate: bool = True
    ) -> list[list[tuple[str, float]]]:
        """Encode, forward, decode."""
        return self.decode(self.forward(self.encode(texts, truncate=truncate)))
