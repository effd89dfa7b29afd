import hashlib
import sys
from pathlib import Path

import pytest

from lora_core.errors.base import SampleChanged, SampleMissing
from lora_core.samples.packages import PackagedFile, locate
from tests.fake_distribution import install

CONTENT = b"weights"
FILE = PackagedFile(
    "tiny-sample", "1.0", "tiny_sample/data.bin", hashlib.sha256(CONTENT).hexdigest()
)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {"tiny_sample/__init__.py": b"raise SystemExit('imported')", FILE.path: CONTENT}
    install(tmp_path, "tiny-sample", "1.0", files)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_file_is_found_without_importing_its_package(site: Path) -> None:
    assert locate(FILE) == site / FILE.path
    assert "tiny_sample" not in sys.modules


def test_a_package_that_is_not_installed_is_named_with_its_version() -> None:
    with pytest.raises(SampleMissing, match=r"pip install --no-deps tiny-sample==1\.0"):
        locate(FILE)


def test_a_package_without_the_file_counts_as_missing(site: Path) -> None:
    (site / FILE.path).unlink()
    with pytest.raises(SampleMissing):
        locate(FILE)


def test_other_content_is_refused_even_after_a_first_good_look(site: Path) -> None:
    locate(FILE)
    (site / FILE.path).write_bytes(CONTENT + b", changed")
    with pytest.raises(SampleChanged) as refused:
        locate(FILE)
    assert refused.value.detail["expected"] == FILE.sha256
    assert str(site) not in str(refused.value)
