"""What makes a base safe to load, by its config and the names of its files alone: no torch.

The service asks before it takes a job, the training process before it loads.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from lora_core.errors import BaseNotFound, UnsafeWeights, UntrustedCode

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
_NAMED = 5  # files in a message; whoever made the base chose their number


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
