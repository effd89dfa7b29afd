"""The linear model: TF-IDF of words and word pairs, and logistic regression with scikit-learn.

Of a pair of texts it reads what each text says, and what both say: with a and b the TF-IDF of the
two texts over the same terms, its features are [a, b, sqrt(a ∘ b)]. The last block is not zero
where a term is in both, on the same scale as the others; without it, no weights could tell a
duplicate from two texts that merely have frequent words.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from lora_core.linear.files import (
    MAX_TERM_CHARACTERS,
    LinearParameters,
    VectorizerSettings,
    max_terms,
    weight_rows,
)
from lora_core.specs.method import LinearSpec
from lora_core.specs.text_input import TextInput, text_sides

MAX_ITER = 1000
FEW_CHARACTERS = 100_000  # of the training texts: see `resolve_min_df`
UNSEEN_LABEL_LOGIT = -30.0  # logit of a label without training texts
_LONGER_IN_LOWER_CASE = "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}"  # the only such character
# Gauss-Legendre quadrature along the path from no words to all words: points per panel.
_QUADRATURE_PANELS, _QUADRATURE_POINTS = 64, 16


@dataclass(frozen=True, slots=True)
class TextSpan:
    """The characters `start` to `end` of a text."""

    start: int
    end: int
    side: int = 0  # 1: of the second text of a pair


def split_sides(texts: Sequence[TextInput]) -> list[list[str]]:
    """Return the texts, or of pairs all first texts and all second texts."""
    if pairs := [text for text in texts if not isinstance(text, str)]:
        return [list(side) for side in zip(*pairs, strict=True)]
    return [[text for text in texts if isinstance(text, str)]]


def combine_sides(sides: Sequence[csr_matrix]) -> csr_matrix:
    """Return the features of texts, or of pairs, from the TF-IDF (texts, terms) of each side."""
    if len(sides) == 1:
        return sides[0]
    first, second = sides
    return hstack([first, second, first.multiply(second).sqrt()], format="csr")


class LinearModel:
    """Computes logits of texts. Thread-safe."""

    def __init__(self, parameters: LinearParameters, *, converged: bool = True) -> None:
        self.parameters = parameters
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
        """Return logits (texts, labels), whose softmax is `LogisticRegression.predict_proba`."""
        decision = np.tile(self.parameters.intercept, (len(texts), 1))
        if self._vectorizer is not None and texts:
            decision += self._features(texts) @ self._weights
        return _logits(decision)

    def _features(self, texts: Sequence[TextInput]) -> csr_matrix:
        assert self._vectorizer is not None  # noqa: S101
        return combine_sides([self._vectorizer.transform(side) for side in split_sides(texts)])

    def contributions(
        self, text: TextInput, label: int, temperature: float = 1.0
    ) -> tuple[list[tuple[TextSpan, float]], float]:
        """Return the contribution of each word to the probability of a label, and the probability
        without words.

        The contribution of a term to the logits is exact: its weight times its TF-IDF. Integrated
        gradients (Sundararajan et al. 2017, arXiv 1703.01365), from no words to all words, transfer
        it to the probability, so that the contributions add up to the difference. A term of several
        words, or one that occurs more than once, is distributed evenly; what a term contributes by
        being in both texts of a pair, too.
        """
        sides = text_sides(text)
        words = [list(_word_spans(side, self.parameters.vectorizer)) for side in sides]
        intercept = self.parameters.intercept[None]
        start = float(softmax(_logits(intercept) / temperature)[0, label])
        added = [np.zeros(len(spans)) for spans in words]
        if self._vectorizer is not None and any(words):
            row = self._features([text])
            parts = _logits(row.data[:, None] * self._weights[row.indices])  # (found, labels)
            gradient = _path_averaged_gradient(
                _logits(intercept)[0], parts.sum(axis=0), label, temperature
            )
            shares = np.zeros(row.shape[1])
            shares[row.indices] = parts @ gradient
            blocks = shares.reshape(-1, len(self.parameters.terms))
            for side, of_side, values in zip(sides, blocks, added, strict=False):
                both = blocks[len(sides) :].sum(axis=0) / 2
                self._distribute(side, _nonzero(of_side + both), values)
        spans = [
            TextSpan(first, last, side) for side, each in enumerate(words) for first, last in each
        ]
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


def resolve_min_df(spec: LinearSpec, texts: Sequence[TextInput]) -> LinearSpec:
    """Return the spec with `min_df` set, from the training texts if it is None.

    Words that occur once help as long as there is little text: measured on folds of both samples
    (docs/decisions/0038).
    """
    few = sum(len(text) for side in split_sides(texts) for text in side) <= FEW_CHARACTERS
    return spec if spec.min_df else spec.model_copy(update={"min_df": 1 if few else 2})


def fit(
    texts: Sequence[TextInput],
    labels: NDArray[np.int64],
    spec: LinearSpec,
    *,
    classes: int,
    balanced: bool = False,
) -> LinearModel:
    """Fit a model to texts, or pairs of texts, and their labels, 0 to `classes` - 1.

    The vocabulary is the most frequent terms, at most `files.max_terms`, of up to
    `files.MAX_TERM_CHARACTERS` characters. If no term occurs in `min_df` texts, the model only
    predicts the label frequencies. A label without training texts has practically no probability.
    `balanced`: labels are weighted inversely to their frequency.
    """
    spec = resolve_min_df(spec, texts)
    vectorizer = VectorizerSettings(ngram_range=spec.ngram_range)
    settings = vectorizer.model_dump(exclude={"sublinear_tf", "norm"})
    sides = split_sides(texts)
    pairs = len(sides) > 1
    limit = max_terms(classes, pairs=pairs)
    counter = CountVectorizer(min_df=spec.min_df, max_features=limit, **settings)
    present = np.unique(labels)
    try:
        counts = counter.fit_transform(chain(*sides)) if len(present) > 1 else None
    except ValueError:  # no term is frequent enough
        counts = None
    if counts is None:
        frequencies = _label_frequency_model(vectorizer, labels, classes, balanced=balanced)
        return LinearModel(replace(frequencies, pairs=pairs))
    terms = counter.get_feature_names_out()
    short = np.array([len(term) <= MAX_TERM_CHARACTERS for term in terms])
    if not short.all():
        counts, terms = counts[:, short], terms[short]
    weighting = TfidfTransformer(sublinear_tf=vectorizer.sublinear_tf, norm=vectorizer.norm)
    by_side = weighting.fit_transform(counts)  # (sides · texts, terms)
    weighted = combine_sides([by_side[i * len(texts) :][: len(texts)] for i in range(len(sides))])
    regression = LogisticRegression(
        C=spec.C, max_iter=MAX_ITER, class_weight="balanced" if balanced else None
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # reported by `converged`
        regression.fit(weighted, labels)
    coef, intercept = _expand_to_all_labels(
        present, classes, regression.coef_, regression.intercept_
    )
    return LinearModel(
        LinearParameters(
            vectorizer, tuple(map(str, terms)), coef, intercept, weighting.idf_, pairs
        ),
        converged=bool((regression.n_iter_ < MAX_ITER).all()),
    )


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
    intercept = np.array([logs[1] - logs[0]]) if weight_rows(classes) == 1 else logs
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
