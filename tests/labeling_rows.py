"""Pools of texts with vectors, and a labeling project on them."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import httpx2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from starlette.testclient import TestClient

from app.auth.tables import LOCAL_KEY_ID
from app.datasets.tables import Dataset
from app.labeling import repository
from app.labeling.repository import NewChosenText
from app.labeling.schemas import ChosenTextReason
from app.labeling.tables import LabelingAnnotation
from app.privacy import repository as privacy
from app.privacy.text_hashes import TextHasher
from app.queue import leases
from app.queue.transitions import Succeeded
from app.resources import Resources
from app.storage import repository as artifacts
from app.storage.tables import VECTORS_KIND
from lora_core import manifest
from lora_core.specs.embed import VECTORS, VECTORS_FILE
from lora_core.specs.text_input import TextInput
from tests.job_rows import claim_next
from tests.prediction_rows import add_texts

Client = TestClient | httpx2.Client
WIDTH = 8


def make_pool(
    resources: Resources, directory: Path, *, texts: int = 60, name: str = "reviews"
) -> Dataset:
    """Insert an uploaded file of texts without labels; text i is good if i is even, else bad."""
    file = directory / f"{name}.csv"
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([["body"], *([text_of(row)] for row in range(1, texts + 1))])
    return add_texts(resources, file, rows=texts, name=name)


def text_of(row: int) -> str:
    return f"review {row}, “{label_of(row)}”"


def label_of(row: int) -> str:
    return "good" if row % 2 == 0 else "bad"


def vectors_of(texts: int) -> NDArray[np.float32]:
    """Vectors that tell good from bad."""
    noise = np.random.default_rng(0).normal(size=(texts, WIDTH)).astype(np.float32)
    noise[:, 0] += np.where(np.arange(1, texts + 1) % 2 == 0, 4, -4)
    return noise


def store_vectors(resources: Resources, directory: Path, vectors: NDArray[np.float32]) -> UUID:
    """Claim the job that computes vectors, and finish it with these."""
    claimed = claim_next(resources.database)
    directory.mkdir()
    save_file({VECTORS: vectors}, directory / VECTORS_FILE)
    summary = {"rows": len(vectors), "cut": 0, "width": vectors.shape[1]}
    manifest.create_and_save(directory, {"format": 1, "metrics": summary})
    job_id = claimed.lease.job_id
    ref = resources.store.move_directory_into_store(
        directory, f"vectors/{job_id}/a{claimed.lease.attempt}"
    )
    with resources.database.write() as session:
        artifact = artifacts.add_artifact(session, job_id=job_id, kind=VECTORS_KIND, ref=ref)
        leases.finish_attempt(session, claimed.lease, Succeeded(artifact.id, summary))
    return job_id


def create_project(client: Client, name: str = "mood", **body: Any) -> dict[str, Any]:
    """Create a labeling project, by default on `reviews` with the labels bad and good."""
    fields = {"name": name, "dataset": "reviews", "labels": ["bad", "good"], **body}
    response = client.post("/v1/labeling", json=fields)
    assert response.status_code == 201, response.text
    project: dict[str, Any] = response.json()
    return project


def next_rows(client: TestClient, count: int = 1, name: str = "mood", **body: Any) -> list[int]:
    """Lease texts; return their rows."""
    response = client.post(f"/v1/labeling/{name}/next", json={"count": count, **body})
    assert response.status_code == 200, response.text
    return [each["row"] for each in response.json()["texts"]]


def put(client: Client, row: int, name: str = "mood", **body: Any) -> dict[str, Any]:
    """Label a text, by default as it is."""
    if not body.keys() & {"label", "labels", "value", "skipped"}:
        body["label"] = label_of(row)
    response = client.put(f"/v1/labeling/{name}/texts/{row}", json=body)
    assert response.status_code == 200, response.text
    annotation: dict[str, Any] = response.json()
    return annotation


def label_next(client: TestClient, count: int, name: str = "mood") -> None:
    """Label texts one after the other, with the labels that they have."""
    for _ in range(count):
        [row] = next_rows(client, name=name)
        put(client, row, name=name)


class LabeledRow(NamedTuple):
    """A text that was chosen and labeled."""

    row: int
    value: Any  # None: skipped
    reason: ChosenTextReason = ChosenTextReason.RANDOM
    annotator: str = "local"


def add_labels(resources: Resources, labels: Iterable[LabeledRow], name: str = "mood") -> None:
    """Insert labels at once."""
    hasher = TextHasher.from_settings(resources.settings)
    with resources.database.write() as session:
        project = repository.lock_project(session, name)
        for each in labels:
            if repository.find_chosen_text(session, project.id, each.row) is None:
                hashes = hasher.hash_input(text_of(each.row))
                choice = NewChosenText(each.row, each.reason, hashes, 0)
                repository.add_chosen_texts(session, project, [choice])
            session.add(
                LabelingAnnotation(
                    project_id=project.id, row=each.row, annotator=each.annotator,
                    created_by=LOCAL_KEY_ID, value=each.value, reason=each.reason,
                )
            )  # fmt: skip
            project.changes += 1


def read_jsonl(content: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.splitlines()]


def forget(resources: Resources, text: TextInput) -> int:
    """Forget a text; return how many annotations of it there were."""
    hashes = [TextHasher.from_settings(resources.settings).hash_input(text).whole]
    with resources.database.write() as session:
        privacy.lock_text_storage(session)
        privacy.add_forgotten_hashes(session, hashes)
        return repository.forget_texts_by_hashes(session, hashes)
