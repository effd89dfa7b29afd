"""Vectors of whole texts by the frozen sample base: computed once, kept in the cache."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.small.plan import MAX_LENGTH
from benchmarks.small.sets import Texts
from lora_core.atomic_files import atomic_path
from lora_core.cache import cache_dir
from lora_core.data.rows import TextRow
from lora_core.samples import minilm

BATCH_TEXTS = 32
Precision = Literal["float32", "bfloat16"]


class Vectors:
    """Of all texts of a dataset."""

    def __init__(self, texts: Texts, precision: Precision = "float32") -> None:
        """Computes those that are not in the cache."""
        rows = sorted({row.text for row in (*texts.pool, *texts.test)})
        self._places = {text: place for place, text in enumerate(rows)}
        settings = [minilm.REVISION, str(MAX_LENGTH)]
        settings += [] if precision == "float32" else [precision]
        content = "\0".join([*settings, *rows])
        digest = hashlib.sha256(content.encode()).hexdigest()
        path = cache_dir() / "bench-small" / "vectors" / f"{digest}.npy"
        if not path.exists():
            with atomic_path(path) as unfinished:
                np.save(unfinished, _computed(rows, precision))
        self._all = np.load(path)

    def of(self, rows: Sequence[TextRow]) -> NDArray[np.float32]:
        """(texts, width), each of length 1."""
        found: NDArray[np.float32] = self._all[[self._places[row.text] for row in rows]]
        return found


def _computed(texts: Sequence[str], precision: Precision) -> NDArray[np.float32]:
    """The means of all tokens, as the base was trained, made as long as 1."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel

    directory = minilm.build_cached_checkpoint()
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.enable_padding()
    model = AutoModel.from_pretrained(directory).eval().to(getattr(torch, precision))
    found = np.empty((len(texts), model.config.dim), np.float32)
    with torch.inference_mode():
        for places in _batches(texts):
            encoded = tokenizer.encode_batch([texts[place] for place in places])
            ids = torch.tensor([each.ids for each in encoded])
            mask = torch.tensor([each.attention_mask for each in encoded])
            states = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            means = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            found[places] = torch.nn.functional.normalize(means).numpy()
    return found


def _batches(texts: Sequence[str]) -> Iterator[list[int]]:
    """Places of texts of like length."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    for first in range(0, len(order), BATCH_TEXTS):
        yield order[first : first + BATCH_TEXTS]
