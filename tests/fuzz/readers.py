"""The readers of bytes from outside: uploads, imports, bases, requests, messages, responses.

A reader takes bytes and an empty directory. Whatever the bytes are, it returns: only errors that
the documents list are expected, and handled. Everything else is a crash, and so are more than
`TIMEOUT_SECONDS` for one input, and more memory than `MEMORY_MB`.
"""

import logging
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog

Reader = Callable[[bytes, Path], None]

TIMEOUT_SECONDS = 10  # for one input; all kept ones take milliseconds
MEMORY_MB = 2048
HERE = Path(__file__).parent
CORPUS, CRASHES, MINUTES = HERE / "corpus", HERE / "crashes", HERE / "minutes.json"

# By module: a process loads only the libraries that its reader needs.
MODULES = {
    "tests.fuzz.dataset_files": ("csv", "xlsx", "jsonl", "label_studio", "parquet"),
    "tests.fuzz.model_files": (
        "archive", "model", "safetensors", "tokenizer", "adapter_config", "base_config",
        "checkpoint", "imported_model", "adapter",
    ),
    "tests.fuzz.http_requests": (
        "bodies", "predict_bodies", "openai_bodies", "mistral_bodies", "upload", "cookie",
        "parameters", "request", "form",
    ),
    "tests.fuzz.http_responses": ("mlflow",),
    "tests.fuzz.worker_messages": ("message", "events"),
}  # fmt: skip
READERS = {reader: module for module, readers in MODULES.items() for reader in readers}


def load_reader(name: str) -> Callable[[bytes], None]:
    """Return a reader that makes its own directory."""
    read: Reader = getattr(import_module(READERS[name]), name)
    silent = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=silent)  # rendering an error takes longer than most inputs

    def read_in_new_directory(data: bytes) -> None:
        with TemporaryDirectory() as directory:
            read(data, Path(directory))

    return read_in_new_directory


def kept_files(name: str) -> Iterator[Path]:
    """Yield the examples of a reader, and the inputs that once crashed it."""
    for directory in (CORPUS / name, CRASHES / name):
        yield from sorted(directory.glob("*"))


def split_name(data: bytes) -> tuple[str, bytes]:
    """Return the first line, which names what the rest is."""
    name, _, content = data.partition(b"\n")
    return name.decode("utf-8", "replace"), content
