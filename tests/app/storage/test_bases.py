"""A base is stored once for all models that use it."""

import io
import json
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from app.resources import Resources
from app.retention.expiry import UnusedBaseExpiry
from app.retention.service import collect_garbage
from app.storage.repository import delete_unused_artifacts
from app.storage.staged_artifact import StagedArtifact
from app.storage.store import ArtifactRef, verify_and_assemble_artifact, verify_artifact
from app.storage.tables import BASE_KIND, MODEL_KIND, Artifact
from lora_core import manifest
from lora_core.artifact_base_sharing import BASE_DIGEST
from lora_core.errors.artifact import ArtifactCorrupt
from tests.slow import MOSTLY_SQLITE, on_both_databases
from tests.stored_artifact import store_artifact

BASE = {
    "base/config.json": b'{"model_type": "bert"}',
    "base/model.safetensors": bytes(range(256)) * 5000,  # more than one chunk
    "base/tokenizer.json": b"[]",
}
Publish = Callable[..., Artifact]


@pytest.fixture(params=MOSTLY_SQLITE)
def database_kind(request: pytest.FixtureRequest) -> str:
    """Some tests run on both databases."""
    kind: str = request.param
    return kind


def make(directory: Path, number: int, **base: bytes) -> Path:
    """Make an artifact with its own adapter."""
    contents = {**BASE, **base, "adapter.safetensors": bytes([number]), "classifier.json": b"{}"}
    for name, content in contents.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    manifest.create_and_save(directory, {"format": 2, "metrics": {}})
    return directory


@pytest.fixture
def publish(resources: Resources, tmp_path: Path) -> Publish:
    """Stores the model of a job."""

    def publish(number: int, **base: bytes) -> Artifact:
        job = UUID(int=number)
        made = make(tmp_path / f"out-{uuid4()}", number, **base)
        return store_artifact(resources, made, f"jobs/{job}/a1", job_id=job)

    return publish


def base_rows(resources: Resources) -> list[Artifact]:
    with resources.database.read() as session:
        rows = session.scalars(select(Artifact).where(Artifact.kind == BASE_KIND)).unique()
        return list(rows)


def stored_bases(resources: Resources) -> set[str]:
    """Return the keys of all bases in the store, with or without a row."""
    names = (file.name for file in resources.store.list_files())
    suffix = f"/{manifest.MANIFEST_FILE}"
    return {name.removesuffix(suffix) for name in names
            if name.startswith("bases/") and name.endswith(suffix)}  # fmt: skip


def test_models_with_the_same_base_store_it_once(resources: Resources, publish: Publish) -> None:
    models = [publish(number) for number in (1, 2, 3)]
    other = publish(4, **{"base/tokenizer.json": b"[1]"})
    assert {model.base_id for model in models} != {other.base_id}
    assert len(base_rows(resources)) == len(stored_bases(resources)) == 2
    for number, model in enumerate(models, start=1):
        ref = model.ref
        assert ref.base is not None
        assert ref.base.key == f"bases/{UUID(int=1)}/a1"
        directory = verify_artifact(resources.store, ref, name="x")
        facts = manifest.read(directory)
        assert facts["files"].keys() == {"adapter.safetensors", "classifier.json"}
        assert facts[BASE_DIGEST] == ref.base.manifest_sha256
        assert (directory / "adapter.safetensors").read_bytes() == bytes([number])
        assert ref.bytes < 2_000 < len(BASE["base/model.safetensors"]) < ref.base.bytes


def test_claimed_digest_is_not_believed(resources: Resources, tmp_path: Path) -> None:
    """A manifest that lists the base of others must match its own files."""
    made = make(tmp_path / "made", 1)
    (made / "base" / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(ArtifactCorrupt, match="base/ has changed"):
        store_artifact(resources, made, f"jobs/{UUID(int=1)}/a1", job_id=UUID(int=1))


@on_both_databases
def test_two_jobs_may_store_the_same_base_at_once(
    resources: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find no base and store its files. One adds the row; the other copy is deleted."""
    missed, put = threading.Barrier(2, timeout=20), resources.store.move_directory_into_store

    def put_after_both_missed(directory: Path, key: str) -> ArtifactRef:
        if key.startswith("bases/"):
            missed.wait()
        return put(directory, key)

    monkeypatch.setattr(resources.store, "move_directory_into_store", put_after_both_missed)

    def store(number: int) -> None:
        job = UUID(int=number)
        made = make(tmp_path / str(number), number)
        store_artifact(resources, made, f"jobs/{job}/a1", job_id=job)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(store, (1, 2)))
    [base] = base_rows(resources)
    assert stored_bases(resources) == {base.key}
    with resources.database.read() as session:
        models = select(Artifact).where(Artifact.kind == MODEL_KIND)
        assert [model.base_id for model in session.scalars(models).unique()] == [base.id] * 2


def test_base_is_removed_with_garbage_collection_after_its_last_model(
    resources: Resources, publish: Publish
) -> None:
    first, second = publish(1), publish(2)
    for model in (first, second):
        assert collect_garbage(resources).removals == ()
        assert len(stored_bases(resources)) == 1
        with resources.database.write() as session:
            delete_unused_artifacts(session, resources.store, [model.id])
    [dry] = collect_garbage(resources, dry_run=True).removals
    assert len(base_rows(resources)) == 1
    [removal] = collect_garbage(resources).removals
    assert (dry.key, dry.bytes, dry.kind) == (removal.key, removal.bytes, removal.kind)
    assert (removal.kind, removal.reason) == ("base", "no model uses it")
    assert base_rows(resources) == []
    assert stored_bases(resources) == set()


@on_both_databases
def test_base_removed_before_it_is_needed_is_stored_again(
    resources: Resources, publish: Publish
) -> None:
    first = publish(1)
    with resources.database.write() as session:
        delete_unused_artifacts(session, resources.store, [first.id])
    collect_garbage(resources)
    assert publish(2).ref.base is not None
    assert stored_bases(resources) == {f"bases/{UUID(int=2)}/a1"}


@on_both_databases
def test_base_is_not_removed_while_a_model_is_being_added(
    resources: Resources, publish: Publish, tmp_path: Path
) -> None:
    """Between finding the row of the base and the commit, garbage collection waits or skips it."""
    first = publish(1)
    with resources.database.write() as session:
        delete_unused_artifacts(session, resources.store, [first.id])
    [base_row] = base_rows(resources)
    new = StagedArtifact(resources.store, make(tmp_path / "made", 2), f"jobs/{UUID(int=2)}/a1")
    removed: list[object] = []

    def remove() -> None:
        with resources.database.write() as session:
            removed.extend(UnusedBaseExpiry().delete_expired_rows(session, [base_row.id]))

    remover = threading.Thread(target=remove)
    with resources.database.write() as session:
        new.add_row(session, job_id=None, kind=MODEL_KIND)
        remover.start()
        if resources.database.write_engine.name == "postgresql":
            remover.join(20)  # it skips the locked row; SQLite waits for the writer
            assert not remover.is_alive()
    remover.join(20)
    assert removed == []
    assert len(base_rows(resources)) == len(stored_bases(resources)) == 1


def test_complete_artifact_is_restored(
    resources: Resources, publish: Publish, tmp_path: Path
) -> None:
    target = tmp_path / "deep" / "restored"
    assert verify_and_assemble_artifact(resources.store, publish(5).ref, target, name="x") == target
    assert manifest.verify(target)["files"].keys() >= BASE.keys()
    assert (target / "adapter.safetensors").read_bytes() == bytes([5])


# -- Readers see one artifact with its base ------------------------------------------------------


def test_manifest_and_files_include_the_base(client: TestClient, publish: Publish) -> None:
    model = publish(1)
    url = f"/v1/artifacts/{model.id}"
    facts = client.get(url).json()
    assert facts["files"].keys() == {*BASE, "adapter.safetensors", "classifier.json"}
    assert BASE_DIGEST not in facts
    for name, content in BASE.items():
        response = client.get(f"{url}/files/{name}")
        assert (response.status_code, response.content) == (200, content)
    for name in ("base", "base/manifest.json", "base/../adapter.safetensors", "config.json"):
        assert client.get(f"{url}/files/{name.replace('..', '%2e%2e')}").status_code == 404
    assert client.get(f"{url}/files/manifest.json").json() == facts
    assert client.get(f"/v1/artifacts/{model.base_id}").status_code == 404


def test_archive_is_complete(client: TestClient, publish: Publish, tmp_path: Path) -> None:
    model = publish(1)
    response = client.get(f"/v1/artifacts/{model.id}/archive")
    with tarfile.open(fileobj=io.BytesIO(response.content)) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    directory = tmp_path / "unpacked" / str(model.id)
    assert manifest.verify(directory)["files"].keys() >= BASE.keys()
    listed = json.loads((directory / "manifest.json").read_text())
    assert listed == client.get(f"/v1/artifacts/{model.id}").json()
