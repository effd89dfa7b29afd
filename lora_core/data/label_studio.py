"""Exports of Label Studio, JSON and JSON-MIN, read as tables.

An export has one task for each text, with the annotations that people submitted. It becomes a row:
the fields of the task's `data`, its `id`, and a column for each `<Choices>` control with what was
chosen. The only field with texts is found as `text`, and the only control as `label`, unless they
are named otherwise.

If annotations differ, those marked as ground truth count, otherwise what most annotations have; of
a tie, the latest. The formats: https://labelstud.io/guide/export
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from lora_core.data import text_files
from lora_core.data.rows import ColumnSelection, ParseInfo, find_column
from lora_core.errors.data import (
    MalformedRow,
    NoAnnotations,
    NoChoiceAnnotations,
    SeveralLabelStudioChoices,
)
from lora_core.specs.task import TaskType

TEXT, LABEL = "text", "label"  # what the only texts and the only control are found as
_ID = "id"  # of a task. JSON-MIN has it between the fields of `data` and the controls
_ANNOTATOR = "annotator"  # what follows the controls in JSON-MIN
_ADDRESS = re.compile(r"(?:\w+://|/data/)\S+")  # of an image or a recording, which is no text

Choices = list[Any]  # of one control in one annotation
NumberedObjects = Iterator[tuple[int, dict[str, Any]]]  # the row number and the fields


class Annotation(NamedTuple):
    """What somebody submitted for a task."""

    updated_at: str  # ISO 8601
    ground_truth: bool
    choices: dict[str, Choices]  # by control
    other_results: dict[str, str]  # the type of each result that is no choice, by control


class LabelStudioTask(NamedTuple):
    """A task, which becomes a row."""

    number: int  # of the row
    fields: dict[str, Any]
    annotations: list[Annotation]  # those that count, the latest last


def read_flattened_tasks(path: Path, columns: ColumnSelection, info: ParseInfo) -> NumberedObjects:
    """Return the rows of an export, or the objects of any other JSON array as they are.

    Tasks without an annotation of the label columns are skipped and counted in `info`.

    Raises `NoAnnotations`, `NoChoiceAnnotations` and what `text_files.iter_json_array` raises;
    while reading, `SeveralLabelStudioChoices`.
    """
    read_tasks = _detect_format(path, columns)
    if read_tasks is None:
        return text_files.iter_json_array(path)
    table = _Table(path.name, columns, info, read_tasks())
    return table.rows(read_tasks())


def is_export_file(path: Path, columns: ColumnSelection) -> bool:
    """Return whether a `.json` file is an export. Raises what `iter_json_array` raises."""
    return _detect_format(path, columns) is not None


def _detect_format(
    path: Path, columns: ColumnSelection
) -> Callable[[], Iterator[LabelStudioTask]] | None:
    """Return what reads the tasks; None if the file is no export of Label Studio."""
    _, first = next(text_files.iter_json_array(path), (1, {}))
    if isinstance(first.get("data"), dict):
        return lambda: _read_json(path)
    if {_ID, _ANNOTATOR, "annotation_id"} <= first.keys():
        controls = _find_controls(path, columns)
        return lambda: _read_json_min(path, controls)
    return None


class _Table:
    """The columns of an export, and its rows."""

    def __init__(
        self, file: str, columns: ColumnSelection, info: ParseInfo, tasks: Iterable[LabelStudioTask]
    ) -> None:
        """Raises `NoAnnotations`, `NoChoiceAnnotations` if labels are read and there are none."""
        self._file, self._info = file, info
        self._tasks = {
            column: label_format.task
            for column, label_format in zip(
                columns.label_columns, columns.label_column_formats, strict=True
            )
        }
        selected = {*columns.text_columns, *columns.label_columns, columns.split}
        has_texts: dict[str, bool] = {}  # by field
        controls: dict[str, None] = {}
        other_results: dict[str, str] = {}
        count = 0
        for task in tasks:
            count += 1
            for name, value in task.fields.items():
                has_texts[name] = has_texts.get(name, True) and _may_be_text(value)
            for annotation in task.annotations:
                controls |= dict.fromkeys(annotation.choices)
                other_results |= annotation.other_results
        if columns.label is not None and not controls:
            if other_results:
                found = ", ".join(f"{name} ({kind})" for name, kind in other_results.items())
                raise NoChoiceAnnotations(file=file, found=found)
            raise NoAnnotations(file=file, count=f"{count:,}")
        texts = [name for name, is_text in has_texts.items() if is_text and name != _ID]
        self._fields = _columns(has_texts, texts, TEXT, selected)
        self._controls = {
            name: column
            for name, column in _columns(controls, list(controls), LABEL, selected).items()
            if column not in {*columns.text_columns, columns.split}  # fields of the data
        }
        if controls:  # the label of a row is what was chosen, not a field of the same name
            hidden = {LABEL, *self._controls.values()}
            self._fields = {k: v for k, v in self._fields.items() if v not in hidden}

    def rows(self, tasks: Iterable[LabelStudioTask]) -> NumberedObjects:
        """Yield the rows. Raises `SeveralLabelStudioChoices`."""
        for task in tasks:
            cells = {column: task.fields.get(name) for name, column in self._fields.items()}
            labels = {
                column: self._cell(task, name, column) for name, column in self._controls.items()
            }
            if any(labels[column] is None for column in self._tasks.keys() & labels.keys()):
                self._info.unannotated_tasks += 1
                continue
            yield task.number, {**cells, **labels}

    def _cell(self, task: LabelStudioTask, control: str, column: str) -> object:
        """Return what was chosen: a list for a multi-label task, otherwise one choice. None: the
        task has no annotation of this control."""
        kind = self._tasks.get(column)
        votes = [annotation.choices.get(control, []) for annotation in task.annotations]
        if kind != "multi_label":  # there, an annotation without choices says that none applies
            votes = [choices for choices in votes if choices]
        if not votes:
            return None
        keys = [_as_key(choices) for choices in votes]
        counts = Counter(keys)
        if kind is not None and len(counts) > 1:
            self._info.disputed_rows.append(task.number)
        chosen = votes[max(range(len(votes)), key=lambda i: (counts[keys[i]], i))]
        return chosen if kind == "multi_label" else self._one_choice(task, control, chosen, kind)

    def _one_choice(
        self, task: LabelStudioTask, control: str, chosen: Choices, kind: TaskType | None
    ) -> object:
        if len(chosen) == 1:
            return chosen[0]
        if kind is None:  # not read as a label
            return chosen
        raise SeveralLabelStudioChoices(
            file=self._file, row=task.number, control=control, count=len(chosen)
        )


def _columns(
    names: Collection[str],
    candidates: Sequence[str],
    alias: str,
    selected: Collection[str | None],
) -> dict[str, str]:
    """Return the column of each name: its own, the selected one that looks the same, or the alias
    if only one is a candidate for it."""
    looked_up = {find_column(each, names): each for each in selected if each is not None}
    columns = {name: looked_up.get(name, name) for name in names}
    if alias not in columns and len(candidates) == 1 and candidates[0] not in looked_up:
        columns[candidates[0]] = alias
    return columns


def _may_be_text(value: object) -> bool:
    return value is None or (isinstance(value, str) and not _ADDRESS.fullmatch(value.strip()))


def _as_key(choices: Choices) -> tuple[str, ...]:
    """Return choices in a form that can be compared; their order means nothing."""
    return tuple(sorted(map(str, choices)))


def _counting(annotations: Sequence[Annotation]) -> list[Annotation]:
    """Return the annotations that count, the latest last."""
    truths = [annotation for annotation in annotations if annotation.ground_truth]
    return sorted(truths or annotations, key=lambda annotation: annotation.updated_at)


# -- JSON: one object for each task ---------------------------------------------------------------


def _read_json(path: Path) -> Iterator[LabelStudioTask]:
    for number, record in text_files.iter_json_array(path):
        data = record.get("data")
        # `completions` is the name of before 1.0
        annotations = record.get("annotations", record.get("completions")) or []
        if not isinstance(data, dict) or not isinstance(annotations, list):
            problem = "not a task of Label Studio with `data` and `annotations`"
            raise MalformedRow(file=path.name, row=number, problem=problem)
        submitted = [
            _parse_annotation(path.name, number, annotation)
            for annotation in annotations
            if not _is_cancelled(annotation)
        ]
        of_task = {_ID: record[_ID]} if _ID in record else {}
        yield LabelStudioTask(number, of_task | data, _counting(submitted))


def _is_cancelled(annotation: object) -> bool:
    return isinstance(annotation, dict) and bool(
        annotation.get("was_cancelled") or annotation.get("skipped")
    )


def _parse_annotation(file: str, number: int, annotation: object) -> Annotation:
    results = annotation.get("result") or [] if isinstance(annotation, dict) else None
    if not isinstance(annotation, dict) or not isinstance(results, list):
        problem = "an annotation is not an object with a `result`; export the annotations, too"
        raise MalformedRow(file=file, row=number, problem=problem)
    choices: dict[str, Choices] = {}
    other_results: dict[str, str] = {}
    for result in results:
        match result:
            # choices about a part of the text have its `start`
            case {"from_name": str(name), "value": {"choices": [*chosen], **where}} if (
                "start" not in where
            ):
                # several results of one control, such as those of `perItem`, are one answer
                choices[name] = [*choices.get(name, ()), *chosen]
            case {"from_name": str(name), "type": str(kind)}:
                other_results[name] = kind
    updated_at = str(annotation.get("updated_at") or annotation.get("created_at") or "")
    return Annotation(updated_at, annotation.get("ground_truth") is True, choices, other_results)


# -- JSON-MIN: one object for each annotation -----------------------------------------------------


def _find_controls(path: Path, columns: ColumnSelection) -> set[str]:
    """Return the controls: what is between `id` and `annotator` in any object.

    A control with the name of a field of `data` is in the place of that field. If there are no
    others, the label columns are such controls.
    """
    found: set[str] = set()
    for number, record in text_files.iter_json_array(path):
        names = list(record)
        if not {_ID, _ANNOTATOR} <= record.keys():
            problem = f"not a task of JSON-MIN with {_ID!r} and {_ANNOTATOR!r}"
            raise MalformedRow(file=path.name, row=number, problem=problem)
        found.update(names[names.index(_ID) + 1 : names.index(_ANNOTATOR)])
    # fields of the data follow an `id` of their own
    found -= {*columns.text_columns, columns.split or ""}
    return found or set(columns.label_columns)


def _read_json_min(path: Path, controls: set[str]) -> Iterator[LabelStudioTask]:
    """Yield the tasks. Their annotations follow each other."""
    records = text_files.iter_json_array(path)
    for _, group in groupby(records, key=lambda numbered: numbered[1][_ID]):
        parsed = [_parse_record(number, record, controls) for number, record in group]
        annotations = [annotation for task in parsed for annotation in task.annotations]
        yield LabelStudioTask(parsed[0].number, parsed[0].fields, _counting(annotations))


def _parse_record(number: int, record: dict[str, Any], controls: set[str]) -> LabelStudioTask:
    fields: dict[str, Any] = {}
    choices: dict[str, Choices] = {}
    other_results: dict[str, str] = {}
    for name in takewhile(lambda name: name != _ANNOTATOR, record):
        match record[name]:
            case value if name not in controls:
                fields[name] = value
            case str(choice):
                choices[name] = [choice]
            case {"choices": [*chosen]}:
                choices[name] = chosen
            case [{**result}, *_] if result:  # such as [{"start": 0, "end": 4, "labels": ["PER"]}]
                other_results[name] = str(list(result)[-1])
            case value:
                fields[name] = value
    updated_at = str(record.get("updated_at") or record.get("created_at") or "")
    annotation = Annotation(updated_at, False, choices, other_results)
    annotated = record.get("annotation_id") is not None
    return LabelStudioTask(number, fields, [annotation] if annotated else [])
