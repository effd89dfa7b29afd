"""Downloads from a store in a bucket."""

import io
import tarfile

import pytest
from starlette.testclient import TestClient

from app.settings import Settings
from app.storage.tables import Artifact
from tests.app.conftest import settings as local_settings
from tests.app.storage.conftest import FILES

__all__ = ["local_settings"]


@pytest.fixture
def settings(local_settings: Settings, bucket: str) -> Settings:
    return local_settings.model_copy(update={"store_url": f"s3://{bucket}"})


def test_file_and_archive_download_from_a_bucket(
    client: TestClient, artifact: Artifact, settings: Settings
) -> None:
    url = f"/v1/artifacts/{artifact.id}"
    for name, content in FILES.items():
        assert client.get(f"{url}/files/{name}").content == content
    with tarfile.open(fileobj=io.BytesIO(client.get(f"{url}/archive").content)) as archive:
        assert len(archive.getnames()) == len(FILES) + 2  # the manifest, and a model card
    assert not settings.artifacts_dir.exists()
