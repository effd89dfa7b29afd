"""Presets: many settings under one name. Settings in the spec itself override the preset."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

SpecDict = dict[str, Any]


class Preset(StrEnum):
    """The source of the settings."""

    SEED = "seed"  # the "LoRA from scratch" lessons


PRESETS: Mapping[Preset, SpecDict] = {
    Preset.SEED: {
        "pooling": "cls",
        "head_init": "random",
        "method": {
            "type": "lora",
            "variant": "unscaled",
            "r": 8,
            "alpha": 16.0,
            "targets": ["query", "value"],
            "head": "frozen",
        },
        "optim": {
            "epochs": 3,
            "learning_rate": 5e-5,
            "batch_size": 12,
            "warmup": 0.0,
            "decay": "none",
            "weight_decay": 0.0,
            "max_grad_norm": 1e6,  # no clipping
            "encoder_dropout": 0.1,  # as DistilBERT's config has it
            "head_dropout": 0.2,
        },
        "stop": {"select_by": "accuracy", "evaluations_per_epoch": 1},
    },
}


def apply_preset(spec: Mapping[str, Any]) -> SpecDict:
    """Return the spec with the settings of its preset, unchanged without a known one."""
    name = spec.get("preset")
    if name not in list(Preset):
        return dict(spec)
    merged = dict(spec)
    for section, settings in PRESETS[Preset(name)].items():
        if not isinstance(settings, Mapping):
            merged.setdefault(section, settings)
            continue
        explicit = merged.get(section, {})
        if isinstance(explicit, Mapping) and explicit.get("type") in (None, settings.get("type")):
            merged[section] = {**settings, **explicit}
    return merged
