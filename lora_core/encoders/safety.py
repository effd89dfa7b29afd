"""Check that a base model is safe to load, by its config and file names. Does not import torch.

The service checks before it accepts a job, the training process before it loads the model.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lora_core.encoders import get_family
from lora_core.errors.base_model import (
    BaseNotFound,
    NoFastTokenizer,
    UnreadableBase,
    UnsafeWeights,
)
from lora_core.specs.pooling import POOLING_FILE, parse_pooling_config

# Patterns of the files of a hub model that are downloaded
ALLOWED_FILES = ("config.json", POOLING_FILE, "*.safetensors", "model.safetensors.index.json",
                 "tokenizer*", "vocab.txt", "special_tokens_map.json")  # fmt: skip
IGNORED_FILES = ("*/*.safetensors",)  # "*" of the patterns above also matches folders
MAX_CONFIG_BYTES = 1_000_000
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
_FAST_TOKENIZER = "tokenizer.json"
_SLOW_TOKENIZERS = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "vocab.txt",
                    "vocab.json", "merges.txt")  # fmt: skip
_MAX_FILES_IN_MESSAGE = 5  # untrusted models may have any number of files


def read_config(directory: Path, base: str) -> dict[str, Any]:
    """Return the config of a base model, as `parse_config` does. Raises `BaseNotFound`,
    `UnreadableBase`."""
    try:
        content = _read(directory / "config.json")
    # other errors are not about the base model
    except (FileNotFoundError, PermissionError) as error:
        raise BaseNotFound(base=base, reason="it has no readable config.json") from error
    try:
        pooling = _read(directory / POOLING_FILE)
    except (FileNotFoundError, NotADirectoryError):
        pooling = None
    return parse_config(content, base, pooling=pooling)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_CONFIG_BYTES + 1)


def parse_config(content: bytes, base: str, *, pooling: bytes | None = None) -> dict[str, Any]:
    """Return the config in a config.json, with the pooling of a sentence encoder's `pooling` file.

    Raises `UnreadableBase`.
    """
    try:
        config = json.loads(content) if len(content) <= MAX_CONFIG_BYTES else None
    except (ValueError, RecursionError) as error:
        raise UnreadableBase(base=base, reason="config.json is not JSON") from error
    if not isinstance(config, dict):
        raise UnreadableBase(base=base, reason="config.json is not an object, or too large")
    if config.get("id2label") is None:  # written as null by some programs
        config.pop("id2label", None)
    elif not isinstance(config["id2label"], dict):
        raise UnreadableBase(base=base, reason="its id2label is not an object")
    if pooling is not None and (mode := parse_pooling_config(pooling)) is not None:
        config.setdefault("pooling", mode.value)
    return config


def check_needs_no_custom_code(base: str, config: Mapping[str, Any]) -> None:
    """Raise `UntrustedCode` if the model requires custom Python code.

    A model that also has code, but whose architecture transformers has, is loaded by that class.
    Raises the other errors of `get_family`, too.
    """
    if "auto_map" in config:
        get_family(config, base=base)


def check_has_safetensors(base: str, files: Iterable[str]) -> None:
    """Raise `UnsafeWeights` or `BaseNotFound` unless a safetensors file is outside of folders."""
    names = sorted(name for name in files if "/" not in name)
    if any(name.endswith(".safetensors") for name in names):
        return
    if pickles := [name for name in names if name.endswith(_PICKLES)]:
        raise UnsafeWeights(base=base, found=", ".join(pickles[:_MAX_FILES_IN_MESSAGE]))
    raise BaseNotFound(base=base, reason="it has no safetensors file")


def check_has_fast_tokenizer(base: str, files: Iterable[str]) -> None:
    """Raise `NoFastTokenizer` if there is no `tokenizer.json`.

    The other forms of a tokenizer are read by code that differs for each model.
    """
    names = set(files)
    if _FAST_TOKENIZER not in names:
        slow = ", ".join(name for name in _SLOW_TOKENIZERS if name in names)
        raise NoFastTokenizer(base=base, found=f"only {slow}" if slow else "nor another tokenizer")
