"""The texts of each set with their hidden labels, and their vectors by the frozen sample base."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score

from benchmarks.small import sets as small_sets
from benchmarks.small.sets import Texts
from benchmarks.small.vectors import Vectors
from benchmarks.tasks import sets as task_sets
from benchmarks.tasks.plan import QUICK as QUICK_TASK
from benchmarks.tasks.plan import Size as TaskSize
from lora_core.active_learning.label_suggestions import Label, SuggestionModel, require_label_set
from lora_core.data.rows import TextRow
from lora_core.specs.data import Split
from lora_core.specs.encoded_labels import decode_label_set, encode_label_set
from lora_core.specs.task import TaskTypeOfTarget

POOL_TEXTS, TEST_TEXTS, QUICK_TEXTS = 6000, 2000, 120
_SUFFIX = "-multilabel"
# Labels of tweets that a rule finds in their words.
_TWEET_RULES = ("negation", "humor")


@dataclass(frozen=True)
class LoopSet:
    """Texts that a project labels, and others that its models are evaluated on."""

    task: TaskTypeOfTarget
    texts: Texts

    @cached_property
    def labels(self) -> list[Label]:
        """Of the pool."""
        return [self._decoded(row.label) for row in self.texts.pool]

    @cached_property
    def test_labels(self) -> list[Label]:
        return [self._decoded(row.label) for row in self.texts.test]

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """(texts, width) of the pool."""
        return self._vectors.of(self.texts.pool)

    @cached_property
    def test_vectors(self) -> NDArray[np.float32]:
        return self._vectors.of(self.texts.test)

    @cached_property
    def _vectors(self) -> Vectors:
        return Vectors(self.texts, "bfloat16")  # in a quarter of the time, as in training

    @cached_property
    def names(self) -> list[str]:
        """All labels of a multi-label set."""
        return sorted(
            frozenset[str]().union(*map(require_label_set, (*self.labels, *self.test_labels)))
        )

    def multi_hot(self, labels: Sequence[Label]) -> NDArray[np.uint8]:
        """(texts, names) of 0 and 1."""
        return np.array(
            [[name in require_label_set(each) for name in self.names] for each in labels],
            dtype=np.uint8,
        )

    def _decoded(self, label: str) -> Label:
        return frozenset(decode_label_set(label)) if self.task == "multi_label" else label

    def fit(self, rows: Sequence[int] | NDArray[np.int64]) -> SuggestionModel | None:
        """The model of these texts of the pool."""
        return SuggestionModel.fit(
            self.vectors[rows], [self.labels[row] for row in rows], self.task
        )


def score(truth: Sequence[Label], predicted: Sequence[Label]) -> float:
    """Accuracy, or macro F1 of sets of labels, by scikit-learn."""
    if isinstance(truth[0], str):
        return float(accuracy_score(truth, predicted))
    sets = [[require_label_set(each) for each in side] for side in (truth, predicted)]
    names = sorted(frozenset[str]().union(*sets[0], *sets[1]))
    columns = [np.array([[name in each for name in names] for each in side]) for side in sets]
    return float(f1_score(*columns, average="macro", zero_division=0.0))


@cache
def load(name: str, *, quick: bool = False) -> LoopSet:
    """A set by name, the same on every machine. `quick`: a few of its texts."""
    if name == "multilabel":
        return LoopSet("multi_label", _film_sentences(quick=quick))
    if name.endswith(_SUFFIX):
        texts = small_sets.load(name.removesuffix(_SUFFIX), quick=quick)
        pool, test = (tuple(map(_with_rules, part)) for part in (texts.pool, texts.test))
        return LoopSet("multi_label", Texts(pool, test))
    texts = small_sets.load(name)
    pool_texts, test_texts = (QUICK_TEXTS, QUICK_TEXTS) if quick else (POOL_TEXTS, TEST_TEXTS)
    order = np.random.default_rng(0).permutation(len(texts.pool))[:pool_texts]
    return LoopSet(
        "single_label",
        Texts(tuple(texts.pool[i] for i in order), texts.test[:test_texts]),
    )


def _film_sentences(*, quick: bool) -> Texts:
    pool, test = (QUICK_TEXTS, QUICK_TEXTS) if quick else (POOL_TEXTS, TEST_TEXTS)
    size = TaskSize(pool, 0, test, QUICK_TASK.speed_texts, 1, 1)
    parts: Mapping[Split, Iterable[task_sets.Row]] = task_sets.load("multilabel", size)
    train, held_out = (
        tuple(
            TextRow(i + 1, row.text, encode_label_set(row.label))
            for i, row in enumerate(parts[split])
        )
        for split in (Split.TRAIN, Split.TEST)
    )
    return Texts(train, held_out)


def _with_rules(row: TextRow) -> TextRow:
    """A text with its label and those of the rules that it fits, or its length."""
    names = [name for name in _TWEET_RULES if task_sets.RULES[name].search(row.text.lower())]
    extra = [
        *(["question"] if "?" in row.text else []),
        *(["exclamation"] if "!" in row.text else []),
        *(["link or mention"] if "@" in row.text or "http" in row.text else []),
    ]
    return TextRow(row.number, row.text, encode_label_set([row.label, *names, *extra]))
