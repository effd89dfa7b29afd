"""Fixtures: tiny models, registered and promoted."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry

from app.registry import service
from app.resources import Resources
from app.serving.metrics import ServingMetrics
from app.serving.model_pool import ModelPool
from app.storage.store import verify_and_assemble_artifact
from tests.app.serving.stub import StubLoader
from tests.job_rows import MANIFEST
from tests.stored_artifact import store_artifact
from tests.tiny_artifact import make_artifact

Publish = Callable[..., Path]
RecordThreads = Callable[[object, str], list[str]]


def open_pool(resources: Resources, loader: StubLoader, *, max_bytes: int) -> ModelPool:
    """Return a pool of stubs, which have no batcher."""
    settings = resources.settings.model_copy(update={"max_loaded_bytes": max_bytes})
    return ModelPool(
        resources=replace(resources, settings=settings),
        load_encoder=loader,  # type: ignore[arg-type]
        batcher=None,  # type: ignore[arg-type]
        executor=None,  # type: ignore[arg-type]
        metrics=ServingMetrics(CollectorRegistry()),
    )


@pytest.fixture
def publish(resources: Resources, tmp_path: Path) -> Publish:
    """Makes a model, registers it as the next version and promotes it; returns its directory, or a
    complete copy if its base is apart.

    `modify` changes the artifact before it is stored. `imported`: without a job and without the
    import checks, like a version that was imported before the checks existed.
    """

    def publish(
        name: str = "sentiment",
        *,
        promote: bool = True,
        top_label: str = "good",
        modify: Callable[[Path], None] | None = None,
        artifact: Path | None = None,
        imported: bool = False,
        manifest: Mapping[str, Any] | None = None,
    ) -> Path:
        job = uuid4()
        directory = artifact or make_artifact(tmp_path / job.hex, top_label=top_label)
        if modify is not None:
            modify(directory)
        key = f"imports/{job}" if imported else f"jobs/{job}/a1"
        stored = store_artifact(resources, directory, key, job_id=None if imported else job)
        with resources.database.write() as session:
            version = service.add_version(
                session, name=name, artifact=stored, manifest=manifest or MANIFEST
            )
            if promote:
                service.move_alias(session, name=name, alias="production", number=version.number)
        if stored.ref.base is None:
            return resources.store.local_directory(stored.ref)
        complete = tmp_path / f"{job.hex}-complete"
        return verify_and_assemble_artifact(resources.store, stored.ref, complete, name=name)

    return publish


@pytest.fixture
def record_threads(monkeypatch: pytest.MonkeyPatch) -> RecordThreads:
    """Records the names of the threads in which a function of an object or a module runs."""

    def record(owner: Any, name: str) -> list[str]:
        original, threads = getattr(owner, name), list[str]()

        def recording(*args: Any, **named: Any) -> Any:
            threads.append(threading.current_thread().name)
            return original(*args, **named)

        monkeypatch.setattr(owner, name, recording)
        return threads

    return record
