"""Tiny models, registered and promoted."""

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from app.artifacts import repository
from app.registry import service
from app.resources import Resources
from tests.tiny_artifact import make_artifact

Publish = Callable[..., Path]


@pytest.fixture
def publish(resources: Resources, tmp_path: Path) -> Publish:
    """Makes a model, registers it as the next version, promotes it; gives its stored directory."""

    def make(name: str = "sentiment", *, promote: bool = True, favours: str = "good") -> Path:
        job = uuid4()
        ref = resources.store.put(
            make_artifact(tmp_path / job.hex, favours=favours), f"jobs/{job}/a1"
        )
        with resources.database.write() as session:
            artifact = repository.add(session, job_id=job, kind="model", ref=ref)
            version = service.register(
                session,
                name=name,
                artifact_id=artifact.id,
                job_id=job,
                base="minilm-l6",
                method="lora",
                metrics={},
            )
            session.commit()
        if promote:
            service.move_alias(
                resources.database,
                store=resources.store,
                name=name,
                alias="production",
                number=version.number,
            )
        return resources.store.path(ref)

    return make
