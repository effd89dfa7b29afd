"""One stored artifact."""

from pathlib import Path
from uuid import UUID

import pytest

from app.artifacts import repository
from app.artifacts.tables import Artifact
from app.resources import Resources
from lora_core import manifest

JOB = UUID(int=7)
FILES = {
    "merged/config.json": b"{}",
    "merged/model.safetensors": bytes(range(256)) * 5000,  # more than one piece of a stream
    "golden.json": b"[1]",
}


@pytest.fixture
def artifact(resources: Resources, tmp_path: Path) -> Artifact:
    directory = tmp_path / "out"
    for name, content in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    manifest.write(directory, {"format": 1, "metrics": {"accuracy": 0.8}})
    ref = resources.store.put(directory, f"jobs/{JOB}/a1")
    with resources.database.write() as session:
        made = repository.add(session, job_id=JOB, kind="model", ref=ref)
        session.commit()
    return made
