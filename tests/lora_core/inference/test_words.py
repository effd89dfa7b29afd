"""Words of a text, and the token ids without some of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_core.errors.artifact import EmptyInput
from lora_core.inference.reader import Reader
from lora_core.inference.words import Worded, read_words
from tests.tiny_base import tokenizer

FAMILIES = {family: tokenizer(family) for family in ("distilbert", "roberta")}
TEXTS = st.text(st.sampled_from("a film'-.,  \n\u00a0é😀电。[]<>/s")).filter(str.strip)


def read(text: str, family: str = "distilbert", max_length: int = 64) -> Worded:
    return read_words(FAMILIES[family], text, max_length)


def spoken(worded: Worded) -> list[str]:
    return [worded.spoken(word) for word in worded.words]


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
def test_words_stand_between_white_space(family: str, text: str, words: list[str]) -> None:
    assert spoken(read(text, family)) == words


def test_a_script_without_spaces_has_the_words_of_the_tokenizer() -> None:
    assert spoken(read("电影很好。good电影")) == ["电", "影", "很", "好。", "good", "电", "影"]


@pytest.mark.parametrize("family", FAMILIES)
@given(text=TEXTS, max_length=st.integers(4, 40))
def test_all_words_are_what_the_model_reads(family: str, text: str, max_length: int) -> None:
    worded = read(text, family, max_length)
    [encoded] = Reader(FAMILIES[family], max_length).encode([text])
    everything = worded.only([True] * len(worded.words))
    assert list(everything.ids) == list(encoded.ids) == list(worded.ids)
    assert everything.truncated == encoded.truncated == worded.truncated
    ends = [0, *(position for word in worded.words for position in (word.start, word.end))]
    assert ends == sorted(ends)
    assert all(word.strip() == word != "" for word in spoken(worded))


@pytest.mark.parametrize("family", FAMILIES)
@given(text=TEXTS)
def test_every_token_is_of_one_word(family: str, text: str) -> None:
    worded = read(text, family)
    count = len(worded.words)
    alone = [worded.only([i == j for j in range(count)]).ids for i in range(count)]
    if count:
        first, *_, last = worded.ids
        assert [first, *(i for ids in alone for i in ids[1:-1]), last] == list(worded.ids)
        assert list(worded.only([False] * count).ids) == [first, last]


def test_words_that_were_cut_off_are_none() -> None:
    worded = read("a very good film", max_length=4)
    assert spoken(worded) == ["a", "very"]
    assert worded.truncated


def test_neighbours_go_together() -> None:
    worded = read("the film was not very good")
    assert worded.grouped(6) is worded
    assert spoken(worded.grouped(3)) == ["the film", "was not", "very good"]
    assert spoken(worded.grouped(4)) == ["the", "film was", "not", "very good"]
    assert worded.grouped(4).only([True] * 4).ids == list(worded.ids)


def test_nothing_to_read() -> None:
    with pytest.raises(EmptyInput):
        read(" \n")
    assert read("\u200b").words == []  # the tokenizer drops it
    assert list(read("\u200b").only([]).ids) == list(read("\u200b").ids)
