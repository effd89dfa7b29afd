"""Downloads return what the manifest lists and nothing else."""

import io
import json
import tarfile
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from app.resources import Resources
from app.storage.tables import Artifact
from tests.app.storage.conftest import FILES


@pytest.fixture
def url(artifact: Artifact) -> str:
    return f"/v1/artifacts/{artifact.id}"


def test_manifest_is_returned(client: TestClient, url: str) -> None:
    manifest = client.get(url).json()
    assert manifest["metrics"] == {"accuracy": 0.8}
    assert set(manifest["files"]) == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_listed_file_is_returned_unchanged(client: TestClient, url: str, name: str) -> None:
    response = client.get(f"{url}/files/{name}")
    assert response.status_code == 200
    assert response.content == FILES[name]
    assert response.headers["content-disposition"].startswith("attachment")
    assert response.headers["x-content-type-options"] == "nosniff"


def test_manifest_can_be_downloaded_as_a_file(client: TestClient, url: str) -> None:
    assert client.get(f"{url}/files/manifest.json").json() == client.get(url).json()


def test_archive_contains_every_file(client: TestClient, url: str, artifact: Artifact) -> None:
    response = client.get(f"{url}/archive")
    assert response.headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(response.content)) as archive:
        files = {
            member.name: file.read()
            for member in archive
            if (file := archive.extractfile(member)) is not None
        }
    assert json.loads(files.pop(f"{artifact.id}/manifest.json")) == client.get(url).json()
    card = files.pop(f"{artifact.id}/README.md", b"").decode()
    assert f"# {artifact.id}" in card
    assert files == {f"{artifact.id}/{name}": content for name, content in FILES.items()}


OTHER_NAMES = [
    "../../../../../../etc/passwd",
    "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "%252e%252e/%252e%252e/etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "..%252f..%252fetc%252fpasswd",
    "..\\..\\etc\\passwd",
    "%5c..%5c..%5cetc%5cpasswd",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "merged%00/config.json",
    "merged/config.json%00",
    "merged/config.json/",
    "merged//config.json",
    "%2e/merged/config.json",
    "merged/%2e%2e/merged/config.json",
    "merged",
    "MERGED/CONFIG.JSON",
    "%ef%bc%8e%ef%bc%8e/etc/passwd",
    "%c0%ae%c0%ae/etc/passwd",
    "C:%5cwindows",
    "%ff%fe",
    "unlisted.txt",
    "a" * 5000,
]


def test_unlisted_file_is_not_found(client: TestClient, url: str) -> None:
    for name in OTHER_NAMES:
        response = client.get(f"{url}/files/{name}")
        assert response.status_code == 404, name
        assert response.headers["content-type"] == "application/problem+json"
        assert "root:" not in response.text


@pytest.mark.parametrize("target", ["outside", "inside"])
def test_symlink_is_not_followed(
    client: TestClient, url: str, artifact: Artifact, resources: Resources, target: str
) -> None:
    directory = resources.store.local_directory(artifact.ref)
    secret = directory.parent / "secret" if target == "outside" else directory / "golden.json"
    secret.write_text("secret")
    (directory / "merged" / "config.json").unlink()
    (directory / "merged" / "config.json").symlink_to(secret)
    response = client.get(f"{url}/files/merged/config.json")
    assert (response.status_code, response.json()["code"]) == (404, "artifact_file_not_found")
    assert client.get(f"{url}/archive").json()["code"] == "artifact_corrupt"


@pytest.mark.parametrize("name", ["../secret", "{parent}/secret"])
def test_manifest_with_outside_files_opens_none(
    client: TestClient, url: str, artifact: Artifact, resources: Resources, name: str
) -> None:
    directory = resources.store.local_directory(artifact.ref)
    (directory.parent / "secret").write_text("secret")
    listed = directory / "manifest.json"
    facts = json.loads(listed.read_text())
    outside = name.format(parent=directory.parent)
    facts["files"][outside] = {"bytes": 6, "sha256": "0"}
    listed.write_text(json.dumps(facts))
    quoted = outside.replace("/", "%2f").replace("..", "%2e%2e")
    assert client.get(f"{url}/files/{quoted}").json()["code"] == "artifact_file_not_found"
    assert client.get(f"{url}/archive").json()["code"] == "artifact_corrupt"


@pytest.mark.parametrize("tail", ["", "/archive", "/files/golden.json"])
def test_unknown_artifact_is_not_found(client: TestClient, tail: str) -> None:
    response = client.get(f"/v1/artifacts/{uuid4()}{tail}")
    assert (response.status_code, response.json()["code"]) == (404, "artifact_not_found")


def test_missing_files_are_reported_as_damage(
    client: TestClient, url: str, artifact: Artifact, resources: Resources
) -> None:
    resources.store.delete(artifact.key)
    response = client.get(url)
    assert (response.status_code, response.json()["code"]) == (409, "artifact_corrupt")
    assert str(resources.settings.data_dir) not in response.text
