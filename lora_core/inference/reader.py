"""Texts to token ids, as the model that answers read them in training."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tokenizers import Tokenizer

from lora_core.data.tokens import cut
from lora_core.errors.artifact import EmptyInput, TextTooLong, TokenizerFailed
from lora_core.process import is_no_memory
from lora_core.rust_panics import contained
from lora_core.specs.predict import Side


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text as token ids; its length is what it costs."""

    ids: Sequence[int]
    truncated: bool

    @property
    def length(self) -> int:
        return len(self.ids)


@contextmanager
def tokenizing() -> Iterator[None]:
    """Around a call of the library, which raises anything. Raises `TokenizerFailed`."""
    try:
        with contained():
            yield
    except Exception as error:
        if is_no_memory(error):
            raise
        raise TokenizerFailed(kind=type(error).__name__) from error


class Reader:
    """The tokenizer of a model. May be used by several threads at once."""

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length

    def encode(
        self, texts: Sequence[str], *, truncate: bool = True, side: Side = "right"
    ) -> list[Encoded]:
        """Token ids, cut to the length the model was trained with, at this side.

        Raises `EmptyInput`, `TokenizerFailed`, and `TextTooLong` if `truncate` is false.
        """
        for index, text in enumerate(texts):
            if not text.strip():
                raise EmptyInput(index=index)
        with tokenizing():
            encodings = self.tokenizer.encode_batch_fast(list(texts))
        rows = []
        for index, encoding in enumerate(encodings):
            ids = encoding.ids
            too_long = len(ids) > self.max_length
            if too_long and not truncate:
                raise TextTooLong(index=index, tokens=len(ids), limit=self.max_length)
            if too_long and side == "left":
                ids = [ids[0], *ids[len(ids) - self.max_length + 1 :]]
            rows.append(Encoded(cut(ids, self.max_length), too_long))
        return rows
