"""Find rows whose labels contradict what a model predicts that was not trained on them.

The model is the linear model (TF-IDF + a linear model), cross-validated: duplicates of a text are
in one fold. Names are assessed by confident learning (`lora_core.suspect_labels`), numbers by their
residuals. A label of fewer than `MIN_TEXTS_PER_LABEL` texts is left out: no fold learns it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from threadpoolctl import threadpool_limits

from lora_core.data.data_report import RowExcerpt
from lora_core.data.file_inspection import FileContents
from lora_core.data.label_readers import decode_label_names
from lora_core.data.label_review_schemas import (
    MAX_SUSPECTS,
    SUSPECT_CHARACTERS,
    SUSPECTS_VERSION,
    SuspectLabelReport,
    SuspectLabelRow,
    text_label_digest,
)
from lora_core.data.learning_curve import build_task_and_targets
from lora_core.data.linear_baseline import SPEC, fit_single_target
from lora_core.data.more_labels_estimate import MIN_TEXTS_PER_LABEL
from lora_core.data.rows import TextRow
from lora_core.data.split import assign_folds_of_rows, project_rows_to_target, stratified_subset
from lora_core.errors.data import TooFewRows
from lora_core.linear.files import count_weight_rows
from lora_core.linear.model import TfidfMatrix, fit_tfidf_matrix
from lora_core.specs.encoded_labels import decode_label_set, encode_label, encode_label_set
from lora_core.specs.method import NUM_FOLDS
from lora_core.specs.task import TaskType, TaskTypeOfTarget
from lora_core.specs.text_input import text_or_pair
from lora_core.suspect_labels import find_suspect_labels
from lora_core.tasks.base import Task
from lora_core.tasks.regression import Regression
from lora_core.tasks.single_label import SingleLabel
from lora_core.tasks.targets import Targets

MIN_TEXTS = 20  # fewer tell nothing
MAX_TEXTS = 20_000
MAX_WORK = 200_000  # texts x rows of weights: one for two labels, else one for each
MAX_CHARACTERS = 20_000_000
MAX_CHARACTER_WORK = 40_000_000  # characters x rows of weights: at most a minute
MIN_SPREADS = 3.0  # a number is suspect if its residual has at least this many times their spread
NEAREST = 3  # rows that are shown with each suspect one
_CHUNK = 100  # suspect rows that are compared with all texts at a time
_NORMAL_SPREAD = 1.4826  # standard deviation / median absolute deviation of a normal distribution

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Doubt:
    """A label in doubt. `index` is that of the row among the checked ones."""

    index: int
    proposed: str
    confidence: float | None
    score: float
    names: tuple[str, ...] = ()


def find_suspect_rows(contents: FileContents, target: str | None = None) -> SuspectLabelReport:
    """Return the suspect labels of a file, or of one of its targets, the most suspect first."""
    label_format = contents.columns.label_format
    rows: Sequence[TextRow] = contents.rows
    if target is not None:
        label_format, rows = (
            label_format.format_of_target(target),
            project_rows_to_target(rows, target),
        )
    task_type = label_format.task
    if task_type == "several_targets":
        raise TypeError("several targets are checked one by one")
    checked = _sample(rows, task_type)
    doubts: list[_Doubt] = []
    agreement, spread, tfidf = None, None, None
    if len(checked) >= MIN_TEXTS:
        task, targets = build_task_and_targets(checked, task_type)
        if task.labels:
            with threadpool_limits(1, user_api="blas"):  # several only wait for each other
                tfidf, logits = _cross_validate(checked, task_type, task, targets)
            doubts, spread = _find_doubts(checked, task, targets, logits)
            if not isinstance(task, Regression):
                agreement = float((task.predict(logits) == targets).mean())
    listed = doubts[:MAX_SUSPECTS]
    nearest = _nearest(checked, task_type, tfidf, doubts, listed, spread) if tfidf else {}
    return SuspectLabelReport(
        version=SUSPECTS_VERSION,
        target=target,
        task=task_type,
        rows=len(rows),
        checked=len(checked),
        found=len(doubts),
        agreement=agreement,
        spread=spread,
        suspects=tuple(
            _suspect_row(checked[each.index], target, each, nearest.get(each.index, ()))
            for each in listed
        ),
    )


def _sample(rows: Sequence[TextRow], task: TaskTypeOfTarget) -> list[TextRow]:
    """Return as many rows as can be checked in time, stratified and in order."""
    labels = {
        name for label in {row.label for row in rows} for name in decode_label_names(label, task)
    }
    outputs = count_weight_rows(len(labels)) if task == "single_label" else max(1, len(labels))
    characters = sum(row.characters for row in rows)
    max_characters = min(MAX_CHARACTERS, MAX_CHARACTER_WORK // outputs)
    in_time = min(MAX_WORK // outputs, len(rows) * max_characters // max(1, characters))
    count = min(len(rows), MAX_TEXTS, max(MIN_TEXTS, in_time))
    while count < len(rows):
        try:
            subset = stratified_subset(rows, count, of=len(rows), seed=0, task=task)
        except TooFewRows:  # each label needs a text
            count *= 2
        else:
            return sorted(subset, key=lambda row: row.number)
    return list(rows)


def _names(row: TextRow) -> tuple[str, ...]:
    return decode_label_set(row.label)


def _cross_validate(
    rows: Sequence[TextRow], task_type: TaskType, task: Task, targets: Targets
) -> tuple[TfidfMatrix, Floats]:
    """Return the TF-IDF of the rows, and logits (rows, outputs) of each when it is held out.

    Terms and their weights are those of all texts, labels those of the other folds: reading each
    text once takes a third of the time.
    """
    texts = [text_or_pair(row.text, row.pair) for row in rows]
    tfidf = fit_tfidf_matrix(texts, SPEC, len(task.labels))
    numbered = [replace(row, number=i) for i, row in enumerate(rows)]
    folds = assign_folds_of_rows(numbered, task_type, seed=0)
    logits = np.zeros((len(rows), len(task.labels)))
    for fold in range(NUM_FOLDS):
        held_out, train = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        if len(held_out) and len(train):
            model = fit_single_target(
                [texts[i] for i in train],
                targets[train],
                SPEC,
                task,
                balanced=False,
                tfidf=tfidf.select(train),
            )
            features = tfidf.select(held_out).weighted
            has_terms = bool(model.parameters.terms)  # not with a single label in the fold
            logits[held_out] = (
                model.logits_of_features(features)
                if has_terms
                else model.logits([texts[i] for i in held_out])
            )
    return tfidf, logits


def _find_doubts(
    rows: Sequence[TextRow], task: Task, targets: Targets, logits: Floats
) -> tuple[list[_Doubt], float | None]:
    """Return the labels in doubt, the most suspect first, and the spread of numbers."""
    if isinstance(task, Regression):
        return _doubts_of_numbers(targets, task.predict(logits))
    if isinstance(task, SingleLabel):
        return _doubts_of_names(task, targets, softmax(logits, axis=1)), None
    return _doubts_of_sets(rows, task, targets, expit(logits)), None


def _doubts_of_names(task: Task, targets: Targets, probabilities: Floats) -> list[_Doubt]:
    counts = np.bincount(targets, minlength=len(task.labels))
    return [
        _Doubt(each.row, task.labels[each.proposed], each.confidence, each.score)
        for each in find_suspect_labels(probabilities, targets)
        if counts[each.given] >= MIN_TEXTS_PER_LABEL
    ]


def _doubts_of_sets(
    rows: Sequence[TextRow], task: Task, targets: Targets, probabilities: Floats
) -> list[_Doubt]:
    """Assess each name by itself; a row lists all names in doubt, the most suspect first."""
    by_row: dict[int, list[Any]] = defaultdict(list)
    for each in find_suspect_labels(probabilities, targets):
        by_row[each.row].append(each)
    doubts = []
    for index, suspects in by_row.items():
        names = tuple(task.labels[each.label] for each in suspects)
        proposed = encode_label_set(set(_names(rows[index])) ^ set(names))
        confidence = max(each.confidence for each in suspects)
        doubts.append(_Doubt(index, proposed, confidence, suspects[0].score, names))
    return sorted(doubts, key=lambda each: (-each.score, each.index))


def _doubts_of_numbers(numbers: Targets, predicted: Floats) -> tuple[list[_Doubt], float | None]:
    """Assess numbers by their residuals. A few wrong ones do not change the median of all."""
    residuals = np.abs(numbers - predicted)
    spread = _NORMAL_SPREAD * float(np.median(residuals))
    if spread == 0:
        return [], None
    scores = residuals / spread
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= MIN_SPREADS]
    doubts = [
        _Doubt(int(i), encode_label(_rounded(predicted[i], spread)), None, float(scores[i]))
        for i in order
    ]
    return doubts, spread


def _rounded(number: float, spread: float) -> float:
    """Return a number with one digit more than its spread has."""
    digits = 1 - int(np.floor(np.log10(spread)))
    return float(round(number, digits))


# -- Rows that explain a proposal -----------------------------------------------------------------


def _nearest(
    rows: Sequence[TextRow],
    task_type: TaskTypeOfTarget,
    tfidf: TfidfMatrix,
    doubts: Sequence[_Doubt],
    listed: Sequence[_Doubt],
    spread: float | None,
) -> dict[int, tuple[RowExcerpt, ...]]:
    """Return the most similar rows that have the proposed label and are not in doubt themselves."""
    weighted = tfidf.weighted
    if not tfidf.terms:
        return {}
    certain = np.ones(len(rows), dtype=bool)
    certain[[each.index for each in doubts]] = False
    has_proposed = _Agreement(rows, task_type, spread)
    found = {}
    for first in range(0, len(listed), _CHUNK):
        chunk = listed[first : first + _CHUNK]
        similarity = (weighted[[each.index for each in chunk]] @ weighted.T).toarray()
        for each, similarities in zip(chunk, similarity, strict=True):
            candidates = np.where(
                certain & has_proposed.mask_with_proposed_label(each), similarities, 0.0
            )
            best = np.argsort(-candidates, kind="stable")[:NEAREST]
            found[each.index] = tuple(
                RowExcerpt.from_row(rows[i]) for i in best if candidates[i] > 0
            )
    return found


class _Agreement:
    """Says which rows have the label that is proposed for another one."""

    def __init__(
        self, rows: Sequence[TextRow], task_type: TaskTypeOfTarget, spread: float | None
    ) -> None:
        self._task_type, self._spread = task_type, spread
        self._labels = np.array([row.label for row in rows], dtype=object)
        self._numbers = self._labels.astype(np.float64) if spread is not None else np.zeros(0)
        self._sets = [set(_names(row)) for row in rows] if task_type == "multi_label" else []

    def mask_with_proposed_label(self, doubt: _Doubt) -> NDArray[np.bool_]:
        """Return whether each row agrees: of several labels, in the name that is most in doubt."""
        if self._spread is not None:
            return np.abs(self._numbers - float(doubt.proposed)) <= self._spread
        if self._task_type == "multi_label":
            name = doubt.names[0]
            wanted = name in decode_label_set(doubt.proposed)
            return np.array([(name in each) == wanted for each in self._sets])
        return np.asarray(self._labels == doubt.proposed)


def _suspect_row(
    row: TextRow, target: str | None, doubt: _Doubt, nearest: tuple[RowExcerpt, ...]
) -> SuspectLabelRow:
    return SuspectLabelRow(
        row=row.number,
        text=row.text[:SUSPECT_CHARACTERS],
        text_pair=row.pair if row.pair is None else row.pair[:SUSPECT_CHARACTERS],
        characters=row.characters,
        split=row.split,
        label=row.label,
        proposed=doubt.proposed,
        names=doubt.names,
        confidence=doubt.confidence,
        score=doubt.score,
        nearest=nearest,
        digest=text_label_digest(row, target, row.label),
    )
