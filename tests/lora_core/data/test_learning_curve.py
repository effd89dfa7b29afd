"""Would more labels help: what is measured, how it is extrapolated, and where it cannot be told."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from lora_core.data import learning_curve as curve
from lora_core.data.load import load
from lora_core.data.more_labels import Gain, MoreLabels, basis_in_words, in_words
from lora_core.data.rows import Row
from lora_core.specs.data import DataSpec


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path))
    return tmp_path / "learning-curves"


def labeled(*labels: str) -> list[Row]:
    """Texts that have no word in common, but for one that gives the label away."""
    return [Row(i, f"word{i} other{i} sign{label}", label) for i, label in enumerate(labels)]


def alternating(count: int, labels: int = 2) -> list[Row]:
    return labeled(*(str(i % labels) for i in range(count)))


def lawful(truth: curve.Indices, error: Callable[[float], float]) -> curve.Learner:
    """Answers wrongly at random, as often as the law says for so many texts."""
    rng = np.random.default_rng(1)

    def learn(train: curve.Indices, held_out: curve.Indices) -> curve.Indices:
        wrong = rng.random(len(held_out)) < error(len(train))
        return np.where(wrong, 1 - truth[held_out], truth[held_out])

    return learn


def of_law(error: Callable[[float], float], count: int = 2000) -> MoreLabels:
    truth = np.arange(count) % 2
    return curve.estimate(lawful(truth, error), truth, texts=count, basis="probe")


@pytest.mark.parametrize(
    "error",
    [
        lambda n: 0.05 + 1.5 * n**-0.4,
        lambda n: 3 * n**-0.5,
        lambda n: 0.62 - 0.04 * np.log(n),
        lambda n: 0.6 - 0.04 * n**0.25,  # not level yet
    ],
    ids=["asymptote", "power", "logarithm", "accelerating"],
)
def test_the_range_holds_the_law_that_the_texts_follow(error: Callable[[float], float]) -> None:
    found = of_law(error)
    assert found.code == "measured"
    assert [each.texts for each in found.expected] == [2000, 4000, 8000]
    assert [each.texts for each in found.gains] == [4000, 8000]
    for gain in found.gains:
        assert gain.low <= error(2000) - error(gain.texts) <= gain.high
    for each in found.expected:
        assert each.low <= 1 - error(each.texts) <= each.high
        assert each.low <= each.accuracy <= each.high
    assert found.message == in_words(found.gains)


def test_fewer_texts_give_a_wider_range() -> None:
    few, many = (of_law(lambda n: 0.05 + 1.5 * n**-0.4, count).gains[0] for count in (250, 4000))
    assert few.high - few.low > 2 * (many.high - many.low)


def test_a_level_curve_says_that_more_would_hardly_help() -> None:
    found = of_law(lambda _: 0.02, 4000)
    assert found.gains[1].high < 0.01
    assert found.message.startswith("More labels of this kind would hardly help: with twice as")


def test_a_sudden_success_stays_within_what_is_possible() -> None:
    found = of_law(lambda n: 0.45 if n < 1000 else 0.001)
    numbers = [share for each in found.expected for share in (each.low, each.accuracy, each.high)]
    assert all(0 <= number <= 1 for number in numbers)
    assert found.gains[1].high <= 0.5


def test_what_does_not_beat_the_most_frequent_label_is_not_extrapolated() -> None:
    truth = (np.arange(400) % 4 == 0).astype(np.int64)
    found = curve.estimate(lambda _, held_out: 0 * held_out, truth, texts=400, basis="linear")
    assert (found.code, found.gains, found.expected) == ("not_above_majority", (), ())
    assert "the most frequent label (75.0%)" in found.message
    assert [each.accuracy for each in found.measured] == [0.75] * 5


def test_no_model_sees_what_it_is_asked_and_smaller_shares_are_part_of_larger_ones() -> None:
    truth = np.arange(300) % 3
    asked: list[tuple[set[int], set[int]]] = []

    def learn(train: curve.Indices, held_out: curve.Indices) -> curve.Indices:
        counts = np.bincount(truth[train], minlength=3)
        assert np.ptp(counts) <= 0.2 * len(train)
        asked.append((set(train), set(held_out)))
        return truth[held_out]

    scores = curve.measure(learn, truth)
    assert scores.sizes.tolist() == [15, 30, 60, 120, 240]
    assert scores.right.shape == (5, 300)
    assert len(asked) == 5 * curve.MOST_RUNS
    for run in range(curve.MOST_RUNS):
        shares = asked[5 * run : 5 * run + 5]
        assert len({frozenset(held_out) for _, held_out in shares}) == 1
        assert all(not train & held_out for train, held_out in shares)
        assert all(small[0] < large[0] for small, large in pairwise(shares))


def test_the_linear_model_is_that_of_scikit_learn() -> None:
    splits = load(DataSpec(train_size=300, validation_size=200, test_size=100))
    examples = [*splits.train, *splits.validation]
    texts, truth = [e.text for e in examples], np.array([e.label for e in examples])
    rows = [
        Row(i, text, str(label)) for i, (text, label) in enumerate(zip(texts, truth, strict=True))
    ]
    train, held_out = np.arange(300), np.arange(300, 500)
    reference = make_pipeline(
        TfidfVectorizer(sublinear_tf=True),
        LogisticRegression(C=curve.STRENGTHS["linear"], max_iter=1000),
    ).fit(texts[:300], truth[:300])
    ours = curve.linear(rows, truth)(train, held_out)
    assert (ours == reference.predict(texts[300:])).mean() > 0.98


def test_on_sentences_the_range_holds_what_twice_as_many_reach() -> None:
    splits = load(DataSpec(train_size=2000, validation_size=100, test_size=2000))
    rows = [Row(i, e.text, splits.labels[e.label]) for i, e in enumerate(splits.train)]
    found = curve.of_rows(rows[:1000])
    both = [*splits.train, *splits.test]
    truth = np.array([e.label for e in both])
    learner = curve.linear([Row(i, e.text, "") for i, e in enumerate(both)], truth)
    held_out = np.arange(2000, 4000)
    once, twice = (
        (learner(np.arange(count), held_out) == truth[held_out]).mean() for count in (1000, 2000)
    )
    [gain, _] = found.gains
    assert (found.texts, found.used, gain.texts) == (1000, 1000, 2000)
    assert gain.low <= twice - once <= gain.high


@pytest.mark.parametrize(
    ("rows", "code", "says"),
    [
        ([], "no_labels", "nothing to learn from"),
        (alternating(400, labels=1), "one_label", "at least two"),
        (alternating(2), "too_few", "2 labeled texts are too few"),
        (alternating(100), "too_few", "100 labeled texts are too few"),
        (alternating(249), "too_few", "249 labeled texts are too few"),
        (alternating(600, labels=600), "too_few", "Of the 600 labeled texts 0 have a label"),
        (alternating(600, labels=200), "too_few", "Of the 600 labeled texts 0 have a label"),
        (labeled(*["usual"] * 400, *map(str, range(9))), "too_few", "Of the 409 labeled texts 400"),
    ],
)  # fmt: skip
def test_where_it_cannot_be_told_a_sentence_says_why(rows: list[Row], code: str, says: str) -> None:
    found = curve.of_rows(rows)
    assert (found.code, found.basis, found.measured, found.gains) == (code, None, (), ())
    assert says in found.message
    assert basis_in_words(found) is None
    assert MoreLabels.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("labels", [2, 5, 50, 100])
def test_any_number_of_labels_gives_numbers(labels: int) -> None:
    found = curve.of_rows(alternating(600, labels=labels))
    assert found.code in ("measured", "not_above_majority")
    assert len(found.measured) == 5
    assert "NaN" not in found.model_dump_json()
    assert "null" not in found.model_dump_json()


def test_texts_without_words_do_not_beat_the_most_frequent_label() -> None:
    rows = [Row(i, f"{chr(0x4E00 + i)} !", str(i % 2)) for i in range(300)]
    assert curve.of_rows(rows).code == "not_above_majority"


def test_copies_of_a_text_count_once() -> None:
    rows = [Row(i, f"text number {i // 3}", str(i // 3 % 2)) for i in range(900)]
    found = curve.of_rows(rows)
    assert (found.texts, found.used) == (300, 300)
    assert found.code == "not_above_majority"  # there is nothing to learn but the copies


def test_of_many_texts_a_balanced_part_is_used() -> None:
    rows = alternating(900, labels=3)
    used = curve.pool(rows, 300)
    assert [row.number for row in used] == sorted(row.number for row in used)
    assert np.bincount(curve.labels_of(used)).tolist() == [100, 100, 100]
    short = curve.pool(rows, 300, characters=sum(len(row.text) for row in rows) // 9)
    assert len(short) == pytest.approx(100, abs=1)
    found = curve.estimate(
        lawful(np.arange(300) % 2, lambda n: 1.5 * n**-0.4),
        np.arange(300) % 2,
        texts=900,
        basis="linear",
    )
    assert [each.texts for each in found.gains] == [1800, 3600]
    assert "measured on 300 of the texts" in str(basis_in_words(found))


def test_a_curve_is_measured_once(store: Path) -> None:
    calls: list[int] = []

    def compute() -> MoreLabels:
        calls.append(1)
        return MoreLabels(code="one_label", message="", texts=3)

    first = curve.cached({"data": "a"}, compute)
    assert curve.cached({"data": "a"}, compute) == first
    assert len(calls) == 1
    curve.cached({"data": "b"}, compute)
    assert len(calls) == 2
    for entry in store.iterdir():
        entry.write_text("{")
    assert curve.cached({"data": "a"}, compute) == first
    assert len(calls) == 3


def test_the_sentence_gives_points() -> None:
    gains = [Gain(texts=2000, low=0.005, high=0.02), Gain(texts=4000, low=-0.0034, high=0.031)]
    assert in_words(gains) == (
        "With twice as many labels (2,000) expect +0.5 to +2.0 points of accuracy, with four times "
        "as many (4,000) \N{MINUS SIGN}0.3 to +3.1."
    )
