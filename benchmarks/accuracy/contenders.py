"""The contenders, their datasets, and the cells of the table in order."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lora_core.specs.data import DataSpec, Split
from lora_core.specs.method import LayerRole
from lora_core.specs.train import Preset, TrainSpec

Description = dict[str, Any]

SEEDS = (0, 1, 2)
LINEAR = "linear"  # fitted in every run; has no seed

# As many sentences for test as are left: differences of half a point drown in fewer.
FULL: Mapping[str, DataSpec] = {
    "rotten-tomatoes-2000": DataSpec(
        source="rotten-tomatoes", train_size=2000, validation_size=500, test_size=5500
    ),
    "rotten-tomatoes-6500": DataSpec(
        source="rotten-tomatoes", train_size=6500, validation_size=500, test_size=1500
    ),
    "imdb-8000": DataSpec(
        source="imdb", train_size=8000, validation_size=1000, test_size=3000, max_length=512
    ),
}
_FEW = {"train_size": 32, "validation_size": 16, "test_size": 24, "max_length": 32}

# Settings that a contender leaves out are the project's defaults on the day of the run.
CONTENDERS: Mapping[str, Description] = {
    "lora": {"method": {"type": "lora"}},
    "full": {"method": {"type": "full"}},
    "seed": {"preset": Preset.SEED},
    # A plain loop sets everything, so it does not follow later changes of the defaults.
    "plain": {
        "method": {
            "type": "lora",
            "variant": "lora",
            "r": 8,
            "alpha": 16.0,
            "dropout": 0.0,
            "targets": tuple(LayerRole),
            "head": "train",
        },
        "head_init": "random",
        "optim": {
            "epochs": 2,
            "learning_rate": 1e-3,
            "head_learning_rate": 1e-3,
            "batch_size": 32,
            "warmup": 0.06,
            "decay": "linear",
            "weight_decay": 0.01,
            "max_grad_norm": 1.0,
            "encoder_dropout": 0.0,
            "head_dropout": 0.1,
        },
        "stop": {"select_by": "macro_f1", "evaluations_per_epoch": 2},
    },
}
# What the defaults gain over these two shows on the smallest data already.
_ON = {"seed": ("rotten-tomatoes-2000",), "plain": ("rotten-tomatoes-2000",)}


@dataclass(frozen=True)
class Cell:
    """One training, or one fit of the linear model, and the split it is evaluated on."""

    data: str
    contender: str
    seed: int | None
    spec: TrainSpec | DataSpec  # the linear model needs the data alone
    evaluated_on: Split

    @property
    def name(self) -> str:
        """Such as "imdb-8000/lora/0"."""
        seed = () if self.seed is None else (str(self.seed),)
        return "/".join((self.data, self.contender, *seed))


def few(data: Mapping[str, DataSpec]) -> Mapping[str, DataSpec]:
    """The same with a handful of texts each."""
    return {name: each.model_copy(update=_FEW) for name, each in data.items()}


def described(contender: Description, data: DataSpec, seed: int) -> TrainSpec:
    """The run of a contender."""
    fields = {**contender, "data": data.model_dump(), "runtime": {"seed": seed}}
    return TrainSpec.model_validate(fields)


def cells(data: Mapping[str, DataSpec]) -> Iterable[Cell]:
    """Those of the table: the cheap one of each dataset first."""
    for name, each in data.items():
        yield Cell(name, LINEAR, None, each, Split.TEST)
        for contender, settings in CONTENDERS.items():
            for seed in SEEDS if name in _ON.get(contender, data) else ():
                spec = described(settings, each, seed)
                yield Cell(name, contender, seed, spec, Split.TEST)
