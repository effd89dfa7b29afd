"""The words of a text, and the token ids that each is made of."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tokenizers import Encoding, Tokenizer

from lora_core.data.tokens import cut
from lora_core.errors.artifact import EmptyInput
from lora_core.inference.reader import Encoded, tokenizing


@dataclass(frozen=True, slots=True)
class Word:
    """Characters `start` to `end` of the text; its ids begin at `token` and end with the next."""

    start: int
    end: int
    token: int


@dataclass(frozen=True, slots=True)
class Worded:
    """What a model reads of one text, word by word. Words that were cut off are not among them."""

    text: str
    words: Sequence[Word]
    ids: Sequence[int]
    truncated: bool

    def spoken(self, word: Word) -> str:
        """As it stands in the text."""
        return self.text[word.start : word.end]

    def grouped(self, most: int) -> "Worded":
        """At most so many words: if there are more, neighbours count as one."""
        count = len(self.words)
        if count <= most:
            return self
        ends = [count * i // most for i in range(most + 1)]
        groups = [
            Word(self.words[a].start, self.words[b - 1].end, self.words[a].token)
            for a, b in pairwise(ends)
        ]
        return Worded(self.text, groups, self.ids, self.truncated)

    def only(self, kept: Sequence[bool]) -> Encoded:
        """The ids without those of the other words. Special tokens before and after always stay."""
        if not self.words:
            return Encoded(self.ids, self.truncated)
        starts = [word.token for word in self.words]
        ids = list(self.ids[: starts[0]])
        for keep, start, end in zip(kept, starts, [*starts[1:], len(self.ids) - 1], strict=True):
            ids += self.ids[start:end] if keep else ()
        return Encoded([*ids, self.ids[-1]], self.truncated)


def read_words(tokenizer: Tokenizer, text: str, max_length: int) -> Worded:
    """The words of what is left of the text after `cut`. Raises `EmptyInput`, `TokenizerFailed`.

    A word is what stands between white space. Where a script has none (Chinese), it is what the
    tokenizer takes for a word.
    """
    if not text.strip():
        raise EmptyInput(index=0)
    with tokenizing():
        encoding = tokenizer.encode(text)
    kept = cut(range(len(encoding.ids)), max_length)
    words = list(_words(text, encoding, kept))
    return Worded(text, words, [encoding.ids[i] for i in kept], len(kept) < len(encoding.ids))


def _words(text: str, encoding: Encoding, kept: Sequence[int]) -> Iterator[Word]:
    """A token of white space alone (byte-level BPE has such) belongs to the word behind it."""
    word: Word | None = None
    number = None  # of the tokenizer's word that the last token is of
    space = None  # the first of the white space before this token
    for token, i in enumerate(kept):
        start, end = encoding.offsets[i]
        start += len(text[start:end]) - len(text[start:end].lstrip())
        if encoding.special_tokens_mask[i]:
            continue
        if start >= end:
            space = token if space is None else space
            continue
        if word is not None and not _apart(text, word.end, start, encoding.word_ids[i] != number):
            word = Word(word.start, max(word.end, end), word.token)
        else:
            if word is not None:
                yield word
            word = Word(start, end, token if space is None else space)
        number, space = encoding.word_ids[i], None
    if word is not None:
        yield word


def _apart(text: str, end: int, start: int, another: bool) -> bool:
    """Whether a word ends at `end` and the next begins at `start`.

    Marks stick to what they touch: `don't`, `well-known` and `film.` are one word each. Wide ones,
    such as those of Chinese and emoji, end a word though no white space follows.
    """
    between = text[end:start]
    if between:
        return any(character.isspace() for character in between)
    before = text[end - 1]
    ends = before.isalnum() or unicodedata.east_asian_width(before) in "WF"
    return another and ends and text[start].isalnum()
