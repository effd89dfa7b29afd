"""The contenders, the numbers of labeled texts, and the cells in order."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.small import sets

Spec = Mapping[str, Any]

SIZES = (16, 32, 64, 128, 256, 1000, 4000)  # labeled texts, including validation texts
FEW = 256  # texts: up to here ten draws, above five
GROUP = 5  # draws of a cell
# Draws of nearly the whole pool would be one draw, taken ten times.
POOL_SHARE = 2 / 3
MAX_LENGTH = 256  # tokens of a text, for all that read tokens


@dataclass(frozen=True)
class Contender:
    """A method: a module of this package and its settings."""

    module: str
    spec: Spec
    sizes: tuple[int, ...] = SIZES


# The cheap ones first.
CONTENDERS: Mapping[str, Contender] = {
    "linear": Contender("linear", {"C": 30.0, "ngrams": 1, "class_weight": "balanced"}),
    # As the goal was defined. Whether another C or balanced classes are better on the datasets for
    # choosing has not been measured yet (`--choose --only /probe`).
    "probe": Contender("probe", {"C": 1.0, "class_weight": None}),
    # One fit on 64 texts makes 2,000 to 4,000 pairs; on more texts it would take hours.
    "setfit": Contender("setfit_process", {}, (16, 32, 64)),
    "lora": Contender("ours", {"method": {"type": "lora"}}),
    "auto": Contender("ours", {"method": {"type": "auto"}}),
}
# On the datasets for choosing settings: our settings and variants of them.
CHOOSING: Mapping[str, Contender] = {
    **{name: CONTENDERS[name] for name in ("linear", "probe", "lora", "auto")},
    "linear-C4": Contender("linear", {"C": 4.0, "ngrams": 1, "class_weight": "balanced"}),
    "linear-C300": Contender("linear", {"C": 300.0, "ngrams": 1, "class_weight": "balanced"}),
    "linear-even": Contender("linear", {"C": 30.0, "ngrams": 1, "class_weight": None}),
    "linear-pairs": Contender("linear", {"C": 30.0, "ngrams": 2, "class_weight": "balanced"}),
    "linear-pairs-C4-even": Contender("linear", {"C": 4.0, "ngrams": 2, "class_weight": None}),
    "probe-C10": Contender("probe", {"C": 10.0, "class_weight": None}),
    "probe-balanced": Contender("probe", {"C": 1.0, "class_weight": "balanced"}),
    "probe-C10-balanced": Contender("probe", {"C": 10.0, "class_weight": "balanced"}),
    "probe-C100": Contender("probe", {"C": 100.0, "class_weight": None}),
    "probe-C100-balanced": Contender("probe", {"C": 100.0, "class_weight": "balanced"}),
}


@dataclass(frozen=True)
class Cell:
    """Some draws of one size from one dataset, and a contender."""

    data: str
    size: int
    contender: str
    draws: tuple[int, ...]
    quick: bool = False

    @property
    def name(self) -> str:
        """Such as "imdb/256/probe/0"."""
        return f"{self.data}/{self.size}/{self.contender}/{self.draws[0] // GROUP}"

    @property
    def definition(self) -> Contender:
        """Of its contender."""
        return contenders(self.data)[self.contender]


def contenders(data: str) -> Mapping[str, Contender]:
    """The contenders on this dataset."""
    return CHOOSING if data in sets.CHOICE else CONTENDERS


def sizes(data: str, *, quick: bool = False) -> Sequence[int]:
    """Sizes that the dataset has enough texts for, with at least one text per label."""
    if quick:
        return (24,)
    facts = sets.facts(data)
    return [n for n in SIZES if facts.labels <= n <= POOL_SHARE * facts.pool]


def draws(size: int, *, quick: bool = False) -> Sequence[tuple[int, ...]]:
    """The numbers of the draws, in groups."""
    if quick:
        return [(0, 1)]
    count = 10 if size <= FEW else 5
    return [tuple(range(first, first + GROUP)) for first in range(0, count, GROUP)]


def cells(data: Sequence[str], *, quick: bool = False) -> Iterable[Cell]:
    """All cells: the cheap contenders first, so that a partial table is useful."""
    for contender, definition in {**CONTENDERS, **CHOOSING}.items():
        for name in (name for name in data if contender in contenders(name)):
            for size in sizes(name, quick=quick):
                if quick or size in definition.sizes:
                    for group in draws(size, quick=quick):
                        yield Cell(name, size, contender, group, quick)


def find(name: str, *, quick: bool = False) -> Cell:
    """The cell with this name. Exits if there is none."""
    data = name.partition("/")[0]
    if data in sets.TABLE or data in sets.CHOICE:
        for cell in cells([data], quick=quick):
            if cell.name == name:
                return cell
    raise SystemExit(f"there is no cell {name}; one is rotten-tomatoes/256/probe/0")
