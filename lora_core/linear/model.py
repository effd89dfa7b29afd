"""TF-IDF of words and word pairs, and logistic regression, both computed by scikit-learn."""

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from lora_core.linear.files import Parameters, Vectorizer
from lora_core.linear.limits import MAX_TERM, most_terms, rows_of
from lora_core.specs.method import LinearSpec

MAX_ITER = 1000
FEW_CHARACTERS = 100_000  # of texts to learn from: see `settled`
NEVER = -30.0  # logit of a label that does not occur
_LOWERED_LONGER = "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}"  # alone among all characters
# Of the path from no words to all of them: panels of so many points (Gauss and Legendre).
_PANELS, _POINTS = 64, 16


@dataclass(frozen=True, slots=True)
class Word:
    """Characters `start` to `end` of a text."""

    start: int
    end: int


class LinearModel:
    """Texts in, logits out. May be used by several threads at once."""

    def __init__(self, parameters: Parameters, *, converged: bool = True) -> None:
        self.parameters = parameters
        self.converged = converged  # false: the fit was stopped at `MAX_ITER`
        self._vectorizer: TfidfVectorizer | None = None
        if parameters.terms:  # scikit-learn has no word for a vocabulary without any
            places = {term: place for place, term in enumerate(parameters.terms)}
            settings = parameters.vectorizer.model_dump()
            self._vectorizer = TfidfVectorizer(vocabulary=places, **settings)
            self._vectorizer.idf_ = parameters.idf
        self._weights = np.ascontiguousarray(parameters.coef.T)  # (terms, rows)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes, about: a term is a string and an entry of a dictionary."""
        tensors = (self.parameters.coef, self.parameters.intercept, self.parameters.idf)
        terms = 150 * len(self.parameters.terms)
        return 2 * sum(tensor.nbytes for tensor in tensors) + terms

    def logits(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """(texts, labels): their softmax is what `LogisticRegression.predict_proba` gives."""
        decision = np.tile(self.parameters.intercept, (len(texts), 1))
        if self._vectorizer is not None:
            decision += self._vectorizer.transform(texts) @ self._weights
        return _logits(decision)

    def contributions(
        self, text: str, label: int, temperature: float = 1.0
    ) -> tuple[list[tuple[Word, float]], float]:
        """What each word adds to the probability of a label, and that probability without words.

        The contribution of a term to the logits is exact: its weight times its TF-IDF. Integrated
        gradients (Sundararajan et al. 2017, arXiv 1703.01365), here from no words to all of them,
        carry it over to the probability, so that the words add up to the difference. A term of
        several words, or one that occurs more than once, is shared out evenly.
        """
        words = list(_words(text, self.parameters.vectorizer))
        intercept = self.parameters.intercept[None]
        start = float(softmax(_logits(intercept) / temperature)[0, label])
        added = np.zeros(len(words))
        if self._vectorizer is not None and words:
            row = self._vectorizer.transform([text])
            parts = _logits(row.data[:, None] * self._weights[row.indices])  # (found, labels)
            gradient = _mean_gradient(_logits(intercept)[0], parts.sum(axis=0), label, temperature)
            shares = dict(zip(row.indices.tolist(), (parts @ gradient).tolist(), strict=True))
            self._share_out(text, shares, added)
        spans = [Word(start, end) for start, end in words]
        return list(zip(spans, added.tolist(), strict=True)), start

    def _share_out(self, text: str, shares: dict[int, float], added: NDArray[np.float64]) -> None:
        """Add the share of each term to the words that it consists of."""
        assert self._vectorizer is not None  # noqa: S101
        vocabulary, least = self._vectorizer.vocabulary_, self.parameters.vectorizer.ngram_range
        tokens = re.findall(self.parameters.vectorizer.token_pattern, text.lower())
        found: dict[int, list[tuple[int, int]]] = {}
        for size in range(least[0], least[1] + 1):
            for first in range(len(tokens) - size + 1):
                term = vocabulary.get(" ".join(tokens[first : first + size]))
                if term in shares:
                    found.setdefault(term, []).append((first, size))
        for term, places in found.items():
            for first, size in places:
                added[first : first + size] += shares[term] / (len(places) * size)


def settled(spec: LinearSpec, texts: Sequence[str]) -> LinearSpec:
    """The same with what is left open decided by the texts to learn from.

    Words that occur once help as long as there are few: measured on folds of both samples
    (docs/decisions/0038).
    """
    few = sum(map(len, texts)) <= FEW_CHARACTERS
    return spec if spec.min_df else spec.model_copy(update={"min_df": 1 if few else 2})


def fit(
    texts: Sequence[str],
    labels: NDArray[np.int64],
    spec: LinearSpec,
    *,
    classes: int,
    balanced: bool = False,
) -> LinearModel:
    """Learn from texts and their labels, 0 to `classes` - 1.

    Terms are the most frequent ones, at most `limits.most_terms`, of up to `limits.MAX_TERM`
    characters. If no term occurs in `min_df` texts, the model knows the frequencies of the labels
    alone. A label that does not occur is practically never answered. `balanced`: every label counts
    as much as any other.
    """
    spec = settled(spec, texts)
    vectorizer = Vectorizer(ngram_range=spec.ngram_range)
    settings = vectorizer.model_dump(exclude={"sublinear_tf", "norm"})
    counter = CountVectorizer(min_df=spec.min_df, max_features=most_terms(classes), **settings)
    present = np.unique(labels)
    try:
        counts = counter.fit_transform(texts) if len(present) > 1 else None
    except ValueError:  # there is no such term
        counts = None
    if counts is None:
        return LinearModel(_frequencies(vectorizer, labels, classes, balanced=balanced))
    terms = counter.get_feature_names_out()
    short = np.array([len(term) <= MAX_TERM for term in terms])
    if not short.all():
        counts, terms = counts[:, short], terms[short]
    weighting = TfidfTransformer(sublinear_tf=vectorizer.sublinear_tf, norm=vectorizer.norm)
    weighted = weighting.fit_transform(counts)
    regression = LogisticRegression(
        C=spec.C, max_iter=MAX_ITER, class_weight="balanced" if balanced else None
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is in the result
        regression.fit(weighted, labels)
    coef, intercept = _of_all(present, classes, regression.coef_, regression.intercept_)
    return LinearModel(
        Parameters(vectorizer, tuple(map(str, terms)), coef, intercept, weighting.idf_),
        converged=bool((regression.n_iter_ < MAX_ITER).all()),
    )


def _of_all(
    present: NDArray[np.int64],
    classes: int,
    coef: NDArray[np.float64],
    intercept: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The weights of all labels, those that do not occur among them."""
    if len(present) == classes:
        return coef, intercept
    every = np.zeros((classes, coef.shape[1])), np.full(classes, NEVER)
    for all_of, some in zip(every, (coef.T, intercept[None]), strict=True):
        all_of[present] = _logits(some).T.reshape(len(present), *all_of.shape[1:])
    return every


def _frequencies(
    vectorizer: Vectorizer, labels: NDArray[np.int64], classes: int, *, balanced: bool
) -> Parameters:
    """A model without terms: its softmax gives the frequencies of the labels."""
    counts = np.bincount(labels, minlength=classes)
    logs = np.log(np.maximum(counts > 0 if balanced else counts, np.exp(NEVER)))
    intercept = np.array([logs[1] - logs[0]]) if rows_of(classes) == 1 else logs
    none = np.zeros((len(intercept), 0))
    return Parameters(vectorizer, (), none, intercept, np.zeros(0))


def _logits(decision: NDArray[np.float64]) -> NDArray[np.float64]:
    """(…, rows) to (…, labels): z becomes [-z/2, z/2], whose softmax is the sigmoid of z."""
    if decision.shape[-1] > 1:
        return decision
    return np.concatenate([-decision / 2, decision / 2], axis=-1)


def _mean_gradient(
    start: NDArray[np.float64], change: NDArray[np.float64], label: int, temperature: float
) -> NDArray[np.float64]:
    """(labels,): of the probability of `label` by each logit, on the way from `start` on."""
    nodes, weights = np.polynomial.legendre.leggauss(_POINTS)
    shares = (np.arange(_PANELS)[:, None] + (nodes + 1) / 2) / _PANELS  # (panels, points), 0 to 1
    logits = start + shares.reshape(-1, 1) * change
    probabilities = softmax(logits / temperature, axis=1)
    own = np.eye(len(start))[label]
    gradients = probabilities[:, [label]] * (own - probabilities) / temperature
    mean: NDArray[np.float64] = np.tile(weights / (2 * _PANELS), _PANELS) @ gradients
    return mean


def _words(text: str, vectorizer: Vectorizer) -> Iterator[tuple[int, int]]:
    """Where the words stand in the text as it was written. They are found in lower case."""
    found = re.finditer(vectorizer.token_pattern, text.lower())
    if _LOWERED_LONGER not in text:
        yield from (match.span() for match in found)
        return
    ends = list(accumulate(len(letter.lower()) for letter in text))
    origin = [place for place, letter in enumerate(text) for _ in letter.lower()]
    assert ends[-1] == len(origin)  # noqa: S101
    for match in found:
        yield origin[match.start()], origin[match.end() - 1] + 1
