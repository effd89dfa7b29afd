"""Insert what a prediction run needs: a model version, an uploaded file, the row itself."""

import hashlib
import shutil
from pathlib import Path
from typing import Any
from uuid import UUID

from app.auth.tables import LOCAL_KEY_ID
from app.database.base import new_id
from app.datasets import files
from app.datasets.tables import Dataset
from app.idempotency.service import IdempotentRequest
from app.predictions import service
from app.predictions.schemas import PredictionRunCreate
from app.registry import repository as versions
from app.registry import service as registry
from app.resources import Resources
from app.storage import repository as artifacts
from app.storage.tables import MODEL_KIND
from tests.job_rows import MANIFEST

CALL = IdempotentRequest(LOCAL_KEY_ID, "POST /v1/predictions", None, "0" * 64, 60)


def add_model(resources: Resources, directory: Path, name: str = "sentiment") -> str:
    """Register a directory as the next version of a name, in production; return its reference."""
    job_id = new_id()
    ref = resources.store.move_directory_into_store(directory, f"jobs/{job_id}/a1")
    with resources.database.write() as session:
        artifact = artifacts.add_artifact(session, job_id=job_id, kind=MODEL_KIND, ref=ref)
        version = registry.add_version(session, name=name, artifact=artifact, manifest=MANIFEST)
        versions.move_alias(
            session, model_id=version.model_id, alias="production", version_id=version.id
        )
    return f"{name}:{version.number}"


def add_texts(
    resources: Resources, file: Path, *, rows: int, name: str = "texts", column: str = "body"
) -> Dataset:
    """Insert an uploaded file without labels."""
    dataset = Dataset(
        id=new_id(), created_by=LOCAL_KEY_ID, name=name, version=1, filename=file.name,
        suffix=file.suffix, sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        bytes=file.stat().st_size, text_column=column, label_column=None, rows=rows,
        profile={"rows": rows, "labels": {}, "split_column": None},
    )  # fmt: skip
    copy = Path(shutil.copy(file, file.with_name(f"copy-{file.name}")))
    resources.store.move_file_into_store(copy, files.store_key(dataset))
    with resources.database.write() as session:
        session.add(dataset)
    return dataset


def create_run(resources: Resources, **body: Any) -> UUID:
    """Create a prediction run."""
    with resources.database.write() as session:
        made = PredictionRunCreate.model_validate({"dataset": "texts", **body})
        run = service.create_run(
            session, body=made, settings=resources.settings, notifier=resources.notifier, call=CALL
        )
    return run.id
