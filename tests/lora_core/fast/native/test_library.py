"""Tests of the C ABI that need a process of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from lora_core.fast.native.build import compile_variant

# As many texts as a batch may have, each of one token: what the library allocates for itself, apart
# from the workspace, is then more than is left.
CALL = """
import ctypes, resource, sys
import numpy as np
from lora_core.fast.native.library import *
library = ctypes.CDLL(sys.argv[1])
weights = np.ones(2**16, np.float32)
memory = -(-weights.ctypes.data // 64) * 64
def linear(inputs, outputs):
    return LinearStruct(memory, None, inputs, outputs)
block = BlockStruct(linear(32, 96), linear(32, 32), linear(32, 32), linear(32, 32), window=-1)
encoder = EncoderStruct(ctypes.pointer(block), 1, 32, 1, 32, 32)
texts = 2**24
starts, lengths = np.arange(texts, dtype=np.int32), np.ones(texts, np.int32)
ends = np.array([0, texts], np.int32)
batch = BatchStruct(
    texts, texts, 1, *(each.ctypes.data for each in (starts, lengths, ends, ends)),
    (LowRankStruct * 4)(), memory, None,
)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 2**24
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
workspace = ctypes.c_void_p(memory), ctypes.c_size_t(2**62)
print(library.lw_encode(ctypes.byref(encoder), ctypes.byref(batch), 1, *workspace))
"""


@pytest.mark.slow  # compiles a variant
def test_a_lack_of_memory_is_reported_and_ends_no_process(tmp_path: Path) -> None:
    file = tmp_path / "portable.so"
    compile_variant("portable", file)
    done = subprocess.run(
        [sys.executable, "-c", CALL, file], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("2\n", "")
