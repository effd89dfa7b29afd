"""Fixtures: stored artifacts of jobs, ready to be registered."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.registry.service import ResolvedModel
from app.resources import Resources
from app.storage import repository
from app.storage.tables import Artifact
from lora_core import manifest
from lora_core.specs.method import LoraSpec
from lora_core.specs.train import TrainSpec

METRICS = {"validation": {"accuracy": 0.8}}


@pytest.fixture
def client(app: FastAPI, client: TestClient) -> TestClient:
    """A client of an app that accepts every version: the artifacts here are not models."""

    async def accept(_: ResolvedModel) -> None:
        pass

    app.state.check_servable = accept
    return client


@pytest.fixture
def finished(resources: Resources, tmp_path: Path) -> Callable[[], Artifact]:
    """Create the artifact of a new job."""

    def make() -> Artifact:
        job: UUID = uuid4()
        directory = tmp_path / job.hex
        directory.mkdir()
        (directory / "weights").write_text(job.hex)
        spec = TrainSpec(method=LoraSpec()).model_dump(mode="json")
        manifest.create_and_save(directory, {"format": 1, "spec": spec, "metrics": METRICS})
        ref = resources.store.move_directory_into_store(directory, f"jobs/{job}/a1")
        with resources.database.write() as session:
            artifact = repository.add_artifact(session, job_id=job, kind="model", ref=ref)
        return artifact

    return make
