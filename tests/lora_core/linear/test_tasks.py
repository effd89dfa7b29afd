"""Linear models of several labels and of numbers match scikit-learn."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier

from lora_core.linear import files
from lora_core.linear.model import (
    LinearModel,
    RegressionAttributionTarget,
    SigmoidAttributionTarget,
    fit_multi_label,
    fit_regression,
)
from lora_core.specs.method import LinearSpec
from tests.lora_core.linear.test_model import UNSEEN, texts

SPEC = LinearSpec(C=2.5, min_df=2)
TRAIN = texts(200)
NUMBERS = np.array([text.count("great") - text.count("dull") + len(text) / 50 for text in TRAIN])
TARGETS = np.array([[word in text for word in ("film", "great", "not")] for text in TRAIN])


def tfidf() -> TfidfVectorizer:
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)


@pytest.mark.parametrize("balanced", [False, True])
def test_several_labels_match_one_vs_rest(balanced: bool) -> None:
    found = fit_multi_label(TRAIN, TARGETS, SPEC, balanced=balanced)
    vectorizer = tfidf()
    regression = OneVsRestClassifier(
        LogisticRegression(
            C=2.5, max_iter=1000, tol=1e-8, class_weight="balanced" if balanced else None
        )
    ).fit(vectorizer.fit_transform(TRAIN), TARGETS.astype(int))
    logits = found.logits(UNSEEN)
    expected = regression.predict_proba(vectorizer.transform(UNSEEN))
    np.testing.assert_allclose(expit(logits), expected, atol=1e-4)
    assert found.converged


def test_numbers_match_ridge() -> None:
    found = fit_regression(TRAIN, NUMBERS, SPEC)
    vectorizer = tfidf()
    ridge = Ridge(alpha=1 / 2.5).fit(vectorizer.fit_transform(TRAIN).toarray(), NUMBERS)
    expected = ridge.predict(vectorizer.transform(UNSEEN).toarray())
    np.testing.assert_allclose(found.logits(UNSEEN)[:, 0], expected, atol=1e-6)


def test_two_labels_have_two_rows() -> None:
    found = fit_multi_label(TRAIN, TARGETS[:, :2], SPEC)
    assert found.logits(["a film"]).shape == (1, 2)
    assert len(found.parameters.intercept) == 2


def test_label_of_no_text_or_of_all_depends_on_no_word() -> None:
    constant = np.column_stack([TARGETS[:, 0], np.zeros(200), np.ones(200)])
    scores = expit(fit_multi_label(TRAIN, constant, SPEC).logits(UNSEEN))
    assert (scores[:, 1] < 1e-9).all()
    assert (scores[:, 2] > 1 - 1e-9).all()


@pytest.mark.parametrize("balanced", [False, True])
def test_without_terms_frequencies_are_predicted(balanced: bool) -> None:
    rare = LinearSpec(min_df=1000)
    scores = expit(fit_multi_label(TRAIN, TARGETS, rare, balanced=balanced).logits(["film"]))
    np.testing.assert_allclose(scores[0], 0.5 if balanced else TARGETS.mean(axis=0))
    assert fit_regression(TRAIN, NUMBERS, rare).logits(["film"])[0, 0] == pytest.approx(
        NUMBERS.mean()
    )


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_files_round_trip(rows: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("linear")
    made = fit_multi_label(TRAIN, TARGETS[:, :rows], SPEC)
    files.save_parameters(directory, made.parameters)
    again = LinearModel(files.read_parameters(directory, rows=rows), outputs=rows)
    assert (again.logits(UNSEEN) == made.logits(UNSEEN)).all()


def added(words: list[tuple[object, float]]) -> float:
    return sum(value for _, value in words)


def test_contributions_add_up_to_the_score() -> None:
    several, number = fit_multi_label(TRAIN, TARGETS, SPEC), fit_regression(TRAIN, NUMBERS, SPEC)
    for text in (*UNSEEN[:7], *texts(5, seed=3)):
        for label in range(3):
            words, start = several.contributions(text, SigmoidAttributionTarget(label, 1.7, -0.4))
            score = expit(1.7 * several.logits([text])[0, label] - 0.4)
            assert start + added(list(words)) == pytest.approx(score, abs=1e-9)
        words, start = number.contributions(text, RegressionAttributionTarget(3.0, 10.0))
        answer = 3.0 * number.logits([text])[0, 0] + 10.0
        assert start + added(list(words)) == pytest.approx(answer, abs=1e-9)


def weights_by_word(model: LinearModel) -> dict[str, NDArray[np.float64]]:
    return dict(zip(model.parameters.terms, model.parameters.coef.T, strict=True))


def test_contribution_to_a_number_is_weight_times_tfidf() -> None:
    model = fit_regression(TRAIN, NUMBERS, LinearSpec(ngram_range=(1, 1), min_df=1))
    (_, film), (_, unknown) = model.contributions("film xyzzy", RegressionAttributionTarget())[0]
    assert film == pytest.approx(float(weights_by_word(model)["film"][0]))  # the norm is that of it
    assert unknown == 0.0
