"""Many settings under one name. What a description says itself wins over its preset."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

Description = dict[str, Any]


class Preset(StrEnum):
    """Where the settings come from."""

    SEED = "seed"  # the "LoRA from scratch" lessons


PRESETS: Mapping[Preset, Description] = {
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
            "max_grad_norm": 1e6,  # not clipped
            "encoder_dropout": 0.1,  # as DistilBERT's config has it
            "head_dropout": 0.2,
        },
        "stop": {"select_by": "accuracy", "evaluations_per_epoch": 1},
    },
}


def unfolded(description: Mapping[str, Any]) -> Description:
    """The description with what its preset adds; as it is without one, or with an unknown one."""
    name = description.get("preset")
    if name not in list(Preset):
        return dict(description)
    said = dict(description)
    for section, settings in PRESETS[Preset(name)].items():
        if not isinstance(settings, Mapping):
            said.setdefault(section, settings)
            continue
        own = said.get(section, {})
        if isinstance(own, Mapping) and own.get("type") in (None, settings.get("type")):
            said[section] = {**settings, **own}
    return said
