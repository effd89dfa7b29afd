"""The 50,000 labeled reviews of the hub in one file.

The hub has them in two halves, and parts that are given are kept; the lessons draw 35,000 for
training, which is more than a half.
"""

import json
from pathlib import Path

from benchmarks.reproduce.plan import DATA
from lora_core.atomic_files import atomic_path
from lora_core.cache import cache_dir
from lora_core.data.load import read_source
from lora_core.data.rows import ColumnSelection
from lora_core.hf_hub import HUB_PREFIX
from lora_core.specs.data import DataSpec


def here(data: DataSpec) -> DataSpec:
    """The same data, where it can be drawn from; a sample as it is."""
    if data.source != f"{HUB_PREFIX}{DATA}":
        return data
    return data.model_copy(update={"source": str(_file())})


def _file() -> Path:
    """JSONL in the cache, fetched once. Raises what reading a hub dataset raises."""
    path = cache_dir() / "reproduce" / "imdb.jsonl"
    if not path.exists():
        parts = read_source(f"{HUB_PREFIX}{DATA}", ColumnSelection())
        rows = ({"text": row.text, "label": row.label} for part in parts.values() for row in part)
        with atomic_path(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path
