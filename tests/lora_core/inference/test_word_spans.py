"""Tests of splitting texts into words, and of masking words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_core.errors.artifact import EmptyInput
from lora_core.inference.tokenization import ModelTokenizer, TokenizedWords, tokenize_into_words
from lora_core.specs.text_input import texts_of_input
from tests.tiny_base import tokenizer

FAMILIES = {family: tokenizer(family) for family in ("distilbert", "roberta", "xlm-roberta")}
TEXTS = st.text(st.sampled_from("a film'-.,  \n\u00a0é😀电。[]<>/s")).filter(str.strip)


def split(text: str, family: str = "distilbert", max_length: int = 64) -> TokenizedWords:
    return tokenize_into_words(ModelTokenizer(FAMILIES[family], max_length), text)


def word_texts(words_of_text: TokenizedWords) -> list[str]:
    """Return the words as they are written in the text, or in both texts of a pair."""
    sides = texts_of_input(words_of_text.text)
    return [sides[word.side][word.start : word.end] for word in words_of_text.words]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a good film", ["a", "good", "film"]),
        ("  not \n very\u00a0good\u3000 ", ["not", "very", "good"]),
        ("I don't like well-known films.", ["I", "don't", "like", "well-known", "films."]),
        ("good good good", ["good", "good", "good"]),
        ("unbelievablyboring", ["unbelievablyboring"]),
        ("😀 film😀 naïve", ["😀", "film😀", "naïve"]),
        ("<b>good</b> [SEP] </s>", ["<b>good</b>", "[SEP]", "</s>"]),
    ],
)
def test_words_are_separated_by_white_space(family: str, text: str, words: list[str]) -> None:
    assert word_texts(split(text, family)) == words


def test_script_without_spaces_uses_the_words_of_the_tokenizer() -> None:
    assert word_texts(split("电影很好。good电影")) == ["电", "影", "很", "好。", "good", "电", "影"]


@pytest.mark.parametrize("family", FAMILIES)
@given(text=TEXTS, max_length=st.integers(4, 40))
def test_all_words_have_the_token_ids_of_the_text(family: str, text: str, max_length: int) -> None:
    words_of_text = split(text, family, max_length)
    [encoded] = ModelTokenizer(FAMILIES[family], max_length).encode([text])
    everything = words_of_text.keep_words([True] * len(words_of_text.words))
    assert list(everything.ids) == list(encoded.ids) == list(words_of_text.ids)
    assert everything.truncated == encoded.truncated == words_of_text.truncated
    ends = [0, *(position for word in words_of_text.words for position in (word.start, word.end))]
    assert ends == sorted(ends)
    assert all(word.strip() == word != "" for word in word_texts(words_of_text))


@pytest.mark.parametrize("family", FAMILIES)
@given(text=TEXTS)
def test_every_token_belongs_to_one_word(family: str, text: str) -> None:
    words_of_text = split(text, family)
    count = len(words_of_text.words)
    alone = [words_of_text.keep_words([i == j for j in range(count)]).ids for i in range(count)]
    if count:
        first, *_, last = words_of_text.ids
        assert [first, *(i for ids in alone for i in ids[1:-1]), last] == list(words_of_text.ids)
        assert list(words_of_text.keep_words([False] * count).ids) == [first, last]


def test_truncated_words_are_left_out() -> None:
    words_of_text = split("a very good film", max_length=4)
    assert word_texts(words_of_text) == ["a", "very"]
    assert words_of_text.truncated


def test_neighbors_are_merged() -> None:
    words_of_text = split("the film was not very good")
    assert words_of_text.grouped(6) is words_of_text
    assert word_texts(words_of_text.grouped(3)) == ["the film", "was not", "very good"]
    assert word_texts(words_of_text.grouped(4)) == ["the", "film was", "not", "very good"]
    assert words_of_text.grouped(4).keep_words([True] * 4).ids == list(words_of_text.ids)


def test_text_without_words() -> None:
    with pytest.raises(EmptyInput):
        split(" \n")
    assert split("\u200b").words == []  # the tokenizer drops it
    assert list(split("\u200b").keep_words([]).ids) == list(split("\u200b").ids)
