"""Registry functions that other packages use."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from app.database.engines import Database
from app.registry import service
from app.registry.errors import ModelNotFound, NoModelPromoted, SeveralModelsInProduction
from app.registry.model_io_schemas import read_io_schema
from app.registry.service import ResolvedModel
from app.resources import Resources
from app.storage.errors import StoredArtifactCorrupt
from app.storage.tables import Artifact
from lora_core import manifest
from tests.job_rows import MANIFEST

Finished = Callable[[], Artifact]


def add(database: Database, artifact: Artifact, name: str = "sentiment") -> int:
    with database.write() as session:
        version = service.add_version(session, name=name, artifact=artifact, manifest=MANIFEST)
    return version.number


def promote(resources: Resources, number: int, name: str = "sentiment") -> None:
    with resources.database.write() as session:
        service.move_alias(session, name=name, alias="production", number=number)


def test_register_is_part_of_the_transaction(database: Database, finished: Finished) -> None:
    artifact = finished()
    with database.write() as session:
        service.add_version(session, name="lost", artifact=artifact, manifest=MANIFEST)
        session.rollback()
    with database.read() as session, pytest.raises(ModelNotFound):
        service.resolve_model(session, "lost:1")
    assert add(database, artifact, "lost") == 1


def test_resolve_returns_the_version_and_its_files(
    resources: Resources, database: Database, finished: Finished
) -> None:
    artifacts = [finished(), finished()]
    for artifact in artifacts:
        add(database, artifact)
    promote(resources, 2)
    with database.read() as session:
        found = service.resolve_model(session, "sentiment")
        assert (found.ref, found.artifact) == ("sentiment:2", artifacts[1].ref)
        assert service.resolve_model(session, "sentiment@production") == found
        assert service.resolve_model(session, "sentiment:1").artifact == artifacts[0].ref
        for unknown in ("sentiment:3", "sentiment@staging", "other"):
            with pytest.raises(ModelNotFound):
                service.resolve_model(session, unknown)


def test_the_default_is_the_only_model_in_production(
    resources: Resources, database: Database, finished: Finished
) -> None:
    add(database, finished(), "a")
    add(database, finished(), "b")
    with database.read() as session, pytest.raises(NoModelPromoted):
        service.resolve_or_default(session, None)
    promote(resources, 1, "b")
    with database.read() as session:
        assert service.resolve_or_default(session, None).ref == "b:1"
    promote(resources, 1, "a")
    with database.read() as session, pytest.raises(SeveralModelsInProduction, match="a, b"):
        service.resolve_or_default(session, None)


def test_labels_that_the_config_of_an_import_leaves_out(
    resources: Resources, tmp_path: Path
) -> None:
    config = tmp_path / "model" / "merged" / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text("{}")
    manifest.create_and_save(tmp_path / "model", {"format": 1, "spec": {}})
    ref = resources.store.move_directory_into_store(tmp_path / "model", f"imports/{UUID(int=1)}")
    schema = read_io_schema(resources.store, ResolvedModel("new", 1, ref, imported=True))
    assert schema.targets[""].labels == ("LABEL_0", "LABEL_1")
    (resources.store.local_directory(ref) / "merged" / "config.json").write_text("[]")
    with pytest.raises(StoredArtifactCorrupt, match="model new:2"):
        read_io_schema(resources.store, ResolvedModel("new", 2, ref, imported=True))
