"""The label of a row of a multi-label task: a JSON list of names in their order."""

import json
from collections.abc import Iterable
from functools import lru_cache


def encode_label_set(names: Iterable[str]) -> str:
    """Return the label of a row of a multi-label task."""
    return json.dumps(sorted(set(names)), ensure_ascii=False)


@lru_cache(maxsize=10_000)  # few sets are those of most rows
def decode_label_set(label: str) -> tuple[str, ...]:
    """Return the names in the label of a row of a multi-label task."""
    return tuple(json.loads(label))
