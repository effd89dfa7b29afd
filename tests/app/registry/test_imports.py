"""Import of model archives: a version is created, or nothing is stored."""

import io
import json
import socket
import tarfile
import threading
import time
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio.from_thread
import httpx2
import pytest
from httpx2 import Response
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.auth import service as keys
from app.database.engines import Database
from app.main import create_app
from app.registry.tables import ModelVersion
from app.sandbox import runner
from app.sandbox.runner import SandboxResult
from app.settings import Settings
from app.storage.staged_artifact import StagedArtifact
from app.storage.tables import Artifact
from lora_core.specs.method import LoraSpec
from tests.app.cli.conftest import serving
from tests.app.test_audit import AuditLines, audit_lines
from tests.hostile_archives import hostile_archive, packed, reseal
from tests.in_process_sandbox import run_in_process
from tests.lora_artifact import make_lora_artifact
from tests.tiny_artifact import TEXTS, make_artifact
from tests.waiting import wait_until

__all__ = ["audit_lines"]

pytestmark = pytest.mark.e2e

URL = "/v1/models/sentiment/versions/import"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return make_artifact(tmp_path / "made")


def send(client: TestClient, content: bytes, **headers: str) -> Response:
    return client.post(URL, files={"file": ("m.tar", content)}, headers=headers)


@pytest.fixture
def assert_nothing_stored(database: Database, settings: Settings) -> Callable[[], None]:
    """Assert that no rows and no files are stored."""

    def check() -> None:
        with database.read() as session:
            assert not session.scalar(select(func.count()).select_from(Artifact))
            assert not session.scalar(select(func.count()).select_from(ModelVersion))
        assert list(settings.data_dir.rglob("*.safetensors")) == []
        assert list((settings.uploads_dir / ".incoming").glob("*")) == []

    return check


@pytest.mark.usefixtures("in_child")
def test_an_imported_version_can_be_served_and_exported_again(
    client: TestClient, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = send(client, packed(made))
    assert response.status_code == 201, response.text
    version = response.json()
    assert (version["ref"], version["job_id"]) == ("sentiment:1", None)
    assert (version["base"], version["method"]) == ("minilm-l6", "lora")
    assert version["metrics"]["validation"]["accuracy"] == 0.8
    assert client.get("/v1/models/sentiment").json()["versions"] == [version]
    manifest = client.get(f"/v1/artifacts/{version['artifact_id']}").json()
    assert manifest == json.loads((made / "manifest.json").read_text())
    moved = client.put("/v1/models/sentiment/aliases/production", json={"version": 1})
    assert moved.status_code == 200
    predictions = client.post("/predict", json={"inputs": list(TEXTS)})
    assert {response[0]["label"] for response in predictions.json()} == {"good"}
    archive = client.get(f"/v1/artifacts/{version['artifact_id']}/archive").content
    monkeypatch.setattr(runner, "run_lora_core_sandboxed", run_in_process)  # which is faster
    again = send(client, archive).json()
    assert again["ref"] == "sentiment:2"
    assert again["metrics"] == version["metrics"]


def test_imported_base_is_stored_once(
    client: TestClient, database: Database, settings: Settings, tmp_path: Path
) -> None:
    made = make_lora_artifact(tmp_path / "run", LoraSpec(r=2))
    for number in (1, 2):
        response = send(client, packed(made))
        assert response.status_code == 201, response.text
        url = f"/v1/artifacts/{response.json()['artifact_id']}"
        assert client.get(url).json() == json.loads((made / "manifest.json").read_text())
        archive = client.get(f"{url}/archive").content
        assert send(client, archive).json()["ref"] == f"sentiment:{2 * number}"
    with database.read() as session:
        bases = session.scalars(select(Artifact).where(Artifact.kind == "base")).all()
        assert len(bases) == 1
    weights = [path.parent for path in settings.data_dir.rglob("model.safetensors")]
    assert weights == [settings.artifacts_dir / bases[0].key]


def test_failed_import_leaves_no_base(
    client: TestClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    assert_nothing_stored: Callable[[], None],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr("app.registry.service.add_version", fail)
    made = make_lora_artifact(tmp_path / "run", LoraSpec(r=2))
    assert send(client, packed(made)).status_code == 500
    for path in (tmp_path / "run").rglob("*.safetensors"):
        path.unlink()
    assert_nothing_stored()


def test_an_import_whose_client_disconnects_stores_nothing(
    settings: Settings,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
    assert_nothing_stored: Callable[[], None],
) -> None:
    connection, stored = socket.socket(), threading.Event()

    def stage(*arguments: Any) -> StagedArtifact:
        staged = StagedArtifact(*arguments)
        connection.close()
        with suppress(CancelledError):
            while True:
                anyio.from_thread.check_cancelled()
                time.sleep(0.01)
        stored.set()
        return staged

    monkeypatch.setattr("app.registry.service.StagedArtifact", stage)
    request = httpx2.Request(
        "POST", f"http://localhost{URL}", files={"file": ("m.tar", packed(made))}
    )
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with serving(create_app(settings)) as url:
        connection.connect(("127.0.0.1", urlsplit(url).port or 0))
        connection.sendall(f"POST {URL} HTTP/1.1\r\n{head}\r\n".encode() + request.read())
        assert stored.wait(60)
        incoming = settings.uploads_dir / ".incoming"
        wait_until(lambda: list(incoming.iterdir()) == [], what="the end of the import")
    assert_nothing_stored()


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
    "responses that do not come out": (golden, "golden_predictions_mismatch"),
    "a file that was changed": (altered, "artifact_corrupt"),
    "a way out": (outside, "archive_unsafe"),
    "a kernel of its own": (kernel, "unsupported_artifact"),
    "no archive": (lambda _: b"x" * 3000, "archive_broken"),
    "half an archive": (lambda d: packed(d)[:5000], "archive_broken"),
    "an empty file": (lambda _: b"", "archive_broken"),
    "a letter that becomes 200,000": (
        attacked("a letter becomes 200,000"),
        "unsupported_tokenizer",
    ),
    "a temperature below zero": (attacked("a temperature below zero"), "unsupported_artifact"),
    "a size that is a text": (attacked("a size that is a text"), "unsupported_artifact"),
}


# Each case starts a process. All cases are covered in tests/lora_core/model_imports.
FIRST = ("a way out",)


@pytest.mark.usefixtures("in_child")
@pytest.mark.parametrize(
    "what", [*FIRST, *(pytest.param(w, marks=pytest.mark.slow) for w in HOSTILE if w not in FIRST)]
)
def test_an_invalid_archive_is_rejected_and_nothing_is_stored(
    what: str, client: TestClient, made: Path, assert_nothing_stored: Callable[[], None]
) -> None:
    spoil, code = HOSTILE[what]
    response = send(client, spoil(made))
    assert (response.status_code, response.json()["code"]) == (422, code), response.text
    assert str(made.parent) not in response.text
    assert_nothing_stored()
    assert client.get("/v1/models/sentiment").status_code == 404


@pytest.fixture
def app_with_settings(settings: Settings) -> Iterator[Callable[..., TestClient]]:
    """Open a client of an app with other settings."""
    opened: list[TestClient] = []

    def make(**changes: Any) -> TestClient:
        opened.append(TestClient(create_app(settings.model_copy(update=changes))))
        return opened[-1].__enter__()

    yield make
    for each in opened:
        each.__exit__(None, None, None)


@pytest.mark.usefixtures("in_child")
@pytest.mark.parametrize("limit", [{"import_seconds": 0.05}, {"import_memory_mb": 400}], ids=str)
def test_import_limits(
    limit: dict[str, Any],
    app_with_settings: Callable[..., TestClient],
    made: Path,
    assert_nothing_stored: Callable[[], None],
) -> None:
    response = send(app_with_settings(**limit), packed(made))
    assert (response.status_code, response.json()["code"]) == (413, "import_too_large"), (
        response.text
    )
    [name] = limit
    assert f"LORAWORKS_{name.upper()}" in response.json()["detail"]
    assert_nothing_stored()


@pytest.mark.parametrize("directory", ["..", "../elsewhere", "link"])
def test_a_directory_elsewhere_is_not_imported(
    client: TestClient,
    tmp_path: Path,
    assert_nothing_stored: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    directory: str,
) -> None:
    """The process has read what is not trusted, so its answer is not trusted either."""
    elsewhere = make_artifact(tmp_path / "elsewhere")

    def answer(arguments: list[str], **_: Any) -> SandboxResult:
        folder = Path(arguments[-1])
        (folder / "link").symlink_to(elsewhere)
        (folder.parent / "elsewhere").symlink_to(elsewhere)
        facts = json.loads((elsewhere / "manifest.json").read_text())
        report = json.dumps({"directory": directory, "facts": facts})
        return SandboxResult(0, report.encode(), "")

    monkeypatch.setattr(runner, "run_lora_core_sandboxed", answer)
    response = send(client, b"anything")
    assert (response.status_code, response.json()["code"]) == (422, "import_crashed")
    assert_nothing_stored()
    assert (elsewhere / "manifest.json").exists()


def test_a_larger_archive_is_rejected(
    app_with_settings: Callable[..., TestClient], assert_nothing_stored: Callable[[], None]
) -> None:
    response = send(app_with_settings(max_import_bytes=10_000), bytes(10_001))
    assert (response.status_code, response.json()["code"]) == (413, "upload_too_large"), (
        response.text
    )
    assert_nothing_stored()


def test_import_is_idempotent_and_delete_removes_the_files(
    audit_lines: AuditLines,
    anonymous_client: TestClient,
    new_key: Callable[..., keys.CreatedKey],
    made: Path,
    assert_nothing_stored: Callable[[], None],
) -> None:
    archive = packed(made)
    reader = new_key("models:read", "jobs:write", "predict")
    refused = send(anonymous_client, archive, Authorization=f"Bearer {reader.text}")
    assert refused.status_code == 403
    key = new_key("models:admin")
    admin = {"Authorization": f"Bearer {key.text}"}
    audit_lines()
    once = admin | {"Idempotency-Key": "k"}
    first, again = (send(anonymous_client, archive, **once) for _ in range(2))
    assert first.status_code == 201
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    other = send(anonymous_client, archive + bytes(512), **once)
    assert other.json()["code"] == "idempotency_key_reused"
    (line,) = audit_lines()
    assert (line["action"], line["model"]) == ("version_imported", "sentiment:1")
    assert (line["key_id"], "request_id" in line) == (str(key.key.id), True)
    gone = anonymous_client.delete("/v1/models/sentiment/versions/1", headers=admin)
    assert gone.status_code == 204
    assert_nothing_stored()


def test_other_request_bodies_are_rejected(client: TestClient, made: Path) -> None:
    raw = client.post(URL, content=packed(made), headers={"Content-Type": "application/x-tar"})
    assert (raw.status_code, raw.json()["code"]) == (422, "malformed_upload")
    upper = client.post("/v1/models/Sent/versions/import", files={"file": ("m", b"x")})
    assert upper.status_code == 422
