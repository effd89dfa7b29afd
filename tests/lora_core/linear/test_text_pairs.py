"""Tests of the linear model on text pairs, against scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import hstack
from scipy.special import softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from lora_core.data.load import load_splits
from lora_core.linear.files import read_parameters, save_parameters
from lora_core.linear.model import LinearModel, SoftmaxAttributionTarget, fit_single_label
from lora_core.specs.data import DataSpec
from lora_core.specs.method import LinearSpec
from tests.tiny_base import make_pairs

SPEC = LinearSpec(C=10.0, min_df=1)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[tuple[str, str]], np.ndarray]:
    file = make_pairs(tmp_path_factory.mktemp("data") / "pairs.csv")
    splits = load_splits(DataSpec(source=str(file), text_column="first", text_pair_column="second"))
    texts = [(each.text, each.pair or "") for each in splits.train]
    return texts, np.array([each.label for each in splits.train])


def test_features_are_both_texts_and_what_they_share(
    pairs: tuple[list[tuple[str, str]], np.ndarray],
) -> None:
    texts, labels = pairs
    model = fit_single_label(texts, labels, SPEC, classes=2)
    vectorizer = TfidfVectorizer(ngram_range=SPEC.ngram_range, sublinear_tf=True)
    vectorizer.fit([text for pair in texts for text in pair])
    first, second = (vectorizer.transform([pair[i] for pair in texts]) for i in (0, 1))
    features = hstack([first, second, first.multiply(second).power(0.5)]).tocsr()
    reference = LogisticRegression(C=SPEC.C, max_iter=1000).fit(features, labels)
    ours = softmax(model.logits(texts), axis=1)
    np.testing.assert_allclose(ours, reference.predict_proba(features), atol=1e-4)
    assert (ours.argmax(axis=1) == labels).mean() > 0.95  # impossible without the shared terms
    assert model.pairs


def test_contributions_of_both_texts_add_up(
    pairs: tuple[list[tuple[str, str]], np.ndarray],
) -> None:
    texts, labels = pairs
    model = fit_single_label(texts, labels, SPEC, classes=2)
    for text in texts[:5]:
        contributions, empty = model.contributions(text, SoftmaxAttributionTarget(1))
        full = softmax(model.logits([text]), axis=1)[0, 1]
        assert empty + sum(score for _, score in contributions) == pytest.approx(full, abs=1e-9)
        words = [text[span.side][span.start : span.end] for span, _ in contributions]
        assert words[-1] == text[1].split()[-1]
        assert {span.side for span, _ in contributions} == {0, 1}


def test_files_keep_the_kind_of_input(
    pairs: tuple[list[tuple[str, str]], np.ndarray], tmp_path: Path
) -> None:
    texts, labels = pairs
    model = fit_single_label(texts, labels, SPEC, classes=2)
    save_parameters(tmp_path, model.parameters)
    loaded = LinearModel(read_parameters(tmp_path, rows=1))
    assert loaded.pairs
    np.testing.assert_array_equal(loaded.logits(texts), model.logits(texts))
    single = fit_single_label([first for first, _ in texts], labels, SPEC, classes=2)
    save_parameters(tmp_path, single.parameters)
    assert not read_parameters(tmp_path, rows=1).pairs
    assert "pairs" not in (tmp_path / "linear.json").read_text()
