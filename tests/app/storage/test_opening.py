"""Store URLs are parsed, or rejected with a helpful message."""

from pathlib import Path

import pytest

from app.resources import open_store
from app.settings import Settings
from app.storage.errors import StoreUrlInvalid
from app.storage.local import LocalStore
from app.storage.s3 import S3Store
from tests.app.storage.stores import KEY, made


def opened(tmp_path: Path, url: str | None) -> object:
    return open_store(Settings(data_dir=tmp_path / "data", store_url=url))


@pytest.mark.parametrize("url", [None, ""])
def test_default_store_is_in_the_data_directory(tmp_path: Path, url: str | None) -> None:
    store = opened(tmp_path, url)
    assert isinstance(store, LocalStore)
    store.move_directory_into_store(made(tmp_path / "out"), KEY)
    assert (tmp_path / "data" / "artifacts" / KEY / "manifest.json").is_file()


def test_file_url(tmp_path: Path) -> None:
    store = opened(tmp_path, f"file://{tmp_path}/a%20store")
    assert isinstance(store, LocalStore)
    store.check_health()
    assert (tmp_path / "a store").is_dir()


def test_opening_a_remote_store_does_not_connect(tmp_path: Path) -> None:
    assert isinstance(opened(tmp_path, "s3://bucket"), S3Store)
    assert isinstance(opened(tmp_path, "s3://bucket/a/prefix/"), S3Store)
    opened(tmp_path, f"file://{tmp_path}/store")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    ["bucket", "/some/folder", "http://host/bucket", "gs://bucket", "s3:bucket", "s3://",
     "s3:///prefix", "file://", "file:///", "file://host/folder", "file:folder", "memory:///",
     "s3://key:secret-word@bucket", "s3://bucket?secret=secret-word", "s3://bucket#x", "s3://["],
)  # fmt: skip
def test_invalid_store_urls_are_rejected(tmp_path: Path, url: str) -> None:
    with pytest.raises(StoreUrlInvalid, match=r"Use s3://bucket/prefix") as caught:
        opened(tmp_path, url)
    assert "secret-word" not in str(caught.value)
