"""Texts to token ids, in the same way as in the training of the model, and to words."""

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import compress, groupby, pairwise

from tokenizers import Encoding, Tokenizer

from lora_core.data.tokens import (
    chunk_texts,
    find_second_segment_start,
    indices_after_longest_first_truncation,
    truncate_ids,
    truncate_pair_ids,
)
from lora_core.data.windows import max_tokens_read, split_into_windows
from lora_core.errors.artifact import InputTooLong, InputWithoutTokens, TokenizerFailed
from lora_core.process_settings import is_oom_error
from lora_core.rust_panics import convert_panics
from lora_core.specs.predict import TruncationSide
from lora_core.specs.text_input import TextInput, check_inputs, texts_of_input


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """The token ids of one text, or of a pair of texts; their number is its cost."""

    ids: Sequence[int]
    truncated: bool
    # Index of the first token of the second segment (token type 1); None: there is none.
    segment_start: int | None = None
    # The windows of a long text, whose logits are averaged; empty: it is computed as a whole.
    in_windows: "Sequence[TokenizedText]" = ()

    @property
    def length(self) -> int:
        """The number of tokens to compute."""
        return sum(each.length for each in self.in_windows) or len(self.ids)

    @property
    def windows(self) -> "Sequence[TokenizedText]":
        """The sequences that an encoder computes for the text."""
        return self.in_windows or (self,)


@contextmanager
def convert_tokenizer_errors() -> Iterator[None]:
    """Convert the errors of the tokenizers library, which may raise anything.

    Raises `TokenizerFailed`. Errors for lack of memory pass unchanged.
    """
    try:
        with convert_panics():
            yield
    except Exception as error:
        if is_oom_error(error):
            raise
        raise TokenizerFailed(kind=type(error).__name__) from error


class ModelTokenizer:
    """The tokenizer of a model with its maximum length. Thread-safe."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_length: int,
        *,
        pairs: bool = False,
        windows: bool = False,
    ) -> None:
        """`pairs`: the model reads pairs of texts; `windows`: long texts in windows."""
        self.tokenizer = tokenizer
        self.max_length = max_length  # of a window, if there are windows
        self.pairs, self.windows = pairs, windows
        self.max_tokens_read = max_tokens_read(max_length, "windows" if windows else "cut")

    def encode(
        self, texts: Sequence[TextInput], *, truncate: bool = True, side: TruncationSide = "right"
    ) -> list[TokenizedText]:
        """Tokenize texts, and truncate them at `side` to the length of the training.

        Of a pair, the longer text is truncated first. Raises `TextPairRequired`,
        `TextPairUnsupported`, `EmptyInput`, `InputWithoutTokens`, `TokenizerFailed`, and
        `InputTooLong` if `truncate` is false.
        """
        check_inputs(texts, pairs=self.pairs)
        tokenized: list[TokenizedText] = []
        limit = self.max_tokens_read
        for index, encoding in enumerate(self._encodings(texts)):
            ids: Sequence[int] = encoding.ids
            if not ids:  # there are tokenizers without special tokens
                raise InputWithoutTokens(index=index)
            too_long = len(ids) > limit
            if too_long and not truncate:
                raise InputTooLong(index=index, tokens=len(ids), limit=limit)
            if self.pairs:
                ids, segment_start = truncate_pair_ids(encoding, limit, side)
                tokenized.append(TokenizedText(ids, too_long, segment_start))
                continue
            if too_long and side == "left":
                ids = [ids[0], *ids[len(ids) - limit + 1 :]]
            tokenized.append(
                build_windowed_text(truncate_ids(ids, limit), self.max_length, truncated=too_long)
            )
        return tokenized

    def _encodings(self, texts: Sequence[TextInput]) -> Iterator[Encoding]:
        """Yield the encoding of each text. Raises `TokenizerFailed`."""
        for chunk in chunk_texts(texts):
            with convert_tokenizer_errors():
                encodings = self.tokenizer.encode_batch_fast(chunk)
            yield from encodings


def build_windowed_text(ids: Sequence[int], max_length: int, *, truncated: bool) -> TokenizedText:
    """Return a text, in windows if it has more than `max_length` tokens."""
    if len(ids) <= max_length:
        return TokenizedText(ids, truncated)
    windows = (TokenizedText(each, truncated) for each in split_into_windows(ids, max_length))
    return TokenizedText(ids, truncated, in_windows=tuple(windows))


# -- Words, with the token ids of each ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WordSpan:
    """Characters `start` to `end` of a text.

    The token ids of the word begin at index `first_token` and end where those of the next begin, or
    at a special token.
    """

    start: int
    end: int
    first_token: int
    side: int = 0  # 1: the word is in the second text of a pair


@dataclass(frozen=True, slots=True)
class TokenizedWords:
    """The words and token ids that a model reads of one text, or of a pair.

    Truncated words are left out.
    """

    text: TextInput
    words: Sequence[WordSpan]
    ids: Sequence[int]
    truncated: bool
    special: Sequence[bool]  # for each token, whether the tokenizer added it
    max_length: int  # of a window
    segment_start: int | None = None  # as in `TokenizedText`

    def grouped(self, max_words: int) -> "TokenizedWords":
        """Return about `max_words` words at most: if there are more, neighbors are merged.

        Words of the two texts of a pair are never merged, and each has at least one.
        """
        count = len(self.words)
        if count <= max_words:
            return self
        groups = []
        for words in _by_side(self.words):
            share = max(1, len(words) * max_words // count)
            bounds = [len(words) * i // share for i in range(share + 1)]
            groups += [
                replace(words[first], end=words[last - 1].end) for first, last in pairwise(bounds)
            ]
        return replace(self, words=groups)

    def keep_words(self, kept: Sequence[bool]) -> TokenizedText:
        """Return the token ids of the words for which `kept` is true, in windows if they are many.

        Special tokens are always kept.
        """
        if not self.words:
            return build_windowed_text(self.ids, self.max_length, truncated=self.truncated)
        starts = [word.first_token for word in self.words]
        keeps = [special or i < starts[0] for i, special in enumerate(self.special)]
        for keep, start, end in zip(kept, starts, [*starts[1:], len(self.ids)], strict=True):
            keeps[start:end] = [special or keep for special in keeps[start:end]]
        ids = list(compress(self.ids, keeps))
        if self.segment_start is None:
            return build_windowed_text(ids, self.max_length, truncated=self.truncated)
        return TokenizedText(ids, self.truncated, sum(keeps[: self.segment_start]))


def _by_side(words: Sequence[WordSpan]) -> list[list[WordSpan]]:
    return [list(group) for _, group in groupby(words, key=lambda word: word.side)]


def tokenize_into_words(tokenizer: ModelTokenizer, text: TextInput) -> TokenizedWords:
    """Tokenize a text or a pair, truncate it as `ModelTokenizer.encode` does, and split it into
    words.

    Words are separated by white space. In a script without spaces (Chinese) they are the words of
    the tokenizer. Raises what `ModelTokenizer.encode` raises.
    """
    check_inputs([text], pairs=tokenizer.pairs)
    texts = texts_of_input(text)
    with convert_tokenizer_errors():
        encoding = tokenizer.tokenizer.encode(texts[0], texts[1] if tokenizer.pairs else None)
    every, limit = range(len(encoding.ids)), tokenizer.max_tokens_read
    kept: Sequence[int] = truncate_ids(every, limit)
    if tokenizer.pairs and len(every) > limit:
        kept = indices_after_longest_first_truncation(encoding.sequence_ids, limit)
    words = [
        replace(word, side=side)
        for side, each in enumerate(texts)
        for word in _split_words(each, side, encoding, kept)
    ]
    return TokenizedWords(
        text,
        words,
        [encoding.ids[i] for i in kept],
        len(kept) < len(every),
        [encoding.sequence_ids[i] is None for i in kept],
        tokenizer.max_length,
        find_second_segment_start([encoding.type_ids[i] for i in kept]),
    )


def _split_words(
    text: str, side: int, encoding: Encoding, kept: Sequence[int]
) -> Iterator[WordSpan]:
    """Yield the words of one text of the tokens with the indices `kept`.

    A token of white space alone, which byte-level BPE has, belongs to the word that follows it.
    """
    offsets, word_ids, sequence_ids = encoding.offsets, encoding.word_ids, encoding.sequence_ids
    word: WordSpan | None = None
    word_id = None  # the tokenizer's word that the previous token belongs to
    space = None  # the first token of the white space before this token
    for token, i in enumerate(kept):
        if sequence_ids[i] != side:
            continue
        start, end = offsets[i]
        start += len(text[start:end]) - len(text[start:end].lstrip())
        if start >= end:
            space = token if space is None else space
            continue
        new_word_id = word_ids[i] != word_id
        if word is not None and not _is_boundary(text, word.end, start, new_word_id=new_word_id):
            word = WordSpan(word.start, max(word.end, end), word.first_token)
        else:
            if word is not None:
                yield word
            word = WordSpan(start, end, token if space is None else space)
        word_id, space = word_ids[i], None
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
