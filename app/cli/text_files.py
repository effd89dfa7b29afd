"""Files of texts, one a line."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from app.cli.errors import Misuse
from lora_core.specs.data import ENDINGS

STDIN = Path("-")


def is_lines(file: Path) -> bool:
    """Whether this is no table: standard input, or a file of another ending."""
    return file.suffix.lower() not in ENDINGS


def read(file: Path) -> list[str]:
    """The lines that are not empty. Raises `Misuse`."""
    try:
        text = sys.stdin.read() if file == STDIN else file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Misuse(f"{file} is not UTF-8: {error}", "wrong_encoding") from error
    return [line for line in text.splitlines() if line.strip()]


@contextmanager
def as_table(file: Path) -> Iterator[Path]:
    """The same texts as a table for a while: a row for each line. Raises `Misuse`."""
    texts = read(file)
    if not texts:
        raise Misuse(f"there is no text in {file}", "no_text")
    with TemporaryDirectory(prefix="loraworks-") as folder:
        table = Path(folder, "stdin.jsonl" if file == STDIN else f"{file.stem}.jsonl")
        rows = (json.dumps({"text": text}) + "\n" for text in texts)
        table.write_text("".join(rows), encoding="utf-8")
        yield table
