"""The linear model matches scikit-learn, to floating-point precision."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from lora_core.linear import model
from lora_core.linear.model import LinearModel, SoftmaxAttributionTarget, fit_single_label
from lora_core.specs.method import LinearSpec
from tests.slow import slow_but

WORDS = (
    "a an the film plot actor scene dull great awful fine story was not very truly ÉTÉ größe 电影"
)
UNSEEN = (
    "a great film",
    "nothing of it is known",
    "",
    " \t\n",
    "don't. STOP-me: naïve café",
    "İstanbul İYİ film",
    "ﬁne e\N{COMBINING ACUTE ACCENT}te \N{ZERO WIDTH JOINER} 电影 好 😀 größe GRÖSSE",
    "great " * 20_000,
    "x" * 100_000,
    "not not not not very very",
)


def texts(count: int, seed: int = 0) -> list[str]:
    draw = np.random.default_rng(seed)
    words = WORDS.split()
    return [" ".join(draw.choice(words, size=draw.integers(3, 20))) for _ in range(count)]


def labels(classes: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng(1).permutation(np.arange(count) % classes)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("ngrams", [(1, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("classes", slow_but([2, 3, 7], 2, 3))
def test_logits_match_scikit_learn(classes: int, ngrams: tuple[int, int], balanced: bool) -> None:
    train_texts = texts(200)
    truth = np.minimum(labels(classes + 2, 200), classes - 1)  # the last one more often
    spec = LinearSpec(C=2.5, ngram_range=ngrams, min_df=2)
    found = fit_single_label(train_texts, truth, spec, classes=classes, balanced=balanced)
    vectorizer = TfidfVectorizer(ngram_range=ngrams, sublinear_tf=True, min_df=2)
    regression = LogisticRegression(
        C=2.5, max_iter=1000, class_weight="balanced" if balanced else None
    ).fit(vectorizer.fit_transform(train_texts), truth)
    test_texts = [*UNSEEN, *texts(50, seed=2)]
    terms = vectorizer.transform(test_texts)
    logits = found.logits(test_texts)
    decision = regression.decision_function(terms)
    mine = logits[:, 1] - logits[:, 0] if classes == 2 else logits
    assert np.abs(mine - decision).max() < 1e-6
    assert softmax(logits, axis=1) == pytest.approx(regression.predict_proba(terms), abs=1e-9)
    assert logits.shape == (len(test_texts), classes)
    assert found.converged


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("classes", [2, 4])
def test_contributions_sum_to_the_probability_difference(classes: int, temperature: float) -> None:
    found = fit_single_label(texts(200), labels(classes, 200), LinearSpec(C=50.0), classes=classes)
    for text in (*UNSEEN[:7], "great " * 300, *texts(5, seed=3)):
        for label in range(classes):
            words, start = found.contributions(text, SoftmaxAttributionTarget(label, temperature))
            answer = softmax(found.logits([text])[0] / temperature)[label]
            assert start + sum(score for _, score in words) == pytest.approx(answer, abs=1e-6)
            assert all(a.end <= b.start for (a, _), (b, _) in pairwise(words))
            assert all(word.isalnum() for w, _ in words if (word := text[w.start : w.end]))


def test_contribution_is_proportional_to_the_logit() -> None:
    """With two labels the shares of the probability are those of the logit, term by term."""
    train_texts = ["good film", "good plot", "bad film", "bad plot"] * 5
    found = fit_single_label(
        train_texts, np.array([1, 1, 0, 0] * 5), LinearSpec(ngram_range=(1, 1)), classes=2
    )
    text = "a good, good but BAD film"
    words, start = found.contributions(text, SoftmaxAttributionTarget(1))
    named = [(text[word.start : word.end], score) for word, score in words]
    assert [name for name, _ in named] == ["good", "good", "but", "BAD", "film"]
    terms = dict(zip(found.parameters.terms, found.parameters.coef[0], strict=True))
    row = TfidfVectorizer(vocabulary=list(found.parameters.terms), sublinear_tf=True)
    row.idf_ = found.parameters.idf
    weights = dict(
        zip(row.get_feature_names_out(), row.transform([text]).toarray()[0], strict=True)
    )
    times = {"good": 2}  # its share is that of both places
    logits = [
        terms.get(name, 0.0) * weights.get(name, 0.0) / times.get(name, 1)
        for name in ("good", "good", "but", "bad", "film")
    ]
    change = softmax(found.logits([text])[0])[1] - start
    expected = [change * part / sum(logits) for part in logits]
    assert [score for _, score in named] == pytest.approx(expected, abs=1e-9)


def test_model_without_terms_predicts_label_frequencies() -> None:
    texts_seen, truth = ["one", "two", "three", "four"], np.array([0, 1, 1, 1])
    found = fit_single_label(texts_seen, truth, LinearSpec(min_df=2), classes=2)
    assert found.parameters.terms == ()
    assert softmax(found.logits(["one", ""]), axis=1) == pytest.approx(np.array([[0.25, 0.75]] * 2))
    even = fit_single_label(texts_seen, truth, LinearSpec(min_df=2), classes=2, balanced=True)
    assert softmax(even.logits(["one"])) == pytest.approx(0.5)
    words, start = found.contributions("one two", SoftmaxAttributionTarget(1))
    assert [score for _, score in words] == [0.0, 0.0]
    assert start == pytest.approx(0.75)


def test_texts_without_a_space_have_no_terms() -> None:
    """Such as DNA: each text is one term, longer than a model can have."""
    sequences = ["ACGT" * 50, "TGCA" * 50] * 10
    found = fit_single_label(sequences, labels(2, 20), LinearSpec(min_df=1), classes=2)
    assert found.parameters.terms == ()
    assert softmax(found.logits(sequences[:1])) == pytest.approx(0.5)


def test_label_without_texts_is_never_predicted() -> None:
    train_texts = ["good film", "bad film"] * 10
    for truth in ([1, 3] * 10, [3, 3] * 10):
        found = fit_single_label(train_texts, np.array(truth), LinearSpec(), classes=5)
        answers = softmax(found.logits(["good film", "bad film", ""]), axis=1)
        assert answers[:, sorted(set(truth))].sum(axis=1) == pytest.approx(1.0, abs=1e-9)
    assert found.logits(["x"]).argmax() == 3


def test_min_df_depends_on_the_amount_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    train_texts = [*["good film"] * 5, *["bad film"] * 5, "hapax"]
    truth = np.array([1] * 5 + [0] * 6)
    assert "hapax" in fit_single_label(train_texts, truth, LinearSpec(), classes=2).parameters.terms
    monkeypatch.setattr(model, "FEW_CHARACTERS", 50)
    assert (
        "hapax"
        not in fit_single_label(train_texts, truth, LinearSpec(), classes=2).parameters.terms
    )
    assert model.fill_in_min_df(LinearSpec(min_df=3), train_texts) == LinearSpec(min_df=3)


def test_vocabulary_size_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "max_terms_for_weight_rows", lambda rows, **_: 30 // rows)
    train_texts = [*texts(100), "y" * 101, "y" * 101]
    found = fit_single_label(train_texts, labels(3, 102), LinearSpec(min_df=1), classes=3)
    top = TfidfVectorizer(ngram_range=(1, 2), max_features=10).fit(train_texts)
    assert list(found.parameters.terms) == list(top.get_feature_names_out())
    monkeypatch.undo()
    found = fit_single_label(train_texts, labels(3, 102), LinearSpec(min_df=2), classes=3)
    assert max(map(len, found.parameters.terms)) <= 100


def test_fit_reports_missing_convergence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MAX_ITER", 2)
    assert not fit_single_label(texts(100), labels(3, 100), LinearSpec(C=1e6), classes=3).converged


def test_nbytes_covers_the_terms() -> None:
    found = fit_single_label(texts(200), labels(2, 200), LinearSpec(min_df=1), classes=2)
    assert isinstance(found, LinearModel)
    assert found.nbytes > 150 * len(found.parameters.terms)
