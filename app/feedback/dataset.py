"""Datasets made from feedback: the newest label of each text."""

import json
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from app.database.engines import Database
from app.datasets import files
from app.datasets import service as datasets
from app.datasets.schemas import UploadFields
from app.datasets.tables import Dataset
from app.datasets.upload import Upload
from app.feedback import repository
from app.feedback.errors import NoFeedbackTexts
from app.feedback.labels import decode_label
from app.feedback.schemas import FeedbackDatasetCreate, LabelValue
from app.feedback.tables import Feedback
from app.idempotency.service import IdempotentRequest
from app.privacy import repository as privacy
from app.registry import repository as registry
from app.settings import Settings
from app.storage.store import Store
from lora_core import manifest
from lora_core.specs.task import TaskType

_SUFFIX = "-feedback"
_MAX_NAME = 64


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
            for row in repository.list_newest(session, model=model)
            if row.text is not None and not (body.changed_only and row.answer == row.label)
        ]
        hashes = {each for row in rows for each in _hashes(row)}
        unwanted = privacy.forgotten(session, hashes)
    known = [row for row in rows if unwanted.isdisjoint(_hashes(row))]
    lines, fields = _lines(known)
    if not lines:
        condition = " and whose label was changed" if body.changed_only else ""
        raise NoFeedbackTexts(model=model, condition=condition)
    name = body.name or model[: _MAX_NAME - len(_SUFFIX)].rstrip("-") + _SUFFIX
    return _store(database, store, settings, name, lines, fields, call)


def _store(  # noqa: PLR0913
    database: Database,
    store: Store,
    settings: Settings,
    name: str,
    lines: Sequence[Mapping[str, Any]],
    fields: Mapping[str, Any],
    call: IdempotentRequest,
) -> tuple[Dataset, bool]:
    directory = files.create_incoming_dir(settings)
    try:
        path = directory / "feedback.jsonl"
        with path.open("x", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        upload = Upload(
            path=path,
            filename=f"{name}.jsonl",
            sha256=manifest.sha256(path),
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
        )
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _lines(rows: Sequence[Feedback]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows of the file in the order of the feedback, and how it is to be read."""
    tasks: dict[str, TaskType] = {row.target: row.task for row in rows}  # type: ignore[misc]
    texts: dict[str, dict[str, Any]] = {}
    labels: dict[str, dict[str, LabelValue]] = {}
    for row in sorted(rows, key=lambda row: (row.updated_at, row.id)):
        line = {"text": row.text, **({"text_pair": row.text_pair} if row.text_pair else {})}
        texts[row.text_hash] = line
        labels.setdefault(row.text_hash, {})[row.target] = decode_label(
            row.label, tasks[row.target]
        )
    fields: dict[str, Any] = {}
    if any(line.get("text_pair") for line in texts.values()):
        fields["text_pair_column"] = "text_pair"
    if set(tasks) <= {""}:
        fields["task"] = tasks.get("", "single_label")
        return [{**texts[key], "label": labels[key][""]} for key in texts], fields
    fields["targets"] = json.dumps({name: {"type": task} for name, task in tasks.items()})
    complete = [key for key in texts if labels[key].keys() == tasks.keys()]
    return [{**texts[key], **labels[key]} for key in complete], fields


def _hashes(row: Feedback) -> list[str]:
    return [each for each in (row.text_hash, row.first_hash, row.second_hash) if each is not None]
