"""Fixtures: rows and files of any age, as services and workers leave them."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.database.base import min_uuid7_at
from app.queue.enums import JobKind, JobState
from app.queue.tables import Checkpoint, Job
from app.registry import service as registry
from app.resources import Resources
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef
from app.storage.tables import Artifact
from tests.app.storage.stores import made
from tests.job_rows import MANIFEST, add_job, update_job
from tests.slow import MOSTLY_SQLITE

DAY = 86_400.0


@pytest.fixture(params=MOSTLY_SQLITE)
def database_kind(request: pytest.FixtureRequest) -> str:
    """A few tests run on both databases."""
    kind: str = request.param
    return kind


class World:
    """Creates rows and files, and lists those that are left."""

    def __init__(self, resources: Resources, scratch: Path) -> None:
        self.resources = resources
        self.database = resources.database
        self.settings = resources.settings
        self.scratch = scratch

    def job(
        self, state: JobState = JobState.SUCCEEDED, *, days: float = 0.0, **changes: Any
    ) -> UUID:
        """Create a job that ended this many days ago, or is running or queued."""
        at = time.time() - days * DAY
        times = {"finished_at": at} if state.final else {}
        running = {"worker": "w"} if state == JobState.RUNNING else {}
        job_id = UUID(int=min_uuid7_at(at - 60).int | uuid4().int & 0xFFFF_FFFF)
        return add_job(
            self.database, id=job_id, state=state, attempt=1, **times, **running, **changes
        )

    def files(self, key: str, *, days: float = 2.0) -> ArtifactRef:
        """Store a directory without a row."""
        ref = self.resources.store.move_directory_into_store(
            made(self.scratch / uuid4().hex, key), key
        )
        self.age(key, days)
        return ref

    def base(self) -> Artifact:
        """Store a base of models, with its row."""
        ref = self.files(f"bases/{uuid4()}/a1")
        with self.database.write() as session:
            return artifacts.ensure_base_artifact(session, ref)

    def model(self, job_id: UUID, *, days: float = 2.0, base: Artifact | None = None) -> Artifact:
        """Store a model of a job, with its row."""
        ref = self.files(f"jobs/{job_id}/a1", days=days)
        with self.database.write() as session:
            artifact = artifacts.add_artifact(
                session, job_id=job_id, kind="model", ref=ref, base=base
            )
        update_job(self.database, job_id, artifact_id=artifact.id)
        return artifact

    def results(self, *, days: float) -> UUID:
        """Create a prediction run that ended this many days ago, with its results."""
        run_id = self.job(days=days)
        ref = self.files(f"predictions/{run_id}/a1", days=days)
        with self.database.write() as session:
            artifact = artifacts.add_artifact(session, job_id=run_id, kind="results", ref=ref)
        update_job(self.database, run_id, artifact_id=artifact.id, kind=JobKind.PREDICTION)
        return run_id

    def version(self, artifact: Artifact) -> None:
        """Register the artifact as a version."""
        with self.database.write() as session:
            registry.add_version(session, name="sentiment", artifact=artifact, manifest=MANIFEST)

    def checkpoint(self, job_id: UUID, *, step: int = 1, days: float = 2.0) -> str:
        """Store a checkpoint with its row, and return its key."""
        ref = self.files(f"checkpoints/{job_id}/a1/step-{step}", days=days)
        row = Checkpoint(
            job_id=job_id,
            attempt=1,
            step=step,
            seq=step,
            key=ref.key,
            manifest_sha256=ref.manifest_sha256,
            bytes=ref.bytes,
        )
        with self.database.write() as session:
            session.add(row)
        return ref.key

    def age(self, key: str, days: float) -> None:
        """Set the age of a key's files."""
        at = time.time() - days * DAY
        place = self.settings.artifacts_dir / key
        for path in (place, *place.rglob("*")):
            os.utime(path, (at, at))

    def left(self) -> set[str]:
        """Return the keys of the directories with a manifest, and of the uploads."""
        names = {file.name for file in self.resources.store.list_files()}
        return {name.removesuffix("/manifest.json") for name in names if "merged/" not in name} - {
            name for name in names if name.endswith("é.json")
        }

    def row(self, job_id: UUID) -> Job:
        with self.database.read() as session:
            return session.get_one(Job, job_id)


@pytest.fixture
def world(resources: Resources, tmp_path: Path) -> World:
    return World(resources, tmp_path / "scratch")


@pytest.fixture
def keeping(world: World) -> Callable[..., Resources]:
    """Returns the resources with other settings: `keeping(keep_artifact_days=3)`."""
    base = world.resources

    def make(**changes: Any) -> Resources:
        settings: Settings = base.settings.model_copy(update=changes)
        return Resources(settings, base.database, base.store, base.notifier)

    return make
