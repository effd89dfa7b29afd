"""Predefined sweeps, as request bodies of POST /v1/sweeps."""

from collections.abc import Mapping
from typing import Any, Literal

PresetName = Literal["seed-grid"]

# `03_gridsearch.py` of the "LoRA from scratch" lessons, 576 trials; the last field varies fastest.
SEED_GRID: Mapping[str, Any] = {
    "job": {
        "preset": "seed",
        "method": {"type": "lora"},
        "data": {"source": "imdb"},
        "result": {"train_figures": True},  # results.txt includes the training accuracy
    },
    "space": {
        "method.alpha": [1, 4, 8, 16, 32, 64],
        "method.r": [1, 2, 4, 8, 16, 32],
        # Query and value are always adapted; key, projection and mlp are on or off.
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
