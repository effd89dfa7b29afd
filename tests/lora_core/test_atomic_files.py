"""A full disk is reported as such, whichever library raises it."""

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


def test_full_disk_while_copying_a_folder(tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    (source / "weights").write_bytes(b"x" * 100)
    done = subprocess.run(
        [sys.executable, "-c", COPY, source, tmp_path / "copy"], capture_output=True, text=True
    )
    assert done.stdout == "Error True\n", done.stderr


def test_other_error_while_copying_a_folder(tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    (source / "nowhere").symlink_to(tmp_path / "none")
    done = subprocess.run(
        [sys.executable, "-c", COPY, source, tmp_path / "copy"], capture_output=True, text=True
    )
    assert done.stdout == "Error False\n", done.stderr


SAVE = """
import resource, sys, torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from lora_core.atomic_files import is_disk_full
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
try:
    save_file({"weight": torch.ones(100)}, sys.argv[1])
except SafetensorError as error:
    print(is_disk_full(error))
"""


def test_file_size_limit_while_saving_weights(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SAVE, tmp_path / "weights"], capture_output=True, text=True
    )
    assert done.stdout == "True\n", done.stderr
