"""What an adapter needs and its config has no place for: names of labels, length of texts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lora_core.encoders.load import Base
from lora_core.errors.adapter import AdapterLabels
from lora_core.errors.spec import LengthTooLarge
from lora_core.fit import read_shape
from lora_core.specs.data import MAX_LENGTH


def labels(
    directory: Path, base: Base, tensors: Mapping[str, Tensor], given: Sequence[str]
) -> list[str]:
    """Their names: as given, as beside the adapter, as the base has them, or `LABEL_0` and on.

    Raises `AdapterLabels`.
    """
    known = base.config.get("id2label") or {}
    last = tensors.get(f"{base.family.head[-1]}.weight")
    count = len(last) if last is not None and last.dim() else len(known) or 2
    if given:
        if len(given) != count or len(set(given)) != count:
            raise AdapterLabels(given=len(set(given)), count=count)
        return list(given)
    for names in (_beside(directory), known):
        if len(names) == count and set(names) == {str(i) for i in range(count)}:
            return [str(names[str(i)]) for i in range(count)]
    return [f"LABEL_{i}" for i in range(count)]


def max_length(directory: Path, base: Base, given: int | None) -> int:
    """Tokens of the longest text: as given, or as the tokenizer beside the adapter has it.

    Raises `LengthTooLarge`.
    """
    longest = read_shape(base.config, base=base.name).longest
    if given is not None:
        if not 8 <= given <= longest:
            raise LengthTooLarge(max_length=given, limit=longest)
        return given
    said = _json(directory / "tokenizer_config.json").get("model_max_length")
    return min(said if isinstance(said, int) and said >= 8 else MAX_LENGTH, longest)


def tokenizer(directory: Path, base: Base) -> Path:
    """The `tokenizer.json` of the adapter, or else that of the base."""
    own = directory / "tokenizer.json"
    return own if own.is_file() else base.directory / "tokenizer.json"


def _beside(directory: Path) -> Mapping[str, Any]:
    """What our own export puts beside an adapter, or the config that many trainers leave there."""
    for file, key in (("id2label.json", None), ("config.json", "id2label")):
        said = _json(directory / file)
        names = said.get(key) if key else said
        if isinstance(names, dict) and names:
            return names
    return {}


def _json(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
