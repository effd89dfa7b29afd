"""The head of a safetensors file, looked at before a library reads it."""

import json
from pathlib import Path

from lora_core.errors.artifact import ArchiveBroken, HeaderTooLarge

HEADER_BYTES = 10_000_000  # far more than any encoder needs; whoever reads it keeps it in memory
TENSORS = 100_000


def check_header(path: Path) -> None:
    """Raises `HeaderTooLarge`, `ArchiveBroken`."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > HEADER_BYTES:
            raise HeaderTooLarge(file=path.name, limit=HEADER_BYTES)
        try:
            tensors = len(json.loads(file.read(size)))
        except (ValueError, TypeError, RecursionError) as error:
            raise ArchiveBroken(problem=f"{path.name} is no safetensors file") from error
    if tensors > TENSORS:
        raise HeaderTooLarge(file=path.name, limit=TENSORS)
