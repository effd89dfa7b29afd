"""Recent texts against those of training."""

import json
from pathlib import Path
from random import Random

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from lora_core.data import drift
from lora_core.data.drift import measure_text_drift, read_training_texts
from lora_core.data.rows import ColumnSelection
from lora_core.specs.drift import MAX_CHARACTERS
from lora_core.two_sample_test import classifier_two_sample_test
from tests.in_process_sandbox import run_in_process

FILMS = ("plot", "actor", "scene", "camera", "script", "ending", "music", "comedy", "drama")
BILLS = ("invoice", "refund", "payment", "tariff", "account", "charge", "bank", "deadline")
FILMS_ZH, BILLS_ZH = "电影演员场景导演剧本结局音乐喜剧", "发票退款付款合同账户费用银行收据"


def texts(words: str | tuple[str, ...], count: int, seed: int, join: str = " ") -> list[str]:
    random = Random(seed)
    return [join.join(random.choices(words, k=8)) for _ in range(count)]


def test_vectors_are_those_of_scikit_learn() -> None:
    before, after = texts(FILMS, 90, 0), texts(FILMS + BILLS, 60, 1)
    vectors = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit_transform(
        [*before, *after]
    )
    expected = classifier_two_sample_test(vectors[:90].toarray(), vectors[90:].toarray())
    found = measure_text_drift(before, after)
    assert expected is not None
    assert found.p_value is not None
    assert found.auc == pytest.approx(expected.auc, abs=0.05)  # other folds: of drawn texts
    assert (found.training_texts, found.recent_texts) == (90, 60)


@pytest.mark.parametrize(
    ("usual", "new", "join"),
    [(FILMS, BILLS, " "), (FILMS_ZH, BILLS_ZH, "")],
    ids=["english", "chinese"],
)
def test_half_of_another_topic_is_drift(
    usual: tuple[str, ...] | str, new: tuple[str, ...] | str, join: str
) -> None:
    recent = texts(usual, 30, 1, join) + texts(new, 30, 2, join)
    found = measure_text_drift(texts(usual, 200, 0, join), recent)
    assert found.p_value == 0.002
    assert set(found.most_different) <= set(range(30, 60))
    same = measure_text_drift(texts(usual, 200, 0, join), texts(usual, 60, 3, join))
    assert same.p_value is not None
    assert same.p_value > 0.01


def test_a_text_counts_once() -> None:
    recent = texts(FILMS, 60, 1)
    repeated = [recent[0]] * 500 + recent[1:] + [f"  {recent[5]}\n"]
    found = measure_text_drift(texts(FILMS, 200, 0) * 2, repeated)
    assert (found.training_texts, found.recent_texts) == (200, 60)
    assert found.p_value == measure_text_drift(texts(FILMS, 200, 0), recent).p_value
    assert all(position == 0 or 500 <= position < 559 for position in found.most_different)


@pytest.mark.parametrize("seed", range(3))
def test_texts_that_are_on_both_sides_hide_no_drift(seed: int) -> None:
    training = texts(FILMS, 300, 10 + seed)
    usual = training[:60] + texts(FILMS, 60, 20 + seed)
    found = measure_text_drift(training, usual + texts(BILLS, 30, 30 + seed))
    assert found.p_value is not None
    assert found.auc is not None
    assert found.p_value <= 0.01
    assert found.auc > 0.55
    assert set(found.most_different) <= set(range(60, 150))  # none is a training text
    same = measure_text_drift(training, usual + texts(FILMS, 30, 40 + seed))
    assert same.p_value is not None
    assert same.p_value > 0.01


def test_the_same_texts_do_not_differ() -> None:
    training = texts(FILMS, 60, 1)
    found = measure_text_drift(training, training)
    assert (found.p_value, found.most_different) == (1.0, ())


def test_too_few_texts_and_texts_without_words() -> None:
    few = measure_text_drift(texts(FILMS, 200, 0), texts(FILMS, 49, 1))
    assert (few.p_value, few.auc, few.recent_texts) == (None, None, 49)
    symbols = [["☆" * (i + 1 + j) for i in range(60)] for j in (0, 60)]
    without = measure_text_drift(symbols[0], symbols[1])
    assert (without.p_value, without.auc) == (1.0, 0.5)


def test_only_the_start_of_a_long_text_is_compared() -> None:
    start = "plot actor " * 1000
    same = [f"{start} {text}" for text in texts(BILLS, 60, 0)]
    assert len(start) > MAX_CHARACTERS
    assert measure_text_drift(texts(FILMS, 60, 1), same).recent_texts == 1


def test_many_texts_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "MAX_TEXTS", 70)
    found = measure_text_drift(texts(FILMS, 300, 0), texts(FILMS, 300, 1))
    assert (found.training_texts, found.recent_texts) == (70, 70)
    assert max(found.most_different) >= 70  # positions of all that were sent


def test_the_command(tmp_path: Path) -> None:
    """`python -m lora_core drift` reads the recent texts from standard input."""
    file = tmp_path / "films.csv"
    rows = [(text, "train" if i < 80 else "test") for i, text in enumerate(texts(FILMS, 120, 0))]
    lines = [f"{text},{i % 2},{split}" for i, (text, split) in enumerate(rows)]
    file.write_text("\n".join(["text,label,split", *lines]) + "\n")
    assert len(read_training_texts(file, ColumnSelection())) == 80
    sent = tmp_path / "recent.jsonl"
    recent = texts(BILLS, 60, 1)
    sent.write_text("".join(json.dumps({"text": text}) + "\n" for text in recent))
    with sent.open("rb") as stdin:
        result = run_in_process(["drift", str(file)], limits=None, readable=[file], stdin=stdin)  # type: ignore[arg-type]
    assert json.loads(result.stdout) == measure_text_drift(
        [text for text, split in rows if split == "train"], recent
    ).model_dump(mode="json")
