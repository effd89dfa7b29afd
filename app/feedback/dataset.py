"""Datasets made from feedback: the newest label of each text."""

import json
import shutil
from collections.abc import Mapping, Sequence, Set
from typing import Any

from app.database.engines import Database
from app.datasets import files
from app.datasets import service as datasets
from app.datasets.multipart_upload import Upload
from app.datasets.schemas import UploadFields
from app.datasets.tables import Dataset
from app.feedback import repository
from app.feedback.errors import NoFeedbackTexts
from app.feedback.labels import deserialize_label
from app.feedback.schemas import FeedbackDatasetCreate, LabelValue
from app.feedback.tables import Feedback
from app.idempotency.service import IdempotentRequest
from app.privacy import repository as privacy
from app.registry import repository as registry
from app.settings import Settings
from app.storage.store import Store
from lora_core import manifest
from lora_core.data.rows import SPLIT_COLUMN
from lora_core.specs.task import TaskType

_SUFFIX = "-feedback"
_MAX_NAME = 64
_TEXT_COLUMN, _PAIR_COLUMN = "text", "text_pair"


def create_dataset(
    database: Database,
    store: Store,
    *,
    settings: Settings,
    model: str,
    body: FeedbackDatasetCreate,
    call: IdempotentRequest,
) -> tuple[Dataset, bool]:
    """Store the texts with feedback on a model as the next version of a dataset.

    Returns (dataset, whether it is new). Texts that were forgotten are left out, and of several
    targets texts without feedback on each of them: what the model predicted is no label.

    Raises `ModelNotFound`, `NoFeedbackTexts`, and what `datasets.create_dataset` raises.
    """
    with database.read() as session:
        registry.get_model(session, model)
        rows = [
            row
            for row in repository.list_newest_per_target_and_subject(session, model=model)
            if row.text is not None and not (body.changed_only and row.answer == row.label)
        ]
        forgotten = privacy.list_forgotten_hashes(session)
    known = [row for row in rows if forgotten.isdisjoint(_hashes(row))]
    lines, fields = _lines(_of_one_form(known))
    if not lines:
        condition = " and whose label was changed" if body.changed_only else ""
        raise NoFeedbackTexts(model=model, condition=condition)
    name = body.name or model[: _MAX_NAME - len(_SUFFIX)].rstrip("-") + _SUFFIX
    return _store(database, store, settings, name, lines, fields, forgotten, call)


def _store(  # noqa: PLR0913
    database: Database,
    store: Store,
    settings: Settings,
    name: str,
    lines: Sequence[Mapping[str, Any]],
    fields: Mapping[str, Any],
    forgotten: Set[str],
    call: IdempotentRequest,
) -> tuple[Dataset, bool]:
    directory = files.create_temporary_upload_dir(settings)
    try:
        path = directory / "feedback.jsonl"
        with path.open("x", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        upload = Upload(
            path=path,
            filename=f"{name}.jsonl",
            sha256=manifest.file_sha256(path),
            bytes=path.stat().st_size,
            fields={},
        )
        return datasets.create_dataset(
            database,
            store,
            settings=settings,
            upload=upload,
            fields=UploadFields.model_validate({"name": name, **fields}),
            call=call,
            forgotten=forgotten,
        )
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _of_one_form(rows: Sequence[Feedback]) -> list[Feedback]:
    """Return the rows in the order of the feedback, without those that do not fit the newest ones.

    Versions of a model may differ in what they read and predict: pairs, targets, tasks.
    """
    ordered = sorted(rows, key=lambda row: (row.updated_at, row.id))
    alike = [
        row
        for row in ordered
        if bool(row.target) == bool(ordered[-1].target)
        and (row.text_pair is None) == (ordered[-1].text_pair is None)
    ]
    tasks = {row.target: row.task for row in alike}
    return [row for row in alike if row.task == tasks[row.target]]


def _lines(rows: Sequence[Feedback]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows of the file, and how it is to be read."""
    tasks: dict[str, TaskType] = {row.target: row.task for row in rows}  # type: ignore[misc]
    texts: dict[str, dict[str, Any]] = {}
    labels: dict[str, dict[str, LabelValue]] = {}
    for row in rows:
        pair = {_PAIR_COLUMN: row.text_pair} if row.text_pair else {}
        texts[row.text_hash] = {_TEXT_COLUMN: row.text, **pair}
        label = deserialize_label(row.label, tasks[row.target])
        labels.setdefault(row.text_hash, {})[_column(row.target)] = label
    fields: dict[str, Any] = {}
    if any(row.text_pair for row in rows):
        fields["text_pair_column"] = _PAIR_COLUMN
    if len(tasks) == 1:  # of several targets, only one may have feedback
        ((target, task),) = tasks.items()
        fields |= {"task": task, "label_column": _column(target)}
    elif tasks:
        targets = {name: {"type": task, "column": _column(name)} for name, task in tasks.items()}
        fields["targets"] = json.dumps(targets)
    complete = [key for key in texts if len(labels[key]) == len(tasks)]
    return [{**texts[key], **labels[key]} for key in complete], fields


def _column(target: str) -> str:
    """Return the column with the labels of a target. No name of a target begins with `_`."""
    if target in (_TEXT_COLUMN, _PAIR_COLUMN, SPLIT_COLUMN):
        return f"_{target}"
    return target or "label"


def _hashes(row: Feedback) -> list[str]:
    return [each for each in (row.text_hash, row.first_hash, row.second_hash) if each is not None]
