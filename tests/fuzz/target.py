"""Fuzz one reader in this process: `python -m tests.fuzz.target READER [option of libFuzzer ...]`.

Only our packages, and what parses in Python, are instrumented: that is what coverage is counted of.
"""

import logging
import sys

import atheris

INSTRUMENTED = [
    "app", "celery.worker.strategy", "kombu.transport.virtual", "kombu.utils.json", "lora_core",
    "openpyxl", "python_multipart", "tests.fuzz", "worker",
]  # fmt: skip

with atheris.instrument_imports(include=INSTRUMENTED):
    from tests.fuzz.readers import CORPUS, load_reader

    name = sys.argv.pop(1)
    read = load_reader(name)

for file in (CORPUS / name).iterdir():  # imports, templates: no input may take the time for them
    read(file.read_bytes())

logging.disable()
atheris.Setup(sys.argv, read)
atheris.Fuzz()
