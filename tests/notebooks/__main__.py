"""`python -m tests.notebooks`: run notebooks, all or those that are named, and keep the outputs."""

import sys
import time
from pathlib import Path

import matplotlib.font_manager  # noqa: F401 - makes its cache, else the first notebook tells of it
import nbformat

from lora_core.process import wait_passively
from tests.notebooks import course

wait_passively()  # the kernels, too
for path in [Path(name) for name in sys.argv[1:]] or course.PATHS:
    began = time.monotonic()
    notebook = course.read(path)
    course.run(notebook, seconds=None)
    nbformat.write(notebook, path)
    sys.stdout.write(f"{path.name}: {time.monotonic() - began:.0f} s\n")
    sys.stdout.flush()
