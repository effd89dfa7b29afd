"""Are recent texts like those that a model was trained on?

The vectors of the texts are the TF-IDF of their words and word pairs, so no encoder is needed. For
pairs of texts they are joined as the linear model does. Terms and weights come from both sides
together: the side of a text has no influence on its vector, as the permutation test requires.
"""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

from lora_core.data.file_inspection import read_contents
from lora_core.data.rows import ColumnSelection
from lora_core.data.stratify import normalize_text
from lora_core.linear.model import combine_pair_features, split_text_pairs
from lora_core.samples import reviews
from lora_core.specs.data import Split
from lora_core.specs.drift import MAX_CHARACTERS, MAX_DIFFERENT, MAX_TEXTS, MIN_TEXTS, DriftReport
from lora_core.specs.text_input import TextInput, text_or_pair, texts_of_input
from lora_core.two_sample_test import classifier_two_sample_test

# Of Thai, Lao, Burmese, Khmer, Chinese and Japanese, which do not separate words: each letter is a
# term, and so is each pair of letters.
_UNSEPARATED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
_TERM = rf"(?u)[{_UNSEPARATED}]|[^\W{_UNSEPARATED}]{{2,}}"


def read_training_texts(file: Path, columns: ColumnSelection) -> list[TextInput]:
    """Return the texts of a data file, or of the sample of this name, that training may read.

    If the file names its splits, these are the ones of `train`, and otherwise all: drawn splits are
    random parts of the same texts. Raises what `read_contents` and `load_reviews` raise.
    """
    if str(file) in reviews.SAMPLES:
        return [text for text, _ in reviews.load_reviews(str(file))]
    rows = read_contents(file, columns).splits[Split.TRAIN]
    return [text_or_pair(row.text, row.pair) for row in rows]


def measure_text_drift(
    training: Sequence[TextInput], recent: Sequence[TextInput], seed: int = 0
) -> DriftReport:
    """Test whether recent texts are like those of training.

    Each text counts once on its side, however often it was sent: repeated requests would otherwise
    look like a change. Of many, `MAX_TEXTS` are drawn.
    """
    rng = np.random.default_rng(seed)
    before, _ = _draw(training, rng)
    after, positions = _draw(recent, rng)
    if min(len(before), len(after)) < MIN_TEXTS:
        return DriftReport(training_texts=len(before), recent_texts=len(after))
    vectors = _vectors([*before, *after])
    place = {text: i for i, text in enumerate(before)}
    twins = np.array([place.get(text, -1) for text in after])
    found = classifier_two_sample_test(
        vectors[: len(before)], vectors[len(before) :], seed, twins=twins, rows=MAX_DIFFERENT
    )
    assert found is not None  # noqa: S101 - there are enough texts
    return DriftReport(
        training_texts=len(before),
        recent_texts=len(after),
        p_value=found.p_value,
        auc=found.auc,
        most_different=tuple(positions[row] for row in found.most_different),
    )


def _vectors(texts: Sequence[TextInput]) -> csr_matrix:
    """Return TF-IDF (texts, terms), or (texts, 3 · terms) of pairs.

    A term of a single text compares it with no other one, so it is left out.
    """
    sides = split_text_pairs(texts)
    vectorizer = TfidfVectorizer(
        token_pattern=_TERM, ngram_range=(1, 2), min_df=2, sublinear_tf=True
    )
    try:
        weighted = vectorizer.fit_transform(chain(*sides))
    except ValueError:  # no term is in two texts
        return csr_matrix((len(texts), 1))
    return combine_pair_features(
        [weighted[i * len(texts) :][: len(texts)] for i in range(len(sides))]
    )


def _draw(
    texts: Sequence[TextInput], rng: np.random.Generator
) -> tuple[list[TextInput], list[int]]:
    """Return up to `MAX_TEXTS` different texts as they are compared, and their positions."""
    first: dict[TextInput, int] = {}
    for position, text in enumerate(texts):
        first.setdefault(_shortened(text), position)
    different = list(first)
    drawn = [different[i] for i in sorted(rng.permutation(len(different))[:MAX_TEXTS])]
    return drawn, [first[text] for text in drawn]


def _shortened(text: TextInput) -> TextInput:
    sides = [normalize_text(each)[:MAX_CHARACTERS] for each in texts_of_input(text)]
    return text_or_pair(sides[0], sides[1] if len(sides) > 1 else None)
