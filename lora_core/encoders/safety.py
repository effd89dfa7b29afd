"""What makes a base safe to load, by its config and the names of its files alone: no torch.

The service asks before it takes a job, the training process before it loads.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lora_core.errors.base import BaseNotFound, BrokenBase, UnsafeWeights, UntrustedCode
from lora_core.specs.pooling import FILE as POOLING_FILE
from lora_core.specs.pooling import declared

CONFIG_BYTES = 1_000_000
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
_NAMED = 5  # files in a message; whoever made the base chose their number


def read_config(directory: Path, base: str) -> dict[str, Any]:
    """The config of a base, as `parse_config` gives it. Raises `BaseNotFound` and `BrokenBase`."""
    try:
        content = _read(directory / "config.json")
    except (FileNotFoundError, PermissionError) as error:  # any other tells nothing of the base
        raise BaseNotFound(base=base, reason="it has no readable config.json") from error
    try:
        pooling = _read(directory / POOLING_FILE)
    except (FileNotFoundError, NotADirectoryError):
        pooling = None
    return parse_config(content, base, pooling=pooling)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(CONFIG_BYTES + 1)


def parse_config(content: bytes, base: str, *, pooling: bytes | None = None) -> dict[str, Any]:
    """The content of a config.json and, under `pooling`, what a sentence encoder says of that.

    Raises `BrokenBase`.
    """
    try:
        config = json.loads(content) if len(content) <= CONFIG_BYTES else None
    except (ValueError, RecursionError) as error:
        raise BrokenBase(base=base, reason="config.json is not JSON") from error
    if not isinstance(config, dict):
        raise BrokenBase(base=base, reason="config.json is not an object, or too large")
    if pooling is not None and (mode := declared(pooling)) is not None:
        config.setdefault("pooling", mode.value)
    return config


def check_code(base: str, config: Mapping[str, Any]) -> None:
    """No Python of its own. Raises `UntrustedCode`."""
    if "auto_map" in config:
        raise UntrustedCode(base=base)


def check_weights(base: str, files: Iterable[str]) -> None:
    """Only safetensors are loaded. Raises `UnsafeWeights`, `BaseNotFound`."""
    names = sorted(files)
    if any(name.endswith(".safetensors") for name in names):
        return
    if pickles := [name for name in names if name.endswith(_PICKLES)]:
        raise UnsafeWeights(base=base, found=", ".join(pickles[:_NAMED]))
    raise BaseNotFound(base=base, reason="it has no safetensors file")
