"""The rows of the table, the three sizes in which it is measured, and the cells in their order."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lora_core.specs.data import DataSpec
from lora_core.specs.method import LayerRole
from lora_core.specs.train import Preset, TrainSpec

LINEAR = "linear"  # has no seed
BASE, DATA = "distilbert-base-uncased", "stanfordnlp/imdb"  # of the lessons, on the hub


@dataclass(frozen=True)
class Lesson:
    """What the lessons report, in percent."""

    test: float
    validation: float | None = None
    train: float | None = None
    parameters: int | None = None  # that train


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)  # the rest are defaults
    lesson: Lesson | None = None


LESSONS = {"preset": Preset.SEED}
_BEST = {"type": "lora", "alpha": 1.0, "targets": (LayerRole.QUERY, LayerRole.VALUE, LayerRole.MLP)}
ROWS: Mapping[str, Row] = {
    LINEAR: Row("linear model (TF-IDF + logistic regression)", lesson=Lesson(88.85)),
    "last": Row(
        "last two layers",
        LESSONS | {"method": {"type": "baseline"}},
        Lesson(86.22, 87.26, 86.68, 592_130),
    ),
    "lora": Row("LoRA of the lessons", LESSONS, Lesson(89.44, 89.98, 92.15, 147_456)),
    "full": Row(
        "all layers",
        LESSONS | {"method": {"type": "full"}},
        Lesson(92.31, 92.80, 96.41, 66_955_010),
    ),
    # The lessons say "about 500,000"; this is what the settings come to.
    "best": Row(
        "best LoRA of their grid", LESSONS | {"method": _BEST}, Lesson(92.39, 92.96, None, 516_096)
    ),
    "ours": Row("our defaults", {"method": {"type": "lora"}}),
}


@dataclass(frozen=True)
class Size:
    """A base and its texts."""

    name: str
    base: str
    data: DataSpec

    def description(self) -> str:
        """In words."""
        data = self.data
        counts = f"{data.train_size:,}/{data.validation_size:,}/{data.test_size:,}"
        return f"{self.base}, {counts} IMDB reviews of at most {data.max_length} tokens"


def _size(name: str, base: str, source: str, counts: tuple[int, int, int], length: int) -> Size:
    train, validation, test = counts
    data = DataSpec(
        source=source,
        train_size=train,
        validation_size=validation,
        test_size=test,
        max_length=length,
    )
    return Size(name, base, data)


PART = _size("sample-4000", "minilm-l6", "imdb", (4000, 1000, 4000), 256)
SHARE = _size("sample-20000", "minilm-l6", "imdb", (20_000, 2500, 2500), 512)
# Both halves of the dataset are joined and split again, as in the lessons.
HUB = _size("hub-35000", BASE, f"hub:{DATA}", (35_000, 5000, 10_000), 512)
SIZES = (HUB, SHARE, PART)  # the largest first


@dataclass(frozen=True)
class Cell:
    """One training, or one fit of the linear model."""

    size: Size
    row: str
    seed: int | None

    @property
    def name(self) -> str:
        """Such as "sample-4000/lora/0"."""
        seed = () if self.seed is None else (str(self.seed),)
        return "/".join((self.size.name, self.row, *seed))

    @property
    def spec(self) -> TrainSpec:
        """The run; the linear model has none."""
        return TrainSpec.model_validate(
            {
                **ROWS[self.row].settings,
                "base": self.size.base,
                "data": self.size.data.model_dump(),
                "runtime": {"seed": self.seed},
                "result": {"train_metrics": True, "model": False},
            }
        )


def few(size: Size) -> Size:
    """The same with a handful of texts."""
    counts = {"train_size": 32, "validation_size": 16, "test_size": 24, "max_length": 32}
    return replace(size, data=size.data.model_copy(update=counts))


def cells(size: Size, seeds: int) -> Iterator[Cell]:
    """All rows with the first seed, then with the next, so that a stopped run has full tables."""
    yield Cell(size, LINEAR, None)
    for seed in range(seeds):
        for row in ROWS:
            if row != LINEAR:
                yield Cell(size, row, seed)


def find(name: str, *, quick: bool = False) -> Cell:
    """The cell with this name. Exits if there is none."""
    where, _, rest = name.partition("/")
    row, _, seed = rest.partition("/")
    for size in SIZES:
        if size.name == where and row in ROWS and seed.isdecimal() != (row == LINEAR):
            return Cell(few(size) if quick else size, row, int(seed) if seed else None)
    raise SystemExit(f"there is no cell {name}; one is {PART.name}/lora/0")
