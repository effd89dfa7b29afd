"""The native engine under the address and undefined-behavior sanitizers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lora_core.fast.native.build import SANITIZERS, compile_variant
from tests.lora_core.fast.native.libraries import ONLY, libraries

TESTS = ("test_blocks.py", "test_attention.py")


def _runtime(name: str) -> str:
    command = ["g++", f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "LD_PRELOAD": f"{_runtime('libasan.so')} {_runtime('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0",  # of Python and torch
        "PYTHONMALLOC": "malloc",
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_access_out_of_bounds_and_no_undefined_behavior(tmp_path: Path) -> None:
    for variant in libraries():
        file = tmp_path / f"{variant}.so"
        compile_variant(variant, file, SANITIZERS)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
             *(str(Path(__file__).with_name(name)) for name in TESTS)],
            env={**_environment(), ONLY: str(file)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        assert " passed" in done.stdout


@pytest.mark.slow
def test_the_sanitizer_sees_an_access_out_of_bounds(tmp_path: Path) -> None:
    file = tmp_path / "portable.so"
    compile_variant("portable", file, SANITIZERS)
    program = (
        "import ctypes\n"
        f"library = ctypes.CDLL({str(file)!r})\n"
        "print('loaded', flush=True)\n"
        "short = ctypes.create_string_buffer(b'\\1' * 18, 18)\n"
        "library.lw_encode_workspace(short, ctypes.c_void_p(1), 1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=_environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout == "loaded\n"
    assert "AddressSanitizer" in done.stderr


@pytest.mark.slow
def test_the_sanitizer_sees_what_leaves_its_piece_of_a_workspace(tmp_path: Path) -> None:
    file = tmp_path / "portable.so"
    compile_variant("portable", file, SANITIZERS)
    program = f"""
import ctypes
from pathlib import Path
import torch
from lora_core.fast.native.attention import NativeAttention
from lora_core.fast.native.library import Library
library = Library(Path({str(file)!r}))
query = torch.ones(1, 1, 3, 32, dtype=torch.bfloat16)
NativeAttention.apply(query, query, query, (3,), 1.0, None, library)
first_poisoned = ctypes.CDLL(None).__asan_region_is_poisoned
first_poisoned.restype = ctypes.c_size_t
memory = library._workspace.get(64)
start = memory.data_ptr()
print(first_poisoned(ctypes.c_size_t(start), ctypes.c_size_t(2**13)) - start)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=_environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout == f"{12 * (32 + 32) * 4}\n", done.stderr  # scores: 12 rows of 32 and 32
