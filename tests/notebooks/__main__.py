"""`python -m tests.notebooks [PATH …]`: run all or the given notebooks, and store their outputs."""

import sys
import time
from pathlib import Path

import matplotlib.font_manager  # noqa: F401 - builds its cache, or the first notebook warns
import nbformat

from lora_core.process_settings import limit_openmp_spinning
from tests.notebooks import course

limit_openmp_spinning()  # inherited by the kernels
for path in [Path(name) for name in sys.argv[1:]] or course.PATHS:
    started = time.monotonic()
    notebook = course.read(path)
    course.run(notebook, seconds=None)
    nbformat.write(notebook, path)
    sys.stdout.write(f"{path.name}: {time.monotonic() - started:.0f} s\n")
    sys.stdout.flush()
