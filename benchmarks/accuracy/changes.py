"""Single changes of the LoRA defaults, and the cells that try them."""

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.accuracy.contenders import CONTENDERS, SEEDS, Cell, Description, described
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.method import LayerRole, LoraVariant
from lora_core.specs.train import TrainSpec

DEFAULTS = "defaults"  # what every change is measured against

# Short and long texts. A gain of a point would drown in fewer than these for validation.
DATA: Mapping[str, DataSpec] = {
    "rotten-tomatoes-2000": DataSpec(
        source="rotten-tomatoes", train_size=2000, validation_size=2500, test_size=1500
    ),
    "imdb-2000": DataSpec(
        source="imdb", train_size=2000, validation_size=2500, test_size=3000, max_length=256
    ),
}

# Name → what it replaces. Changes that equal today's defaults are left out of a run,
# so a change and its reverse may both be listed.
CHANGES: Mapping[str, Description] = {
    "epochs-1": {"optim": {"epochs": 1}},
    "epochs-2": {"optim": {"epochs": 2}},
    "epochs-3": {"optim": {"epochs": 3}},
    "epochs-5": {"optim": {"epochs": 5}},
    "rate-5e-4": {"optim": {"learning_rate": 5e-4}},
    "rate-1e-3": {"optim": {"learning_rate": 1e-3}},
    "rate-1.5e-3": {"optim": {"learning_rate": 1.5e-3}},
    "rate-2e-3": {"optim": {"learning_rate": 2e-3}},
    "rate-4e-3": {"optim": {"learning_rate": 4e-3}},
    "query-value": {"method": {"targets": (LayerRole.QUERY, LayerRole.VALUE)}},
    "all-linears": {"method": {"targets": tuple(LayerRole)}},
    "rank-16": {"method": {"r": 16}},
    "alpha-32": {"method": {"alpha": 32.0}},
    "rank-16-alpha-32": {"method": {"r": 16, "alpha": 32.0}},
    "rslora": {"method": {"variant": LoraVariant.RSLORA}},
    "dora": {"method": {"variant": LoraVariant.DORA}},
    "adapter-dropout-0.1": {"method": {"dropout": 0.1}},
    "no-warmup": {"optim": {"warmup": 0.0}},
    "warmup-0.06": {"optim": {"warmup": 0.06}},
    "warmup-0.1": {"optim": {"warmup": 0.1}},
    "cosine": {"optim": {"decay": "cosine"}},
    "weight-decay-0": {"optim": {"weight_decay": 0.0}},
    "weight-decay-0.01": {"optim": {"weight_decay": 0.01}},
    "weight-decay-0.1": {"optim": {"weight_decay": 0.1}},
    "head-dropout-0": {"optim": {"head_dropout": 0.0}},
    "head-dropout-0.1": {"optim": {"head_dropout": 0.1}},
    "batch-16": {"optim": {"batch_size": 16}},
    "batch-32": {"optim": {"batch_size": 32}},
    # Twice the steps and noisier ones: a rate near the edge diverges here.
    "batch-16-rate-2e-3": {"optim": {"batch_size": 16, "learning_rate": 2e-3}},
    # Not for the defaults of LoRA: what it is measured against should be at its best as well.
    "full-rate-5e-5": {"method": {"type": "full"}, "optim": {"learning_rate": 5e-5}},
    "full-rate-1e-4": {"method": {"type": "full"}, "optim": {"learning_rate": 1e-4}},
    "full-rate-2e-4": {"method": {"type": "full"}, "optim": {"learning_rate": 2e-4}},
}


def changed(spec: TrainSpec, change: Description) -> TrainSpec:
    """The spec with the change applied."""
    fields = spec.model_dump()
    for section, values in change.items():
        same = values.get("type") in (None, fields[section].get("type"))
        fields[section] = (fields[section] if same else {}) | values
    return TrainSpec.model_validate(fields)


def is_default(name: str) -> bool:
    """Whether the defaults already include it."""
    spec = described(CONTENDERS["lora"], DataSpec(), seed=0)
    return changed(spec, CHANGES[name]) == spec


def cells(names: Sequence[str], data: Mapping[str, DataSpec]) -> Iterable[Cell]:
    """The defaults and each change, or all changes, evaluated on validation only."""
    tried = {name: CHANGES[name] for name in names or CHANGES if not is_default(name)}
    for where, texts in data.items():
        for name, change in {DEFAULTS: {}, **tried}.items():
            for seed in SEEDS:
                spec = changed(described(CONTENDERS["lora"], texts, seed), change)
                yield Cell(where, name, seed, spec, Split.VALIDATION)
