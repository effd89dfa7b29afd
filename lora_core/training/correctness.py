"""Which texts of a split were predicted correctly, so that two runs can be compared by text."""

import base64
import hashlib
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from lora_core.data.records import Example


class Correctness(TypedDict):
    """The correctness of all predictions on one split, as it is stored in a manifest."""

    texts_sha256: str  # equal only for the same texts with the same labels in the same order
    count: int
    correct: str  # base64 of one bit per text, the first one the highest of its byte


def encode_correctness(
    examples: Sequence[Example], labels: Sequence[str], logits: NDArray[np.float32]
) -> Correctness:
    """Compare `logits` (texts, classes) with the labels of these examples, in their order."""
    truth = np.array([example.label for example in examples])
    correct = np.packbits(logits.argmax(axis=1) == truth)
    digest = hashlib.sha256()
    for example in examples:
        text = f"{labels[example.label]}\0{example.text}".encode()
        digest.update(len(text).to_bytes(8, "big"))  # so that one text never hashes like two
        digest.update(text)
    return Correctness(
        texts_sha256=digest.hexdigest(),
        count=len(examples),
        correct=base64.b64encode(correct.tobytes()).decode(),
    )
