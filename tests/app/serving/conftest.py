"""Tiny models, registered and promoted."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry

from app.registry import service
from app.resources import Resources
from app.serving.loaded_model import Deployment
from app.serving.metrics import ServingMeters
from app.serving.model_pool import Pool
from app.storage import repository
from tests.app.serving.stub import Loader
from tests.job_rows import FACTS
from tests.tiny_artifact import make_artifact

Publish = Callable[..., Path]


def open_pool(resources: Resources, loader: Loader, *, most: int) -> Pool:
    """Of stubs, which are deployed as they are."""
    settings = resources.settings.model_copy(update={"max_loaded_bytes": most})
    return Pool(
        resources=replace(resources, settings=settings),
        load=loader,
        deploy=lambda ref, predictor: Deployment(ref, predictor, None, None),  # type: ignore[arg-type]
        meters=ServingMeters(CollectorRegistry()),
    )


@pytest.fixture
def publish(resources: Resources, tmp_path: Path) -> Publish:
    """Makes a model, registers it as the next version, promotes it; gives its stored directory.

    `imported`: without a job, and without the checks of an import, as it may lie there from before.
    """

    def make(
        name: str = "sentiment",
        *,
        promote: bool = True,
        favours: str = "good",
        before: Callable[[Path], None] | None = None,
        made: Path | None = None,
        imported: bool = False,
        facts: Mapping[str, Any] | None = None,
    ) -> Path:
        job = uuid4()
        directory = made or make_artifact(tmp_path / job.hex, favours=favours)
        if before is not None:
            before(directory)  # it is stored
        key = f"imports/{job}" if imported else f"jobs/{job}/a1"
        ref = resources.store.put(directory, key)
        with resources.database.write() as session:
            artifact = repository.add(
                session, job_id=None if imported else job, kind="model", ref=ref
            )
            version = service.register(session, name=name, artifact=artifact, facts=facts or FACTS)
            session.commit()
        if promote:
            service.move_alias(
                resources.database,
                name=name,
                alias="production",
                number=version.number,
            )
        return resources.store.path(ref)

    return make
