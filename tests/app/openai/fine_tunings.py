"""Files for fine-tuning jobs, and jobs that end without a training."""

import json
from uuid import UUID

from openai import OpenAI

from app.database.engines import Database
from app.openai import ids
from app.queue.enums import DeviceClass
from app.queue.transitions import Succeeded
from app.registry import service as registry
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef
from app.storage.tables import MODEL_KIND
from tests.app.jobs.fake_worker import FakeWorker
from tests.job_rows import MANIFEST

SUMMARY = {
    "best_step": 2,
    "steps": 2,
    "tokens_per_second": 100.0,
    "train_seconds": 2.5,
    "train": {"loss": 0.5, "accuracy": 0.9},
    "validation": {"loss": 0.25, "accuracy": 0.8},
}


def examples(rows: int = 20, labels: tuple[str, ...] = ("good", "bad")) -> bytes:
    lines = [
        {
            "messages": [
                {"role": "system", "content": "Rate the film."},
                {"role": "user", "content": f"film {i} was {labels[i % len(labels)]}"},
                {"role": "assistant", "content": labels[i % len(labels)]},
            ]
        }
        for i in range(rows)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def upload_examples(client: OpenAI, filename: str = "films.jsonl", rows: int = 20) -> str:
    """Upload a file; returns its id. Different names are different datasets."""
    return client.files.create(file=(filename, examples(rows)), purpose="fine-tune").id


def row_id(job_id: str) -> UUID:
    found = ids.parse_job_id(job_id)
    assert found is not None
    return found


def finish(database: Database, job_id: str) -> None:
    """Let the job succeed, as the next in the queue, with two points and a registered model."""
    worker = FakeWorker(database)
    claimed = worker.claim(DeviceClass.CPU)
    assert claimed.lease.job_id == row_id(job_id)
    worker.log(claimed.lease, step=1, points={"loss": 0.75})
    worker.log(claimed.lease, step=2, points={"grad_norm": 1.0})
    with database.write() as session:
        ref = ArtifactRef(f"models/{claimed.lease.job_id}", "0" * 64, bytes=1)
        artifact = artifacts.add_artifact(
            session, job_id=claimed.lease.job_id, kind=MODEL_KIND, ref=ref
        )
        registry.add_version(session, name="films", artifact=artifact, manifest=MANIFEST)
        artifact_id = artifact.id
    worker.finish(claimed.lease, Succeeded(artifact_id, SUMMARY))
