"""Texts to token ids, in the same way as in the training of the model, and to words."""

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from tokenizers import Encoding, Tokenizer

from lora_core.data.tokens import truncate_ids
from lora_core.errors.artifact import EmptyInput, InputTooLong, TokenizerFailed
from lora_core.process import is_out_of_memory
from lora_core.rust_panics import convert_panics
from lora_core.specs.predict import TruncationSide


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """The token ids of one text, or of a pair of texts; their number is its cost."""

    ids: Sequence[int]
    truncated: bool
    # Index of the first token of the second segment (token type 1); None: there is none.
    segment_start: int | None = None

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


# -- Words, with the token ids of each ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WordSpan:
    """Characters `start` to `end` of a text.

    The token ids of the word begin at index `first_token` and end where those of the next begin.
    """

    start: int
    end: int
    first_token: int


@dataclass(frozen=True, slots=True)
class TokenizedWords:
    """The words and token ids that a model reads of one text. Truncated words are left out."""

    text: str
    words: Sequence[WordSpan]
    ids: Sequence[int]
    truncated: bool

    def word_text(self, word: WordSpan) -> str:
        """Return the word as written in the text."""
        return self.text[word.start : word.end]

    def grouped(self, max_words: int) -> "TokenizedWords":
        """Return at most `max_words` words: if there are more, neighbors are merged."""
        count = len(self.words)
        if count <= max_words:
            return self
        bounds = [count * i // max_words for i in range(max_words + 1)]
        groups = [
            WordSpan(self.words[a].start, self.words[b - 1].end, self.words[a].first_token)
            for a, b in pairwise(bounds)
        ]
        return TokenizedWords(self.text, groups, self.ids, self.truncated)

    def keep_words(self, kept: Sequence[bool]) -> TokenizedText:
        """Return the token ids of the words for which `kept` is true.

        Special tokens before and after the words are always kept.
        """
        if not self.words:
            return TokenizedText(self.ids, self.truncated)
        starts = [word.first_token for word in self.words]
        ids = list(self.ids[: starts[0]])
        for keep, start, end in zip(kept, starts, [*starts[1:], len(self.ids) - 1], strict=True):
            ids += self.ids[start:end] if keep else ()
        return TokenizedText([*ids, self.ids[-1]], self.truncated)


def tokenize_into_words(tokenizer: Tokenizer, text: str, max_length: int) -> TokenizedWords:
    """Tokenize a text, truncate it to `max_length` tokens and split it into words.

    Words are separated by white space. In a script without spaces (Chinese) they are the words of
    the tokenizer. Raises `EmptyInput`, `TokenizerFailed`.
    """
    if not text.strip():
        raise EmptyInput(index=0)
    with tokenizer_errors():
        encoding = tokenizer.encode(text)
    kept = truncate_ids(range(len(encoding.ids)), max_length)
    words = list(_split_words(text, encoding, kept))
    ids = [encoding.ids[i] for i in kept]
    return TokenizedWords(text, words, ids, len(kept) < len(encoding.ids))


def _split_words(text: str, encoding: Encoding, kept: Sequence[int]) -> Iterator[WordSpan]:
    """Yield the words of the tokens with the indices `kept`.

    A token of white space alone, which byte-level BPE has, belongs to the word that follows it.
    """
    word: WordSpan | None = None
    word_id = None  # the tokenizer's word that the previous token belongs to
    space = None  # the first token of the white space before this token
    for token, i in enumerate(kept):
        start, end = encoding.offsets[i]
        start += len(text[start:end]) - len(text[start:end].lstrip())
        if encoding.special_tokens_mask[i]:
            continue
        if start >= end:
            space = token if space is None else space
            continue
        new_word_id = encoding.word_ids[i] != word_id
        if word is not None and not _is_boundary(text, word.end, start, new_word_id=new_word_id):
            word = WordSpan(word.start, max(word.end, end), word.first_token)
        else:
            if word is not None:
                yield word
            word = WordSpan(start, end, token if space is None else space)
        word_id, space = encoding.word_ids[i], None
    if word is not None:
        yield word


def _is_boundary(text: str, end: int, start: int, *, new_word_id: bool) -> bool:
    """Return whether a word ends at `end` and the next one begins at `start`.

    Punctuation belongs to the word that it touches: `don't`, `well-known` and `film.` are one word
    each. Wide characters, such as Chinese punctuation and emoji, end a word even without white
    space after them.
    """
    between = text[end:start]
    if between:
        return any(character.isspace() for character in between)
    before = text[end - 1]
    ends_word = before.isalnum() or unicodedata.east_asian_width(before) in "WF"
    return new_word_id and ends_word and text[start].isalnum()
