"""The texts of a run: the data of production's job with its splits, and live texts.

Two files are written. One is trained on: the rows of the data with the splits they have, then the
live texts that train. Feedback on a training row corrects the label in its place: appended as a
live text, the row would be lost once the feedback is gone. The other file has the evaluation texts:
the test split and the live texts that are held out, with their labels. No text is in both, and
neither version was trained on an evaluation text.
"""

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.retraining.feedback_labels import LiveText, hash_normalized_text, is_held_out
from app.retraining.schemas import TextCounts, TextExclusionReason
from lora_core.data.labeled_split_rows_file import LabeledSplitRow
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.encoded_labels import decode_label, decode_targets
from lora_core.specs.task import MultiLabelTarget, SeveralTargetsSpec, TaskSpec

MAX_EVALUATED = 5_000  # texts of each part, drawn by their hash, so they are the same in each run
TEXT, PAIR, LABEL, SPLIT = "text", "text_pair", "label", "split"
PART = "part"  # of the evaluation texts
LIVE_PART, TEST_PART = "live", "test"


@dataclass(frozen=True)
class MergedTextCounts:
    """What was written."""

    counts: TextCounts
    kept_rows: int  # the first rows of the training file: those of the data


@dataclass(frozen=True)
class _BaseKeys:
    """Keys of the texts that production's job read."""

    train: dict[bytes, str]  # with their labels
    evaluation: frozenset[bytes]  # validation and test


def build_merged_file_task_spec(task: TaskSpec) -> TaskSpec:
    """Return the task of the file: each of several targets has a column that no other one has."""
    if not isinstance(task, SeveralTargetsSpec):
        return task
    one_column = {"label_columns": None, "label_separator": None}
    targets = {
        name: each.model_copy(
            update={"column": _target_column(name)}
            | (one_column if isinstance(each, MultiLabelTarget) else {})
        )
        for name, each in task.targets.items()
    }
    return task.model_copy(update={"targets": targets})


def build_merged_data_spec(data: DataSpec, source: str) -> DataSpec:
    """Return how a run reads the file, with the lengths that production's job had."""
    return DataSpec(
        source=source,
        text_column=TEXT,
        text_pair_column=None if data.text_pair_column is None else PAIR,
        split_column=SPLIT,
        split_seed=data.split_seed,
        max_length=data.max_length,
        long_texts=data.long_texts,
        prompt_format=data.prompt_format,  # of the texts, which were in chat form
    )


def write_training_and_evaluation_files(  # noqa: PLR0913 - what a run is made of
    read_rows: Callable[[], Iterable[LabeledSplitRow]],
    live: Sequence[LiveText],
    left_out: Counter[TextExclusionReason],
    *,
    source: str,
    task: TaskSpec,
    first_live_row: int | None,
    is_forgotten: Callable[[str, str | None], bool],
    training_file: Path,
    evaluation_file: Path,
) -> MergedTextCounts:
    """Write both files.

    `read_rows` returns the rows that production's job read, each time from the beginning; those in
    train from `first_live_row` on are the live texts that an earlier run added. They are left out,
    because the newest feedback replaces them: it may have been changed or deleted.
    """
    base = _collect_keys(read_rows())
    training, held_out = _assign(live, base, is_forgotten, left_out)
    labels = {each.key: each.label for each in training}
    in_place: set[bytes] = set()
    counts, replaced, forgotten = Counter[Split](), 0, 0
    test: dict[bytes, LabeledSplitRow] = {}
    with training_file.open("x", encoding="utf-8") as file:
        for row in read_rows():
            key = hash_normalized_text(row.text, row.pair)
            if _is_live(row, first_live_row):
                continue
            if row.split is Split.TRAIN and key in labels:
                replaced += 1
                in_place.add(key)
                file.write(_training_line(row._replace(label=labels[key]), task))
            elif is_forgotten(row.text, row.pair):
                forgotten += 1
            else:
                counts[row.split] += 1
                file.write(_training_line(row, task))
                if row.split is Split.TEST and key not in base.train:
                    test.setdefault(key, row)  # copies of a text are no further evidence
                    if len(test) >= 2 * MAX_EVALUATED:  # bounds the memory
                        test = _smallest(test)
        for each in training:
            if each.key not in in_place:
                row = LabeledSplitRow(Split.TRAIN, 0, each.text, each.pair, each.label)
                file.write(_training_line(row, task))
    evaluated_test = _smallest(test).values()
    evaluated_live = heapq.nsmallest(MAX_EVALUATED, held_out, key=lambda each: each.key)
    with evaluation_file.open("x", encoding="utf-8") as file:
        file.writelines(_evaluation_line(TEST_PART, each) for each in evaluated_test)
        file.writelines(_evaluation_line(LIVE_PART, each) for each in evaluated_live)
    return MergedTextCounts(
        counts=TextCounts(
            source=source,
            train=counts[Split.TRAIN],
            validation=counts[Split.VALIDATION],
            test=counts[Split.TEST],
            live_volunteered=sum(not each.sampled for each in training),
            live_sampled=sum(each.sampled for each in training),
            new=sum(base.train.get(each.key) != each.label for each in training),
            replaced=replaced,
            forgotten_rows=forgotten,
            evaluated_test=len(evaluated_test),
            evaluated_live=len(evaluated_live),
            left_out=dict(left_out),
        ),
        kept_rows=counts.total() + replaced,
    )


def _assign(
    live: Iterable[LiveText],
    base: _BaseKeys,
    is_forgotten: Callable[[str, str | None], bool],
    left_out: Counter[TextExclusionReason],
) -> tuple[list[LiveText], list[LiveText]]:
    """Return the live texts to train on, and those that are held out. Count the others."""
    training, held_out = [], []
    for each in live:
        if each.key in base.evaluation:
            left_out[TextExclusionReason.IN_EVALUATION_SPLIT] += 1
        elif is_forgotten(each.text, each.pair):
            left_out[TextExclusionReason.FORGOTTEN] += 1
        elif each.sampled and is_held_out(each.key) and each.key not in base.train:
            held_out.append(each)
        else:
            training.append(each)
    return training, held_out


def read_prediction_results(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the results of a prediction run on an evaluation file."""
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _collect_keys(rows: Iterable[LabeledSplitRow]) -> _BaseKeys:
    train: dict[bytes, str] = {}
    evaluation = set()
    for row in rows:
        key = hash_normalized_text(row.text, row.pair)
        if row.split is Split.TRAIN:
            train[key] = row.label
        else:
            evaluation.add(key)
    return _BaseKeys(train, frozenset(evaluation))


def _smallest(test: dict[bytes, LabeledSplitRow]) -> dict[bytes, LabeledSplitRow]:
    """Return the test rows to evaluate on: those with the smallest keys, in their order."""
    return {key: test[key] for key in heapq.nsmallest(MAX_EVALUATED, test)}


def _is_live(row: LabeledSplitRow, first_live_row: int | None) -> bool:
    return row.split is Split.TRAIN and first_live_row is not None and row.row >= first_live_row


def _training_line(row: LabeledSplitRow, task: TaskSpec) -> str:
    cells: dict[str, Any] = _text_cells(row)
    if isinstance(task, SeveralTargetsSpec):
        labels = decode_targets(row.label)
        cells |= {_target_column(name): _json(value) for name, value in labels.items()}
    else:
        cells[LABEL] = _json(decode_label(row.label, task.type))
    return _line({**cells, SPLIT: row.split.value})


def _evaluation_line(part: str, row: LabeledSplitRow | LiveText) -> str:
    return _line({**_text_cells(row), LABEL: row.label, PART: part})


def _text_cells(row: LabeledSplitRow | LiveText) -> dict[str, Any]:
    return {TEXT: row.text} | ({} if row.pair is None else {PAIR: row.pair})


def _target_column(target: str) -> str:
    return f"{LABEL}.{target}"


def _json(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _line(cells: dict[str, Any]) -> str:
    return json.dumps(cells, ensure_ascii=False) + "\n"
