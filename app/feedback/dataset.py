"""Datasets made from feedback: the newest label of each text."""

import json
import shutil
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from typing import Any

from app.database.engines import Database
from app.datasets import files
from app.datasets import service as datasets
from app.datasets.multipart_upload import Upload
from app.datasets.schemas import UploadFields
from app.datasets.tables import Dataset
from app.feedback import repository
from app.feedback.errors import FeedbackIncomplete, NoFeedbackTexts
from app.feedback.labels import deserialize_label
from app.feedback.schemas import FeedbackDatasetCreate
from app.feedback.tables import Feedback
from app.idempotency.service import IdempotentRequest
from app.privacy import repository as privacy
from app.registry import repository as registry
from app.registry.errors import ModelNotFound
from app.registry.model_io_schemas import read_io_schema
from app.registry.service import resolve_model
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

    Raises `ModelNotFound`, `NoFeedbackTexts`, `FeedbackIncomplete`, and what `read_io_schema` and
    `datasets.create_dataset` raise.
    """
    with database.read() as session:
        registry.get_model(session, model)
        rows = [
            row
            for row in repository.list_newest_per_target_and_subject(session, model=model)
            if row.text is not None
        ]
        forgotten = privacy.list_forgotten_hashes(session)
    known = sorted(
        (row for row in rows if forgotten.isdisjoint(_hashes(row))),
        key=lambda row: (row.updated_at, row.id),
    )
    alike = _of_one_form(_without_former_targets(database, store, known))
    lines, fields = _lines(alike, changed_only=body.changed_only)
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


def _without_former_targets(
    database: Database, store: Store, rows: Sequence[Feedback]
) -> Sequence[Feedback]:
    """Return the rows on targets of the version with the newest feedback, unless it was deleted.

    Nobody labels targets that versions no longer have, so no text would be complete.
    """
    if any(row.target for row in rows):
        with suppress(ModelNotFound):
            with database.read() as session:
                resolved = resolve_model(session, f"{rows[-1].model}:{rows[-1].number}")
            targets = read_io_schema(store, resolved).targets
            return [row for row in rows if row.target in targets]
    return rows


def _of_one_form(rows: Sequence[Feedback]) -> list[Feedback]:
    """Return the rows, the newest of which is the last, without those that do not fit the newest.

    Versions of a model may differ in what they read and predict: pairs, targets, tasks.
    """
    alike = [
        row
        for row in rows
        if bool(row.target) == bool(rows[-1].target)
        and (row.text_pair is None) == (rows[-1].text_pair is None)
    ]
    tasks = {row.target: row.task for row in alike}
    return [row for row in alike if row.task == tasks[row.target]]


def _lines(
    rows: Sequence[Feedback], *, changed_only: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows of the file, and how it is to be read. Raises `FeedbackIncomplete`."""
    tasks: dict[str, TaskType] = {row.target: row.task for row in rows}  # type: ignore[misc]
    texts: dict[str, dict[str, Any]] = {}
    newest: dict[str, dict[str, Feedback]] = {}  # by text and target
    for row in rows:
        pair = {_PAIR_COLUMN: row.text_pair} if row.text_pair else {}
        texts[row.text_hash] = {_TEXT_COLUMN: row.text, **pair}
        newest.setdefault(row.text_hash, {})[row.target] = row
    fields: dict[str, Any] = {}
    if any(row.text_pair for row in rows):
        fields["text_pair_column"] = _PAIR_COLUMN
    if len(tasks) == 1:  # of several targets, only one may have feedback
        ((target, task),) = tasks.items()
        fields |= {"task": task, "label_column": _column(target)}
    elif tasks:
        targets = {name: {"type": task, "column": _column(name)} for name, task in tasks.items()}
        fields["targets"] = json.dumps(targets)
    complete = [key for key in texts if len(newest[key]) == len(tasks)]
    if texts and not complete:
        names = ", ".join(sorted(tasks))
        raise FeedbackIncomplete(model=rows[0].model, texts=len(texts), targets=names)
    lines = []
    for key in complete:
        labels = newest[key].values()
        # Only now: a correction that was taken back must not take the place of the newest label.
        if not changed_only or any(row.answer != row.label for row in labels):
            columns = {
                _column(row.target): deserialize_label(row.label, tasks[row.target])
                for row in labels
            }
            lines.append({**texts[key], **columns})
    return lines, fields


def _column(target: str) -> str:
    """Return the column with the labels of a target. No name of a target begins with `_`."""
    if target in (_TEXT_COLUMN, _PAIR_COLUMN, SPLIT_COLUMN):
        return f"_{target}"
    return target or "label"


def _hashes(row: Feedback) -> list[str]:
    return [each for each in (row.text_hash, row.first_hash, row.second_hash) if each is not None]
