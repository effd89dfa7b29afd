"""A model that is sent becomes a version, or leaves nothing behind."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.auth import service as keys
from app.database.engines import Database
from app.main import create_app
from app.registry.tables import ModelVersion
from app.settings import Settings
from app.storage.tables import Artifact
from tests.app.test_audit import Told, told
from tests.hostile_archives import hostile_archive, packed, reseal
from tests.tiny_artifact import TEXTS, make_artifact

__all__ = ["told"]

pytestmark = pytest.mark.e2e

URL = "/v1/models/sentiment/versions/import"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return make_artifact(tmp_path / "made")


def send(client: TestClient, content: bytes, **headers: str) -> Response:
    return client.post(URL, files={"file": ("m.tar", content)}, headers=headers)


@pytest.fixture
def nothing_kept(database: Database, settings: Settings) -> Callable[[], None]:
    """Says that neither rows nor files are there."""

    def check() -> None:
        with database.read() as session:
            assert not session.scalar(select(func.count()).select_from(Artifact))
            assert not session.scalar(select(func.count()).select_from(ModelVersion))
        assert list(settings.data_dir.rglob("*.safetensors")) == []
        assert list((settings.datasets_dir / ".incoming").glob("*")) == []

    return check


def test_an_import_is_a_version_like_any_other_and_can_go_in_again(
    client: TestClient, made: Path
) -> None:
    answer = send(client, packed(made))
    assert answer.status_code == 201, answer.text
    version = answer.json()
    assert (version["ref"], version["job_id"]) == ("sentiment:1", None)
    assert (version["base"], version["method"]) == ("minilm-l6", "lora")
    assert version["metrics"]["validation"]["accuracy"] == 0.8
    assert client.get("/v1/models/sentiment").json()["versions"] == [version]
    said = client.get(f"/v1/artifacts/{version['artifact_id']}").json()
    assert said == json.loads((made / "manifest.json").read_text())
    moved = client.put("/v1/models/sentiment/aliases/production", json={"version": 1})
    assert moved.status_code == 200
    told = client.post("/predict", json={"inputs": list(TEXTS)})
    assert {answer[0]["label"] for answer in told.json()} == {"good"}
    archive = client.get(f"/v1/artifacts/{version['artifact_id']}/archive").content
    again = send(client, archive).json()
    assert again["ref"] == "sentiment:2"
    assert again["metrics"] == version["metrics"]


def attacked(name: str) -> Callable[[Path], bytes]:
    return lambda directory: hostile_archive(packed(directory), name)


def golden(directory: Path) -> bytes:
    rows = json.loads((directory / "golden.json").read_text())
    rows[0]["logits"][0] += 0.1
    (directory / "golden.json").write_text(json.dumps(rows))
    reseal(directory)
    return packed(directory)


def altered(directory: Path) -> bytes:
    (directory / "golden.json").write_text("[]")
    return packed(directory)


def outside(_: Path) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../../escaped.json"))
    return file.getvalue()


def kernel(directory: Path) -> bytes:
    path = directory / "merged" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"attn_implementation": "a/b"}))
    reseal(directory)
    return packed(directory)


HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "answers that do not come out": (golden, "golden_mismatch"),
    "a file that was changed": (altered, "artifact_corrupt"),
    "a way out": (outside, "archive_unsafe"),
    "a kernel of its own": (kernel, "artifact_unfit"),
    "no archive": (lambda _: b"x" * 3000, "archive_broken"),
    "half an archive": (lambda d: packed(d)[:5000], "archive_broken"),
    "an empty file": (lambda _: b"", "archive_broken"),
    "a letter that becomes 200,000": (attacked("a letter becomes 200,000"), "tokenizer_unfit"),
    "a temperature below zero": (attacked("a temperature below zero"), "artifact_unfit"),
    "a size that is a text": (attacked("a size that is a text"), "artifact_unfit"),
}


# Each costs a process; that each is found there is shown in tests/lora_core/imports.
FIRST = ("answers that do not come out", "a way out", "a letter that becomes 200,000")


@pytest.mark.parametrize(
    "what", [*FIRST, *(pytest.param(w, marks=pytest.mark.slow) for w in HOSTILE if w not in FIRST)]
)
def test_what_is_wrong_is_said_and_nothing_is_kept(
    what: str, client: TestClient, made: Path, nothing_kept: Callable[[], None]
) -> None:
    spoil, code = HOSTILE[what]
    answer = send(client, spoil(made))
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    assert str(made.parent) not in answer.text
    nothing_kept()
    assert client.get("/v1/models/sentiment").status_code == 404


@pytest.fixture
def stingy(settings: Settings) -> Iterator[Callable[..., TestClient]]:
    """An application with other settings."""
    opened: list[TestClient] = []

    def make(**changes: Any) -> TestClient:
        opened.append(TestClient(create_app(settings.model_copy(update=changes))))
        return opened[-1].__enter__()

    yield make
    for each in opened:
        each.__exit__(None, None, None)


@pytest.mark.parametrize("limit", [{"import_seconds": 0.05}, {"import_memory_mb": 400}], ids=str)
def test_limits_hold(
    limit: dict[str, Any],
    stingy: Callable[..., TestClient],
    made: Path,
    nothing_kept: Callable[[], None],
) -> None:
    answer = send(stingy(**limit), packed(made))
    assert (answer.status_code, answer.json()["code"]) == (413, "import_too_large"), answer.text
    [name] = limit
    assert f"LORAWORKS_{name.upper()}" in answer.json()["detail"]
    nothing_kept()


def test_a_larger_archive_is_not_received(
    stingy: Callable[..., TestClient], nothing_kept: Callable[[], None]
) -> None:
    answer = send(stingy(max_import_bytes=10_000), bytes(10_001))
    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large"), answer.text
    nothing_kept()


def test_an_administrator_of_models_imports_once_and_deletes_it_with_its_files(
    told: Told,
    locked_client: TestClient,
    new_key: Callable[..., keys.NewKey],
    made: Path,
    nothing_kept: Callable[[], None],
) -> None:
    archive = packed(made)
    reader = new_key("models:read", "jobs:write", "predict")
    refused = send(locked_client, archive, Authorization=f"Bearer {reader.text}")
    assert refused.status_code == 403
    key = new_key("models:admin")
    admin = {"Authorization": f"Bearer {key.text}"}
    told()
    once = admin | {"Idempotency-Key": "k"}
    first, again = (send(locked_client, archive, **once) for _ in range(2))
    assert first.status_code == 201
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    other = send(locked_client, archive + bytes(512), **once)
    assert other.json()["code"] == "idempotency_key_reused"
    (line,) = told()
    assert (line["action"], line["model"]) == ("version_imported", "sentiment:1")
    assert (line["key_id"], "request_id" in line) == (str(key.key.id), True)
    gone = locked_client.delete("/v1/models/sentiment/versions/1", headers=admin)
    assert gone.status_code == 204
    nothing_kept()


def test_other_forms_of_bodies_are_refused(client: TestClient, made: Path) -> None:
    raw = client.post(URL, content=packed(made), headers={"Content-Type": "application/x-tar"})
    assert (raw.status_code, raw.json()["code"]) == (422, "malformed_upload")
    upper = client.post("/v1/models/Sent/versions/import", files={"file": ("m", b"x")})
    assert upper.status_code == 422
