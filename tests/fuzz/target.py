"""Fuzz one reader in this process: `python -m tests.fuzz.target READER [option of libFuzzer ...]`.

Only our packages, and what parses in Python, are instrumented: that is what coverage is counted of.
"""

import logging
import sys

import atheris

INSTRUMENTED = ["app", "lora_core", "openpyxl", "python_multipart", "tests.fuzz"]

with atheris.instrument_imports(include=INSTRUMENTED):
    from tests.fuzz.readers import load_reader

    read = load_reader(sys.argv.pop(1))

logging.disable()
atheris.Setup(sys.argv, read)
atheris.Fuzz()
