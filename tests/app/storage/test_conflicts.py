"""S3 rejects a create-only write with 409 during another write, even if that one fails later."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.resources import open_store
from app.settings import Settings
from app.storage.errors import ArtifactExists, StorageUnavailable
from app.storage.store import Store
from lora_core import manifest
from tests.app.storage.stores import KEY, WEIGHTS, made
from tests.servers import HOST

ALWAYS = 1000
CONFLICT = b"<Error><Code>ConditionalRequestConflict</Code></Error>"
MISSING = b"<Error><Code>NoSuchKey</Code></Error>"
DATE = "Mon, 01 Jan 2024 00:00:00 GMT"


class Bucket:
    """Objects, and the number of create-only writes to reject, by name."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.conflicts: dict[str, int] = {}
        self.other: bytes | None = None  # what the other writer stores before our write is rejected

    def put(self, path: str, content: bytes, create: bool) -> tuple[int, bytes]:
        """Return status and body of the response."""
        name = path.rpartition("/")[2]
        if create and self.conflicts.get(name, 0) > 0:
            self.conflicts[name] -= 1
            if self.other is not None:
                self.objects[path] = self.other
            return 409, CONFLICT
        if create and path in self.objects:
            return 412, b""
        self.objects[path] = content
        return 200, b""

    def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of the response."""
        return (200, self.objects[path]) if path in self.objects else (404, MISSING)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    objects = Bucket()

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            self.send(*objects.put(self.path, content, "If-None-Match" in self.headers))

        def do_GET(self) -> None:
            self.send(*objects.get(self.path))

        def send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("ETag", '"1"')
            self.send_header("Last-Modified", DATE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer((HOST, 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{HOST}:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "not-for-logs",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "NO_PROXY": HOST,
    }.items():
        monkeypatch.setenv(name, value)
    yield objects
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def store(bucket: Bucket, tmp_path: Path) -> Store:
    return open_store(Settings(data_dir=tmp_path / "data", store_url="s3://bucket/prefix"))


@pytest.mark.parametrize("name", [".claim", "manifest.json"])
def test_rejected_write_is_retried(store: Store, bucket: Bucket, tmp_path: Path, name: str) -> None:
    bucket.conflicts[name] = 1
    ref = store.move_directory_into_store(made(tmp_path / "out"), KEY)
    assert bucket.conflicts[name] == 0
    assert (store.local_directory(ref) / WEIGHTS).read_text() == "weights"


@pytest.mark.parametrize("name", [".claim", "manifest.json"])
def test_directory_stays_if_all_writes_are_rejected(
    store: Store, bucket: Bucket, tmp_path: Path, name: str
) -> None:
    bucket.conflicts[name] = ALWAYS
    source = made(tmp_path / "out")
    with pytest.raises(StorageUnavailable):
        store.move_directory_into_store(source, KEY)
    manifest.verify(source)


def test_faster_write_of_the_same_content_is_accepted(
    store: Store, bucket: Bucket, tmp_path: Path
) -> None:
    source = made(tmp_path / "out")
    bucket.other = (source / manifest.MANIFEST_FILE).read_bytes()
    bucket.conflicts["manifest.json"] = ALWAYS
    assert (
        store.local_directory(store.move_directory_into_store(source, KEY)) / WEIGHTS
    ).read_text() == "weights"


@pytest.mark.parametrize("name", [".claim", "manifest.json"])
def test_faster_write_of_other_content_keeps_the_key(
    store: Store, bucket: Bucket, tmp_path: Path, name: str
) -> None:
    bucket.other = b"{}"
    bucket.conflicts[name] = ALWAYS
    source = made(tmp_path / "out")
    with pytest.raises(ArtifactExists):
        store.move_directory_into_store(source, KEY)
    manifest.verify(source)


def test_rejected_owner_write_is_retried(store: Store, bucket: Bucket) -> None:
    bucket.conflicts[".owner"] = ALWAYS
    with pytest.raises(StorageUnavailable):
        store.get_or_set_owner("one")
    bucket.conflicts[".owner"] = 1
    assert store.get_or_set_owner("one") == "one"
    bucket.conflicts[".owner"] = ALWAYS
    assert store.get_or_set_owner("two") == "one"
