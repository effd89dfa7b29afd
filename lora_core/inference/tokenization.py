"""Texts to token ids, in the same way as in the training of the model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tokenizers import Tokenizer

from lora_core.data.tokens import truncate_ids
from lora_core.errors.artifact import EmptyInput, InputTooLong, TokenizerFailed
from lora_core.process import is_out_of_memory
from lora_core.rust_panics import convert_panics
from lora_core.specs.predict import TruncationSide


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """The token ids of one text; its length is its cost."""

    ids: Sequence[int]
    truncated: bool

    @property
    def length(self) -> int:
        return len(self.ids)


@contextmanager
def tokenizer_errors() -> Iterator[None]:
    """Convert the errors of the tokenizers library, which may raise anything.

    Raises `TokenizerFailed`. Errors for lack of memory pass unchanged.
    """
    try:
        with convert_panics():
            yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise TokenizerFailed(kind=type(error).__name__) from error


class ModelTokenizer:
    """The tokenizer of a model with its maximum length. Thread-safe."""

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length

    def encode(
        self, texts: Sequence[str], *, truncate: bool = True, side: TruncationSide = "right"
    ) -> list[TokenizedText]:
        """Tokenize texts, and truncate them at `side` to the length of the training.

        Raises `EmptyInput`, `TokenizerFailed`, and `InputTooLong` if `truncate` is false.
        """
        for index, text in enumerate(texts):
            if not text.strip():
                raise EmptyInput(index=index)
        with tokenizer_errors():
            encodings = self.tokenizer.encode_batch_fast(list(texts))
        tokenized = []
        for index, encoding in enumerate(encodings):
            ids = encoding.ids
            too_long = len(ids) > self.max_length
            if too_long and not truncate:
                raise InputTooLong(index=index, tokens=len(ids), limit=self.max_length)
            if too_long and side == "left":
                ids = [ids[0], *ids[len(ids) - self.max_length + 1 :]]
            tokenized.append(TokenizedText(truncate_ids(ids, self.max_length), too_long))
        return tokenized
