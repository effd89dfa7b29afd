"""Lines with an object of labels, the format of Mistral's classifier factory.

    {"text": "Where is my parcel?", "labels": {"topic": "shipping", "flags": ["urgent"]}}

Each label is read as a column of its name. In place of `text`, a line may have `messages`: its text
is that of a prompt in chat form (`lora_core.data.chat`), which has no answer here.
"""

import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lora_core.data import chat, text_files
from lora_core.data.rows import MAX_COLUMNS, ColumnSelection
from lora_core.errors.data import DataTooLarge, MalformedRow
from lora_core.specs.chat import PromptFormat
from lora_core.specs.task import TaskType

LABELS = "labels"
_MAX_NAME_CHARACTERS = 256  # as of every column


def infer_task_type_by_target(path: Path) -> dict[str, TaskType]:
    """Return the task of each label in the objects of a `.jsonl` file; empty for other files.

    A label that is a list in any line is a set of names. Raises `MalformedRow` for a name that no
    column can have, `DataTooLarge`, and what `text_files.iter_json_lines` raises.
    """
    number, first = next(text_files.iter_json_lines(path), (0, {}))
    if not isinstance(first.get(LABELS), dict):
        return {}
    tasks = _tasks_of_labels(path)
    if not all(0 < len(name) <= _MAX_NAME_CHARACTERS and name.isprintable() for name in tasks):
        limit = f"1 to {_MAX_NAME_CHARACTERS} printable characters"
        problem = f"a name in {LABELS!r}, here or in a later line, does not have {limit}"
        raise MalformedRow(file=path.name, row=number, problem=problem)
    return tasks


def read_jsonl_as_flat_objects(
    path: Path, columns: ColumnSelection
) -> tuple[chat.NumberedObjects, PromptFormat | None]:
    """Return the objects of a `.jsonl` file, and the format of its prompts.

    Objects with labels have these as fields of their own, and `text` in place of messages. A label
    that a line lacks is None. Other files are returned by `chat.read_flattened_chat`.

    Raises `DataTooLarge` and what `chat.read_flattened_chat` raises, here or while reading.
    """
    _, first = next(text_files.iter_json_lines(path), (0, {}))
    if not reads_labels_object(first, columns):
        return chat.read_flattened_chat(path, columns)
    prompt_format = None
    if columns.text not in first:
        prompt_format = columns.prompt_format or _detect_prompt_format(path)
    return _as_columns(path, columns, prompt_format), prompt_format


def reads_labels_object(record: Mapping[str, Any], columns: ColumnSelection) -> bool:
    """Return whether the labels that are read may be in an object.

    Examples in chat form, whose label is their answer, may have other labels in such an object.
    """
    labels = record.get(LABELS)
    if not isinstance(labels, dict):
        return False
    if columns.text in record:
        return True
    if columns.text != chat.TEXT or chat.MESSAGES not in record:
        return False
    if columns.label_columns == (chat.LABEL,):
        return chat.LABEL in labels and not _has_answer(record)
    return columns.label_columns != ()


def _has_answer(record: Mapping[str, Any]) -> bool:
    messages = record[chat.MESSAGES]
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, dict) and last.get("role") == "assistant"


def _tasks_of_labels(path: Path) -> dict[str, TaskType]:
    tasks: dict[str, TaskType] = {}
    for _, record in text_files.iter_json_lines(path):
        for name, value in _labels(record).items():
            if isinstance(value, list):
                tasks[name] = "multi_label"
            else:
                tasks.setdefault(name, "single_label")
        if len(tasks) > MAX_COLUMNS:
            what = f"the number of names in {LABELS!r}"
            raise DataTooLarge(file=path.name, what=what, limit=f"{MAX_COLUMNS:,}")
    return tasks


def _detect_prompt_format(path: Path) -> PromptFormat:
    prompts = chat.CommonPromptFinder()
    for number, record in text_files.iter_json_lines(path):
        prompts.add(chat.parse_messages(path.name, number, record))
    return prompts.format()


def _as_columns(
    path: Path, columns: ColumnSelection, prompt_format: PromptFormat | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    missing: dict[str, Any] = dict.fromkeys(_tasks_of_labels(path))
    sets = {
        name
        for name, each in zip(columns.label_columns, columns.label_column_formats, strict=True)
        if each.task == "multi_label" and each.columns is None and each.separator is None
    }
    for number, record in text_files.iter_json_lines(path):
        labels = _labels(record)
        for name in sets & labels.keys():
            if isinstance(labels[name], str):  # a set of one name
                labels[name] = [labels[name]]
        fields = {name: value for name, value in record.items() if name != LABELS}
        if prompt_format is not None:
            messages = chat.parse_messages(path.name, number, record)
            fields[chat.TEXT] = prompt_format.text_of_messages(messages)
        yield number, missing | labels | fields


def _labels(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the labels of a line, by their names in Unicode form NFC.

    A field of the line has precedence over a label of its name.
    """
    labels = record.get(LABELS)
    if not isinstance(labels, dict):
        return {}
    fields = record.keys() - {LABELS}
    names = {name: unicodedata.normalize("NFC", name) for name in labels if name not in fields}
    return {names[name]: labels[name] for name in names}
