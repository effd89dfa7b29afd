"""Sweeps that have a name. Pure data: bodies as they are sent."""

from collections.abc import Mapping
from typing import Any, Literal

PresetName = Literal["seed-grid"]

# `03_gridsearch.py` of the "LoRA from scratch" lessons, 576 cells: the last setting changes first.
SEED_GRID: Mapping[str, Any] = {
    "job": {
        "preset": "seed",
        "method": {"type": "lora"},
        "data": {"source": "imdb"},
        "result": {"train_figures": True},  # its results.txt has the accuracy on training, too
    },
    "space": {
        "method.alpha": [1, 4, 8, 16, 32, 64],
        "method.r": [1, 2, 4, 8, 16, 32],
        # Query and value always; key, projection and mlp off and on.
        "method.targets": [
            ["query", "value"],
            ["query", "value", "mlp"],
            ["query", "value", "projection"],
            ["query", "value", "projection", "mlp"],
            ["query", "key", "value"],
            ["query", "key", "value", "mlp"],
            ["query", "key", "value", "projection"],
            ["query", "key", "value", "projection", "mlp"],
        ],
        "method.head": ["frozen", "lora"],
    },
    "strategy": {"type": "grid"},
}

PRESETS: Mapping[PresetName, Mapping[str, Any]] = {"seed-grid": SEED_GRID}
