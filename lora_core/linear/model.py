"""The linear model: TF-IDF of words and word pairs, and a linear model of scikit-learn.

It is logistic regression, multinomial or, for several labels, one against the rest; for numbers it
is ridge regression.

Of a pair of texts it reads what each text says, and what both say: with a and b the TF-IDF of the
two texts over the same terms, its features are [a, b, sqrt(a ∘ b)]. The last block is not zero
where a term is in both, on the same scale as the others; without it, no weights could tell a
duplicate from two texts that merely have frequent words.
"""

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from scipy.special import expit, logit, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from lora_core.linear.files import (
    MAX_TERM_CHARACTERS,
    LinearParameters,
    VectorizerSettings,
    count_weight_rows,
    max_terms_for_weight_rows,
)
from lora_core.specs.method import LinearSpec
from lora_core.specs.text_input import TextInput, texts_of_input

MAX_ITER = 1000
FEW_CHARACTERS = 100_000  # of the training texts: see `fill_in_min_df`
UNSEEN_LABEL_LOGIT = -30.0  # logit of a label without training texts
RIDGE_TOLERANCE = 1e-8  # of conjugate gradients
NEWTON_TOLERANCE = 1e-6  # costs one step more than the default of scikit-learn
_LONGER_IN_LOWER_CASE = "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}"  # the only such character
# Gauss-Legendre quadrature along the path from no words to all words: points per panel.
_QUADRATURE_PANELS, _QUADRATURE_POINTS = 64, 16


@dataclass(frozen=True, slots=True)
class TextSpan:
    """The characters `start` to `end` of a text."""

    start: int
    end: int
    side: int = 0  # 1: of the second text of a pair


def split_text_pairs(texts: Sequence[TextInput]) -> list[list[str]]:
    """Return the texts, or of pairs all first texts and all second texts."""
    if pairs := [text for text in texts if not isinstance(text, str)]:
        return [list(side) for side in zip(*pairs, strict=True)]
    return [[text for text in texts if isinstance(text, str)]]


def combine_pair_features(sides: Sequence[csr_matrix]) -> csr_matrix:
    """Return the features of texts, or of pairs, from the TF-IDF (texts, terms) of each side."""
    if len(sides) == 1:
        return sides[0]
    first, second = sides
    return hstack([first, second, first.multiply(second).sqrt()], format="csr")


class AttributionTarget(ABC):
    """What `LinearModel.contributions` explains, as a function of the logits (labels,)."""

    @abstractmethod
    def evaluate(self, logits: NDArray[np.float64]) -> float:
        """Return its value."""

    @abstractmethod
    def mean_gradient(
        self, start: NDArray[np.float64], change: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the mean gradient (labels,) along the path from `start` to `start + change`."""


@dataclass(frozen=True, slots=True)
class SoftmaxAttributionTarget(AttributionTarget):
    """The probability of one label, softmax(logits / temperature)."""

    label: int
    temperature: float = 1.0

    def evaluate(self, logits: NDArray[np.float64]) -> float:
        return float(softmax(logits / self.temperature)[self.label])

    def mean_gradient(
        self, start: NDArray[np.float64], change: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        return _path_averaged_gradient(start, change, self.label, self.temperature)


@dataclass(frozen=True, slots=True)
class SigmoidAttributionTarget(AttributionTarget):
    """The probability of one of several labels, sigmoid(scale z + offset) of its logit z."""

    label: int
    scale: float = 1.0
    offset: float = 0.0

    def evaluate(self, logits: NDArray[np.float64]) -> float:
        return float(expit(self.scale * logits[self.label] + self.offset))

    def mean_gradient(
        self, start: NDArray[np.float64], change: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        gradient = np.zeros_like(start)
        moved = float(change[self.label])
        if moved:
            gradient[self.label] = (self.evaluate(start + change) - self.evaluate(start)) / moved
        return gradient


@dataclass(frozen=True, slots=True)
class RegressionAttributionTarget(AttributionTarget):
    """The number of a regression, scale z + offset."""

    scale: float = 1.0
    offset: float = 0.0

    def evaluate(self, logits: NDArray[np.float64]) -> float:
        return float(self.scale * logits[0] + self.offset)

    def mean_gradient(
        self,
        start: NDArray[np.float64],
        change: NDArray[np.float64],  # noqa: ARG002 - it is the same everywhere
    ) -> NDArray[np.float64]:
        return np.full_like(start, self.scale)


class LinearModel:
    """Computes logits of texts. Thread-safe."""

    def __init__(
        self, parameters: LinearParameters, *, outputs: int | None = None, converged: bool = True
    ) -> None:
        """`outputs`: the number of logits. By default that of rows, but two for one row."""
        self.parameters = parameters
        self.outputs = outputs or max(2, len(parameters.intercept))
        self.converged = converged  # False: the fit reached `MAX_ITER`
        self._vectorizer: TfidfVectorizer | None = None
        if parameters.terms:  # scikit-learn rejects an empty vocabulary
            positions = {term: position for position, term in enumerate(parameters.terms)}
            settings = parameters.vectorizer.model_dump()
            self._vectorizer = TfidfVectorizer(vocabulary=positions, **settings)
            self._vectorizer.idf_ = parameters.idf
        self._weights = np.ascontiguousarray(parameters.coef.T)  # (terms, rows)

    @property
    def nbytes(self) -> int:
        """The approximate memory in bytes: a term is a string and a dictionary entry."""
        tensors = (self.parameters.coef, self.parameters.intercept, self.parameters.idf)
        terms = 150 * len(self.parameters.terms)
        return 2 * sum(tensor.nbytes for tensor in tensors) + terms

    @property
    def pairs(self) -> bool:
        """Whether the model reads pairs of texts."""
        return self.parameters.pairs

    def logits(self, texts: Sequence[TextInput]) -> NDArray[np.float64]:
        """Return logits (texts, labels), whose softmax is `LogisticRegression.predict_proba`.

        Of several labels it is the sigmoid; a number is one logit.
        """
        if self._vectorizer is None or not texts:
            return self._expand(np.tile(self.parameters.intercept, (len(texts), 1)))
        return self.logits_of_features(self.features(texts))

    def logits_of_features(self, features: csr_matrix) -> NDArray[np.float64]:
        """Return logits (texts, labels) of TF-IDF (texts, terms) with the terms of the model."""
        decision = np.tile(self.parameters.intercept, (features.shape[0], 1))
        if self.parameters.terms:
            decision += features @ self._weights
        return self._expand(decision)

    def features(self, texts: Sequence[TextInput]) -> csr_matrix:
        """Return the TF-IDF (texts, terms) of at least one text, (texts, 3 · terms) of pairs."""
        if self._vectorizer is None:
            return csr_matrix((len(texts), 0))
        return combine_pair_features(
            [self._vectorizer.transform(side) for side in split_text_pairs(texts)]
        )

    def _expand(self, decision: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return logits (…, outputs) of the values of the rows (…, rows)."""
        return decision if self.outputs == decision.shape[-1] else _logits(decision)

    def contributions(
        self, text: TextInput, score: AttributionTarget
    ) -> tuple[list[tuple[TextSpan, float]], float]:
        """Return the contribution of each word to a score, and the score without words.

        The contribution of a term to the logits is exact: its weight times its TF-IDF. Integrated
        gradients (Sundararajan et al. 2017, arXiv 1703.01365), from no words to all words, transfer
        it to the score, so that the contributions add up to the difference. A term of several
        words, or one that occurs more than once, is distributed evenly; what a term contributes by
        being in both texts of a pair, too.
        """
        sides = texts_of_input(text)
        words = [list(_word_spans(side, self.parameters.vectorizer)) for side in sides]
        without_words = self._expand(self.parameters.intercept)
        added = [np.zeros(len(spans)) for spans in words]
        if self._vectorizer is not None and any(words):
            row = self.features([text])
            parts = self._expand(row.data[:, None] * self._weights[row.indices])  # (found, labels)
            gradient = score.mean_gradient(without_words, parts.sum(axis=0))
            shares = np.zeros(row.shape[1])
            shares[row.indices] = parts @ gradient
            blocks = shares.reshape(-1, len(self.parameters.terms))
            for side, of_side, values in zip(sides, blocks, added, strict=False):
                both = blocks[len(sides) :].sum(axis=0) / 2
                self._distribute(side, _nonzero(of_side + both), values)
        spans = [
            TextSpan(first, last, side) for side, each in enumerate(words) for first, last in each
        ]
        start = score.evaluate(without_words)
        return list(zip(spans, np.concatenate(added).tolist(), strict=True)), start

    def _distribute(self, text: str, shares: dict[int, float], added: NDArray[np.float64]) -> None:
        """Add the share of each term to the words that it consists of."""
        assert self._vectorizer is not None  # noqa: S101
        vocabulary, ngram_range = (
            self._vectorizer.vocabulary_,
            self.parameters.vectorizer.ngram_range,
        )
        tokens = re.findall(self.parameters.vectorizer.token_pattern, text.lower())
        occurrences: dict[int, list[tuple[int, int]]] = {}
        for size in range(ngram_range[0], ngram_range[1] + 1):
            for first in range(len(tokens) - size + 1):
                term = vocabulary.get(" ".join(tokens[first : first + size]))
                if term in shares:
                    occurrences.setdefault(term, []).append((first, size))
        for term, positions in occurrences.items():
            for first, size in positions:
                added[first : first + size] += shares[term] / (len(positions) * size)


def _nonzero(shares: NDArray[np.float64]) -> dict[int, float]:
    return {int(term): float(shares[term]) for term in np.flatnonzero(shares)}


def fill_in_min_df(spec: LinearSpec, texts: Sequence[TextInput]) -> LinearSpec:
    """Return the spec with `min_df` set, from the training texts if it is None.

    Words that occur once help as long as there is little text: measured on folds of both samples
    (docs/decisions/0038).
    """
    few = sum(len(text) for side in split_text_pairs(texts) for text in side) <= FEW_CHARACTERS
    return spec if spec.min_df else spec.model_copy(update={"min_df": 1 if few else 2})


def fit_single_label(
    texts: Sequence[TextInput],
    labels: NDArray[np.int64],
    spec: LinearSpec,
    *,
    classes: int,
    balanced: bool = False,
    tfidf: "TfidfMatrix | None" = None,
) -> LinearModel:
    """Fit a single-label model to texts, or pairs of texts, and their labels, 0 to `classes` - 1.

    The vocabulary is the most frequent terms, at most `files.max_terms_for_weight_rows`, of up to
    `files.MAX_TERM_CHARACTERS` characters. If no term occurs in `min_df` texts, the model only
    predicts the label frequencies. A label without training texts has practically no probability.
    `balanced`: labels are weighted inversely to their frequency. `tfidf`: that of the texts, if it
    is known.
    """
    present = np.unique(labels)
    if len(present) > 1:
        tfidf = tfidf or fit_tfidf_matrix(texts, spec, count_weight_rows(classes))
    if tfidf is None or not tfidf.terms or len(present) == 1:
        settings = VectorizerSettings(ngram_range=spec.ngram_range)
        frequencies = _label_frequency_model(settings, labels, classes, balanced=balanced)
        return LinearModel(replace(frequencies, pairs=len(split_text_pairs(texts)) > 1))
    regression = _fit_logistic_regression(tfidf.weighted, labels, spec, balanced=balanced)
    coef, intercept = _expand_to_all_labels(
        present, classes, regression.coef_, regression.intercept_
    )
    return LinearModel(
        tfidf.build_parameters(coef, intercept),
        converged=bool((regression.n_iter_ < MAX_ITER).all()),
    )


def fit_multi_label(
    texts: Sequence[TextInput],
    targets: NDArray[Any],
    spec: LinearSpec,
    *,
    balanced: bool = False,
    tfidf: "TfidfMatrix | None" = None,
) -> LinearModel:
    """Fit one logistic regression for each label, against the rest. Targets are (texts, labels).

    The vocabulary is that of `fit_single_label`. A label that no text or every text has depends on
    no term, and is practically never or always predicted. `balanced`: for each label, the texts
    with it and those without it weigh the same.
    """
    labels = targets.shape[1]
    tfidf = tfidf or fit_tfidf_matrix(texts, spec, labels)
    coef, intercept = np.zeros((labels, tfidf.weighted.shape[1])), np.empty(labels)
    converged = True
    for i, has_label in enumerate(targets.T > 0):
        if tfidf.terms and 0 < has_label.sum() < len(texts):
            with threadpool_limits(1, user_api="blas"):  # several only wait for each other
                regression = _fit_logistic_regression(
                    tfidf.weighted,
                    has_label,
                    spec,
                    balanced=balanced,
                    solver="newton-cg",
                    tolerance=NEWTON_TOLERANCE,
                )
            coef[i], intercept[i] = regression.coef_[0], regression.intercept_[0]
            converged &= bool((regression.n_iter_ < MAX_ITER).all())
        else:
            intercept[i] = _frequency_logit(has_label, balanced=balanced)
    parameters = tfidf.build_parameters(coef, intercept)
    return LinearModel(parameters, outputs=labels, converged=converged)


def fit_regression(
    texts: Sequence[TextInput],
    numbers: NDArray[np.float64],
    spec: LinearSpec,
    *,
    tfidf: "TfidfMatrix | None" = None,
) -> LinearModel:
    """Fit ridge regression to standardized numbers (texts,).

    The vocabulary is that of `fit_single_label`. `spec.C` is 1 / alpha of scikit-learn, so that it
    weighs the texts as in logistic regression.
    """
    tfidf = tfidf or fit_tfidf_matrix(texts, spec, 1)
    if not tfidf.terms:
        coef, intercept = np.zeros((1, 0)), np.array([numbers.mean()])
    else:
        ridge = Ridge(alpha=1 / spec.C, solver="sparse_cg", tol=RIDGE_TOLERANCE)
        ridge.fit(tfidf.weighted, numbers)
        coef, intercept = ridge.coef_[None], np.array([ridge.intercept_])
    return LinearModel(tfidf.build_parameters(coef, intercept), outputs=1)


def stack_linear_models(models: Sequence[LinearModel], tfidf: "TfidfMatrix") -> LinearModel:
    """Return one model with the outputs of all models on the same TF-IDF, a row of weights each."""
    width = tfidf.weighted.shape[1]
    coefs, intercepts = [], []
    for model in models:
        fitted = model.parameters
        coef = fitted.coef if fitted.terms else np.zeros((len(fitted.intercept), width))
        if model.outputs > len(coef):  # two labels, with one row
            coefs.append(_logits(coef.T).T)
            intercepts.append(_logits(fitted.intercept))
        else:
            coefs.append(coef)
            intercepts.append(fitted.intercept)
    parameters = tfidf.build_parameters(np.concatenate(coefs), np.concatenate(intercepts))
    return LinearModel(
        parameters, outputs=len(parameters.intercept), converged=all(m.converged for m in models)
    )


@dataclass(frozen=True)
class TfidfMatrix:
    """The TF-IDF of training texts. It has no terms if none is frequent enough."""

    settings: VectorizerSettings
    terms: tuple[str, ...]
    idf: NDArray[np.float64]  # (terms,)
    weighted: Any  # sparse (texts, terms), or (texts, 3 · terms) of pairs
    pairs: bool

    @classmethod
    def with_empty_vocabulary(cls, texts: Sequence[TextInput], spec: LinearSpec) -> "TfidfMatrix":
        settings = VectorizerSettings(ngram_range=spec.ngram_range)
        pairs = len(split_text_pairs(texts)) > 1
        return cls(settings, (), np.zeros(0), np.zeros((len(texts), 0)), pairs)

    def select(self, indices: NDArray[np.int64]) -> "TfidfMatrix":
        """Return the TF-IDF of some of the texts, with the terms and weights of all."""
        return replace(self, weighted=self.weighted[indices])

    def build_parameters(
        self, coef: NDArray[np.float64], intercept: NDArray[np.float64]
    ) -> LinearParameters:
        return LinearParameters(self.settings, self.terms, coef, intercept, self.idf, self.pairs)


def fit_tfidf_matrix(texts: Sequence[TextInput], spec: LinearSpec, rows: int) -> TfidfMatrix:
    """Return the TF-IDF of texts for a model with these rows of weights.

    Terms of more than `MAX_TERM_CHARACTERS` are left out.
    """
    spec = fill_in_min_df(spec, texts)
    vectorizer = VectorizerSettings(ngram_range=spec.ngram_range)
    settings = vectorizer.model_dump(exclude={"sublinear_tf", "norm"})
    sides = split_text_pairs(texts)
    pairs = len(sides) > 1
    limit = max_terms_for_weight_rows(rows, pairs=pairs)
    counter = CountVectorizer(min_df=spec.min_df, max_features=limit, **settings)
    try:
        counts = counter.fit_transform(chain(*sides))
    except ValueError:  # no term is frequent enough
        return TfidfMatrix.with_empty_vocabulary(texts, spec)
    terms = counter.get_feature_names_out()
    short = np.array([len(term) <= MAX_TERM_CHARACTERS for term in terms])
    if not short.any():  # the texts are sequences of letters without a space
        return TfidfMatrix.with_empty_vocabulary(texts, spec)
    if not short.all():
        counts, terms = counts[:, short], terms[short]
    weighting = TfidfTransformer(sublinear_tf=vectorizer.sublinear_tf, norm=vectorizer.norm)
    by_side = weighting.fit_transform(counts)  # (sides · texts, terms)
    weighted = combine_pair_features(
        [by_side[i * len(texts) :][: len(texts)] for i in range(len(sides))]
    )
    return TfidfMatrix(vectorizer, tuple(map(str, terms)), weighting.idf_, weighted, pairs)


def _fit_logistic_regression(
    weighted: Any,
    labels: NDArray[Any],
    spec: LinearSpec,
    *,
    balanced: bool,
    solver: Literal["lbfgs", "newton-cg"] = "lbfgs",
    tolerance: float = 1e-4,  # the default of scikit-learn
) -> LogisticRegression:
    """Fit a model of scikit-learn. `newton-cg` takes half the time for two classes."""
    regression = LogisticRegression(
        C=spec.C,
        max_iter=MAX_ITER,
        class_weight="balanced" if balanced else None,
        solver=solver,
        tol=tolerance,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # reported by `converged`
        regression.fit(weighted, labels)
    return regression


def _frequency_logit(has_label: NDArray[np.bool_], *, balanced: bool) -> float:
    """Return the logit of the share of texts with a label, within ±`UNSEEN_LABEL_LOGIT`."""
    share = float(has_label.mean())
    if balanced and 0 < share < 1:
        return 0.0
    return float(np.clip(logit(share), UNSEEN_LABEL_LOGIT, -UNSEEN_LABEL_LOGIT))


def _expand_to_all_labels(
    present: NDArray[np.int64],
    classes: int,
    coef: NDArray[np.float64],
    intercept: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coefficients and intercepts of all labels, including those without training texts."""
    if len(present) == classes:
        return coef, intercept
    expanded = np.zeros((classes, coef.shape[1])), np.full(classes, UNSEEN_LABEL_LOGIT)
    for full, partial in zip(expanded, (coef.T, intercept[None]), strict=True):
        full[present] = _logits(partial).T.reshape(len(present), *full.shape[1:])
    return expanded


def _label_frequency_model(
    vectorizer: VectorizerSettings, labels: NDArray[np.int64], classes: int, *, balanced: bool
) -> LinearParameters:
    """Return a model without terms, whose softmax is the label frequencies."""
    counts = np.bincount(labels, minlength=classes)
    logs = np.log(np.maximum(counts > 0 if balanced else counts, np.exp(UNSEEN_LABEL_LOGIT)))
    intercept = np.array([logs[1] - logs[0]]) if count_weight_rows(classes) == 1 else logs
    none = np.zeros((len(intercept), 0))
    return LinearParameters(vectorizer, (), none, intercept, np.zeros(0))


def _logits(decision: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (…, labels) for (…, rows): z becomes [-z/2, z/2], with softmax sigmoid(z)."""
    if decision.shape[-1] > 1:
        return decision
    return np.concatenate([-decision / 2, decision / 2], axis=-1)


def _path_averaged_gradient(
    start: NDArray[np.float64], change: NDArray[np.float64], label: int, temperature: float
) -> NDArray[np.float64]:
    """Return the mean gradient (labels,) of a label's probability along the path from `start`."""
    nodes, weights = np.polynomial.legendre.leggauss(_QUADRATURE_POINTS)
    shares = (
        np.arange(_QUADRATURE_PANELS)[:, None] + (nodes + 1) / 2
    ) / _QUADRATURE_PANELS  # (panels, points), 0 to 1
    logits = start + shares.reshape(-1, 1) * change
    probabilities = softmax(logits / temperature, axis=1)
    one_hot = np.eye(len(start))[label]
    gradients = probabilities[:, [label]] * (one_hot - probabilities) / temperature
    mean: NDArray[np.float64] = (
        np.tile(weights / (2 * _QUADRATURE_PANELS), _QUADRATURE_PANELS) @ gradients
    )
    return mean


def _word_spans(text: str, vectorizer: VectorizerSettings) -> Iterator[tuple[int, int]]:
    """Yield the positions of words in the original text. Words are matched in lowercase."""
    matches = re.finditer(vectorizer.token_pattern, text.lower())
    if _LONGER_IN_LOWER_CASE not in text:
        yield from (match.span() for match in matches)
        return
    ends = list(accumulate(len(letter.lower()) for letter in text))
    original_position = [position for position, letter in enumerate(text) for _ in letter.lower()]
    assert ends[-1] == len(original_position)  # noqa: S101
    for match in matches:
        yield original_position[match.start()], original_position[match.end() - 1] + 1
