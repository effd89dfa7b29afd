"""A store in a bucket: failures that only it can have."""

import http.server
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.resources import open_store
from app.settings import Settings
from app.storage.errors import ArtifactExists, StorageRefused, StorageUnavailable
from app.storage.store import ArtifactRef, Store
from lora_core import manifest
from lora_core.errors.artifact import ArtifactCorrupt
from tests.app.storage.stores import KEY, WEIGHTS, made, ref_of
from tests.s3_server import S3Server
from tests.servers import HOST, free_port
from tests.slow import slow_but

QUICK = 15.0  # seconds until an error must be raised
Use = Callable[[Store, Path], object]


@pytest.fixture
def settings(tmp_path: Path, bucket: str) -> Settings:
    return Settings(data_dir=tmp_path / "data", store_url=f"s3://{bucket}/prefix")


@pytest.fixture
def elsewhere(settings: Settings, tmp_path: Path) -> Store:
    """The store on another host, with a separate cache."""
    return open_store(settings.model_copy(update={"data_dir": tmp_path / "elsewhere"}))


@pytest.fixture
def store(settings: Settings) -> Store:
    return open_store(settings)


def put(store: Store, tmp_path: Path) -> object:
    return store.move_directory_into_store(made(tmp_path / "out"), KEY)


def get(store: Store, _: Path) -> object:
    return store.local_directory(ArtifactRef(KEY, "0" * 64, 1))


def put_file(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    store.move_file_into_store(tmp_path / "file", "uploads/x/y.csv")


def get_file(store: Store, _: Path) -> object:
    return store.verified_file("uploads/x/y.csv", "0" * 64)


def look(store: Store, _: Path) -> object:
    return list(store.list_files())


def delete(store: Store, _: Path) -> None:
    store.delete(KEY)


def check(store: Store, _: Path) -> None:
    store.check_health()


USES = [put, get, put_file, get_file, look, delete, check]


def expect(kind: type[Exception], use: Use, store: Store, tmp_path: Path, match: str = "") -> None:
    """Expect this error within a short time."""
    began = time.monotonic()
    with pytest.raises(kind, match=match):
        use(store, tmp_path)
    assert time.monotonic() - began < QUICK


# -- copies ------------------------------------------------------------------------------------


def test_another_host_gets_a_verified_copy(store: Store, elsewhere: Store, tmp_path: Path) -> None:
    ref = store.move_directory_into_store(made(tmp_path / "out"), KEY)
    assert elsewhere.local_directory(ref).is_relative_to(tmp_path / "elsewhere")
    manifest.verify(elsewhere.local_directory(ref))


def test_damaged_copy_is_fetched_again(store: Store, settings: Settings, tmp_path: Path) -> None:
    ref = store.move_directory_into_store(made(tmp_path / "out"), KEY)
    for anew in (store, open_store(settings)):
        (store.local_directory(ref) / WEIGHTS).write_text("WEIGHTS")
        assert (anew.local_directory(ref) / WEIGHTS).read_text() == "weights"


def test_damaged_original_is_reported(
    store: Store, elsewhere: Store, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    ref = store.move_directory_into_store(made(tmp_path / "out"), KEY)
    s3.write(f"{bucket}/prefix/{KEY}/{WEIGHTS}", b"WEIGHTS")
    with pytest.raises(ArtifactCorrupt, match="has changed"):
        elsewhere.local_directory(ref)
    with pytest.raises(ArtifactCorrupt, match="has changed"):
        elsewhere.read(ref, WEIGHTS)
    assert not list((tmp_path / "elsewhere").rglob("*.safetensors"))


@pytest.mark.parametrize("name", [WEIGHTS, "manifest.json"])
def test_missing_original_is_reported(
    store: Store, elsewhere: Store, s3: S3Server, bucket: str, tmp_path: Path, name: str
) -> None:
    ref = store.move_directory_into_store(made(tmp_path / "out"), KEY)
    s3.remove(f"{bucket}/prefix/{KEY}/{name}")
    with pytest.raises(ArtifactCorrupt, match="is missing"):
        elsewhere.local_directory(ref)


@pytest.mark.parametrize("key", [KEY, KEY.replace("jobs", "checkpoints")])
def test_store_without_objects_of_a_kind_is_refused(
    store: Store, settings: Settings, tmp_path: Path, key: str
) -> None:
    """The prefix may be a wrong one, with which every checkpoint would count as damaged."""
    ref = store.move_directory_into_store(made(tmp_path / "out"), key)
    url, data_dir = settings.store_url, tmp_path / "elsewhere"
    for wrong in (f"{url}/other", (url or "").removesuffix("/prefix")):
        changed = open_store(Settings(data_dir=data_dir, store_url=wrong))
        changed.get_or_set_owner("this database")  # as garbage collection does
        with pytest.raises(StorageRefused, match="nothing is stored under"):
            changed.verified_directory(ref)
        with pytest.raises(StorageRefused, match="nothing is stored under"):
            changed.read(ref, WEIGHTS)


def test_checkpoint_missing_in_a_store_in_use_counts_as_deleted(
    store: Store, tmp_path: Path
) -> None:
    put_file(store, tmp_path)
    with pytest.raises(ArtifactCorrupt, match=r"manifest\.json is missing"):
        store.verified_directory(ArtifactRef(KEY.replace("jobs", "checkpoints"), "0" * 64, 1))


def test_manifest_with_outside_files_writes_none(
    store: Store, elsewhere: Store, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    store.move_directory_into_store(made(tmp_path / "out"), KEY)
    for name in ("../../../evil", f"{tmp_path}/evil"):
        listing = f'{{"files": {{"{name}": {{"bytes": 1, "sha256": "0"}}}}}}'.encode()
        s3.write(f"{bucket}/prefix/{KEY}/manifest.json", listing)
        with pytest.raises(ArtifactCorrupt, match="outside"):
            elsewhere.local_directory(ArtifactRef(KEY, "0" * 64, 1))
    assert not list(tmp_path.rglob("evil"))


# -- puts --------------------------------------------------------------------------------------


def test_key_claimed_by_another_writer_exists(
    store: Store, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    s3.write(f"{bucket}/prefix/{KEY}/.claim", b"the digest of another manifest")
    source = made(tmp_path / "out")
    with pytest.raises(ArtifactExists):
        store.move_directory_into_store(source, KEY)
    assert [file.name for file in store.list_files()] == [f"{KEY}/.claim"]
    with pytest.raises(ArtifactCorrupt):
        store.local_directory(ref_of(source))


def test_delete_removes_the_claim(store: Store, tmp_path: Path) -> None:
    store.move_directory_into_store(made(tmp_path / "out"), KEY)
    store.delete(KEY)
    assert list(store.list_files()) == []


# -- a store that fails ------------------------------------------------------------------------


@pytest.mark.parametrize("use", slow_but(USES, put, get))
def test_stopped_server_is_unavailable(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Use
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:{free_port()}")
    expect(StorageUnavailable, use, open_store(settings), tmp_path, "no connection")


@pytest.mark.parametrize("use", slow_but([get, check], check))
def test_unresponsive_server_is_unavailable(
    s3: S3Server, store: Store, tmp_path: Path, use: Use
) -> None:
    s3.freeze()
    try:
        expect(StorageUnavailable, use, store, tmp_path, "no response in time")
    finally:
        s3.thaw()


@pytest.mark.parametrize("use", USES)
def test_missing_bucket_is_refused(settings: Settings, tmp_path: Path, use: Use) -> None:
    wrong = settings.model_copy(update={"store_url": "s3://no-such-bucket/prefix"})
    expect(StorageRefused, use, open_store(wrong), tmp_path, r"bucket|NoSuchBucket")


@pytest.fixture(scope="module")
def strict() -> Iterator[S3Server]:
    """A server that checks credentials."""
    server = S3Server()
    try:
        server.start()
        server.bucket = server.new_bucket()
        server.demand_credentials()
        yield server
    finally:
        server.kill()


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("what", slow_but(["key", "secret"], "key"))
def test_wrong_credentials_are_refused(
    strict: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Use, what: str
) -> None:
    for name, value in strict.environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings(data_dir=tmp_path / "data", store_url=f"s3://{strict.bucket}")
    open_store(settings).check_health()
    names = {"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY"}
    monkeypatch.setenv(names[what], "wrong")
    expect(StorageRefused, use, open_store(settings), tmp_path, "403")


def test_half_of_the_credentials_are_refused(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    expect(StorageRefused, check, open_store(settings), tmp_path, "no credentials")


def test_plain_http_must_be_allowed(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    expect(StorageRefused, check, open_store(settings), tmp_path, "AWS_ALLOW_HTTP")


@pytest.fixture
def fixed_status_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A server that responds to every request with one status, and counts requests."""
    reply: dict[str, Any] = {"status": 500, "calls": 0, "code": ""}

    class FixedStatusHandler(http.server.BaseHTTPRequestHandler):
        def reply_with_status(self) -> None:
            reply["calls"] += 1
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(reply["status"])
            body = f"<Error><Code>{reply['code']}</Code></Error>".encode() if reply["code"] else b""
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = reply_with_status  # noqa: N815 - its names

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer((HOST, 0), FixedStatusHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:{server.server_port}")
    yield reply
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("use", slow_but([put, get, look], get))
@pytest.mark.parametrize(
    ("status", "kind"),
    [(500, StorageUnavailable), (503, StorageUnavailable), (507, StorageUnavailable),
     (429, StorageUnavailable), (408, StorageUnavailable), (400, StorageRefused),
     (401, StorageRefused), (403, StorageRefused)],
)  # fmt: skip
def test_transient_and_permanent_statuses(
    bucket: str,
    fixed_status_server: dict[str, Any],
    tmp_path: Path,
    use: Use,
    status: int,
    kind: type[Exception],
) -> None:
    fixed_status_server["status"] = status
    store = open_store(Settings(data_dir=tmp_path / "data", store_url=f"s3://{bucket}"))
    expect(kind, use, store, tmp_path, str(status))
    assert fixed_status_server["calls"] == (4 if kind is StorageUnavailable else 1)


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "RequestTimeout"), (409, "OperationAborted"), (409, "ConditionalRequestConflict")],
)
def test_request_timeout_code_is_transient(
    bucket: str, fixed_status_server: dict[str, Any], tmp_path: Path, status: int, code: str
) -> None:
    fixed_status_server |= {"status": status, "code": code}
    store = open_store(Settings(data_dir=tmp_path / "data", store_url=f"s3://{bucket}"))
    for use in (put, check):
        expect(StorageUnavailable, use, store, tmp_path, f"{status}, {code}")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(None, StorageUnavailable), (503, StorageUnavailable), (404, StorageRefused)],
)
def test_instance_metadata_without_credentials(
    bucket: str,
    fixed_status_server: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int | None,
    kind: type[Exception],
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    lender = f"http://{HOST}:{free_port()}" if status is None else os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", lender)
    fixed_status_server["status"] = status
    store = open_store(Settings(data_dir=tmp_path / "data", store_url=f"s3://{bucket}"))
    expect(kind, check, store, tmp_path, "503" if status == 503 else "set AWS_ACCESS_KEY_ID")


def test_check_result_is_cached(
    bucket: str, fixed_status_server: dict[str, Any], tmp_path: Path
) -> None:
    fixed_status_server["status"] = 403
    store = open_store(Settings(data_dir=tmp_path / "data", store_url=f"s3://{bucket}"))
    for _ in range(5):
        with pytest.raises(StorageRefused, match="403"):
            store.check_health()
    assert fixed_status_server["calls"] == 1


def test_failed_deletion_is_left_to_garbage_collection(
    bucket: str, fixed_status_server: dict[str, Any], tmp_path: Path
) -> None:
    fixed_status_server["status"] = 503
    store = open_store(Settings(data_dir=tmp_path / "data", store_url=f"s3://{bucket}"))
    store.delete_best_effort(KEY)
    assert fixed_status_server["calls"] > 0
