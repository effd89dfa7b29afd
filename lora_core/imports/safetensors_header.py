"""Check the header of a safetensors file before a library reads it."""

import json
from pathlib import Path

from lora_core.errors.artifact import HeaderTooLarge, InvalidArchive

MAX_HEADER_BYTES = 10_000_000  # far more than any encoder needs; the header is held in memory
MAX_TENSORS = 100_000


def check_header(path: Path) -> None:
    """Raise `HeaderTooLarge` or `InvalidArchive`."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > MAX_HEADER_BYTES:
            raise HeaderTooLarge(file=path.name, limit=MAX_HEADER_BYTES)
        try:
            tensors = len(json.loads(file.read(size)))
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidArchive(problem=f"{path.name} is not a safetensors file") from error
    if tensors > MAX_TENSORS:
        raise HeaderTooLarge(file=path.name, limit=MAX_TENSORS)
