"""A dataset of the labels so far."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from app.database.engines import Database
from app.datasets import files
from app.datasets import service as datasets
from app.datasets.multipart_upload import Upload
from app.datasets.schemas import UploadFields
from app.datasets.tables import Dataset
from app.idempotency.service import IdempotentRequest
from app.labeling import repository, service
from app.labeling.errors import NothingLabeled, TooFewDistinctLabels
from app.labeling.pools import LabelingPools, Pool
from app.labeling.resolved_labels import LabelValue, ResolvedLabel, resolve_labels
from app.privacy import repository as privacy
from app.settings import Settings
from app.storage.store import Store
from lora_core.specs.data import Split

MIN_TEST_TEXTS = 50  # texts drawn at random, from which on they are the test split
MAX_RANDOM_SHARE = 0.5  # of the labeled texts: the others are what is trained on


def export_labels_to_dataset(  # noqa: PLR0913
    database: Database,
    store: Store,
    pools: LabelingPools,
    *,
    settings: Settings,
    name: str,
    dataset_name: str | None,
    call: IdempotentRequest,
) -> tuple[Dataset, bool]:
    """Store the labels so far as the next version of a dataset.

    Returns (dataset, whether it is new). Raises `LabelingProjectNotFound`,
    `LabelingDatasetDeleted`, `NothingLabeled`, `TooFewDistinctLabels`, and what
    `datasets.service.create_dataset` raises.
    """
    with database.read() as session:
        opened = service.get_project_with_dataset_and_job(session, name)
        project = opened.project
        stored = repository.read_labels(session, project.id)
        forgotten = privacy.list_forgotten_hashes(session)
    labels = resolve_labels(stored, project.task)  # type: ignore[arg-type]  # one of these
    if not labels:
        raise NothingLabeled(name=name)
    if len({each.value for each in labels}) == 1:
        raise TooFewDistinctLabels(
            name=name, label=json.dumps(labels[0].json_value, ensure_ascii=False)
        )
    pool = service.open_pool(pools, opened)
    paired = opened.dataset.text_pair_column is not None
    in_test = select_test_rows(labels)
    directory = files.create_temporary_upload_dir(settings)
    try:
        upload = _write_file(
            directory / "file.jsonl",
            _records(pool, labels, in_test, paired=paired),
            filename=f"{dataset_name or name}.jsonl",
        )
        fields = UploadFields(
            name=dataset_name or name,
            text_pair_column="text_pair" if paired else None,
            task=project.task,  # type: ignore[arg-type]
            ordered=project.ordered,
            split_column="split" if in_test else None,
        )
        return datasets.create_dataset(
            database,
            store,
            settings=settings,
            upload=upload,
            fields=fields,
            call=call,
            forgotten=forgotten,
        )
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def select_test_rows(labels: Iterable[ResolvedLabel]) -> frozenset[int]:
    """Return the rows of the test split: the texts drawn at random, if there are enough of them.

    Texts with a label that only texts drawn at random have are not among them, since training has
    to see it. If most texts were drawn at random, there are none: training draws from all texts.
    """
    labels = list(labels)
    seen = {name for each in labels if not each.is_random for name in _names(each.value)}
    rows = frozenset(
        each.row for each in labels if each.is_random and seen.issuperset(_names(each.value))
    )
    is_enough = len(rows) >= MIN_TEST_TEXTS
    enough_others = sum(each.is_random for each in labels) <= MAX_RANDOM_SHARE * len(labels)
    return rows if is_enough and enough_others else frozenset()


def _names(value: LabelValue) -> frozenset[str]:
    if isinstance(value, float):
        return frozenset()
    return frozenset([value]) if isinstance(value, str) else value


def _records(
    pool: Pool, labels: Iterable[ResolvedLabel], in_test: frozenset[int], *, paired: bool
) -> Iterator[dict[str, Any]]:
    for each in labels:
        index = pool.texts.find_index_of_row(each.row)
        if index is None:
            continue
        text = pool.texts[index]
        split = Split.TEST if each.row in in_test else Split.TRAIN
        yield {
            "text": text.text,
            **({"text_pair": text.text_pair} if paired else {}),
            "label": each.json_value,
            "annotators": ", ".join(each.annotators),
            **({"split": split.value} if in_test else {}),
        }


def _write_file(path: Path, records: Iterable[dict[str, Any]], *, filename: str) -> Upload:
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for record in records:
            line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
            digest.update(line)
            size += file.write(line)
    return Upload(path, filename, digest.hexdigest(), size, {})
