"""Which texts of a part were answered rightly: what two runs are compared by, text by text."""

import base64
import hashlib
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from lora_core.data.records import Example


class Graded(TypedDict):
    """As it stands in a manifest."""

    texts_sha256: str  # the same texts with the same labels in the same order have the same
    count: int
    correct: str  # a bit for each text, the first is the highest of its byte; base64


def grade(
    examples: Sequence[Example], labels: Sequence[str], logits: NDArray[np.float32]
) -> Graded:
    """`logits` (texts, classes) are the answers to these examples, in their order."""
    truth = np.array([example.label for example in examples])
    right = np.packbits(logits.argmax(axis=1) == truth)
    digest = hashlib.sha256()
    for example in examples:
        text = f"{labels[example.label]}\0{example.text}".encode()
        digest.update(len(text).to_bytes(8, "big"))  # so that no text can pass for two
        digest.update(text)
    return Graded(
        texts_sha256=digest.hexdigest(),
        count=len(examples),
        correct=base64.b64encode(right.tobytes()).decode(),
    )
