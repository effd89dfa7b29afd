"""Fixtures: an empty store of both kinds, and a stored artifact."""

from pathlib import Path
from uuid import UUID

import pytest

from app.resources import Resources, open_store
from app.settings import Settings
from app.storage import repository
from app.storage.store import Store
from app.storage.tables import Artifact
from lora_core import manifest
from tests.s3_server import S3Server

JOB = UUID(int=7)
FILES = {
    "merged/config.json": b"{}",
    "merged/model.safetensors": bytes(range(256)) * 5000,  # more than one chunk
    "golden.json": b"[1]",
}


@pytest.fixture
def artifact(resources: Resources, tmp_path: Path) -> Artifact:
    directory = tmp_path / "out"
    for name, content in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    manifest.create_and_save(directory, {"format": 1, "metrics": {"accuracy": 0.8}})
    ref = resources.store.move_directory_into_store(directory, f"jobs/{JOB}/a1")
    with resources.database.write() as session:
        made = repository.add_artifact(session, job_id=JOB, kind="model", ref=ref)
    return made


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket, accessible to this process and its children."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3.new_bucket()


@pytest.fixture(params=["local", "s3"])
def store_settings(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Settings with an empty store, also set in the environment for child processes."""
    monkeypatch.setenv("LORAWORKS_DATA_DIR", str(tmp_path / "data"))
    if request.param == "s3":
        name = request.getfixturevalue("bucket")
        monkeypatch.setenv("LORAWORKS_STORE_URL", f"s3://{name}/some/where")
    return Settings()


@pytest.fixture
def store(store_settings: Settings) -> Store:
    """A store of both kinds."""
    return open_store(store_settings)
