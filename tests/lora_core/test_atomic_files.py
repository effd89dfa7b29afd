"""A full disk is known as such, whichever library meets it."""

import subprocess
import sys
from pathlib import Path

COPY = """
import resource, shutil, sys
from lora_core.atomic_files import is_disk_full
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
try:
    shutil.copytree(sys.argv[1], sys.argv[2])
except OSError as error:
    print(type(error).__name__, is_disk_full(error))
"""


def test_a_folder_that_finds_no_room_when_it_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    (source / "weights").write_bytes(b"x" * 100)
    done = subprocess.run(
        [sys.executable, "-c", COPY, source, tmp_path / "copy"], capture_output=True, text=True
    )
    assert done.stdout == "Error True\n", done.stderr


def test_a_folder_that_cannot_be_copied_for_another_reason(tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    (source / "nowhere").symlink_to(tmp_path / "none")
    done = subprocess.run(
        [sys.executable, "-c", COPY, source, tmp_path / "copy"], capture_output=True, text=True
    )
    assert done.stdout == "Error False\n", done.stderr
