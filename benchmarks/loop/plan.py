"""The datasets, how much is measured on each, and the cells in order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

# A set, and the labels that random choice gets. The drug reviews are too few for 500 labels.
BUDGETS: Mapping[str, int] = {
    "rotten-tomatoes": 500,
    "drug-condition": 130,
    "multilabel": 500,
    "questions": 500,
}
# Those of which `labels_to_target_ratio` is the mean.
MAIN_SETS = ("rotten-tomatoes", "drug-condition", "multilabel")
LARGE_SETS = ("rotten-tomatoes", "multilabel", "questions")
ACCURACY_SETS = ("rotten-tomatoes", "drug-condition", "questions")
# `--choose`: settings may be chosen by these, and nothing is reported of them.
CHOICE_BUDGETS: Mapping[str, int] = {
    "bbc-news": 200,
    "reuters": 500,
    "sms-spam": 500,
    "tweets": 500,
    "tweets-multilabel": 500,
}
# Models are trained on the first three, and meet the texts of all others.
UNFAMILIAR_SETS = ("rotten-tomatoes", "questions", "drug-condition", "sms-spam")
TRAINED_SETS = UNFAMILIAR_SETS[:3]
QUICK_SETS = ("rotten-tomatoes", "multilabel")  # they come with the environment

LEVEL = 0.05  # of all tests
FLIPPED_SHARE = 0.05
TOP_SUSPECTS = 50


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    seeds: int  # simulated projects of each set
    longest: float  # labels of our choice, as a multiple of the budget
    repetitions: int  # of live accuracy
    live_texts: int  # labeled ones of each
    weeks: int  # without drift, over all sets
    drifts: int  # with drift, of each set
    suspect_texts: int
    curve_sizes: tuple[int, ...]  # labels from which the curve is extrapolated to twice as many
    curve_draws: int
    retrainings: int
    paired_texts: int  # that both models are compared on
    unfamiliar_texts: int  # that a model is trained on
    foreign_texts: int  # of each other set


FULL = Size(
    seeds=10,
    longest=1.5,
    repetitions=1000,
    live_texts=60,
    weeks=1000,
    drifts=40,
    suspect_texts=4000,
    curve_sizes=(250, 500, 1000),
    curve_draws=3,
    retrainings=500,
    paired_texts=200,
    unfamiliar_texts=1500,
    foreign_texts=300,
)
QUICK = Size(
    seeds=1,
    longest=1.0,
    repetitions=20,
    live_texts=20,
    weeks=4,
    drifts=1,
    suspect_texts=60,
    curve_sizes=(),
    curve_draws=1,
    retrainings=10,
    paired_texts=30,
    unfamiliar_texts=120,
    foreign_texts=30,
)
QUICK_BUDGET = 40


@dataclass(frozen=True)
class Cell:
    """One thing that is measured on one set."""

    what: str
    data: str
    seed: int = 0

    @property
    def name(self) -> str:
        """Such as "labels/questions/0"."""
        return f"{self.what}/{self.data}" + (f"/{self.seed}" if self.what == "labels" else "")


def budget(data: str, *, quick: bool) -> int:
    """The labels that random choice gets."""
    return QUICK_BUDGET if quick else {**BUDGETS, **CHOICE_BUDGETS}[data]


def size(*, quick: bool) -> Size:
    """How much is measured."""
    return QUICK if quick else FULL


def cells(*, quick: bool = False, choose: bool = False) -> list[Cell]:
    """All cells, the cheap ones first."""
    seeds = range(size(quick=quick).seeds)
    if choose:
        return [Cell("labels", data, seed) for data in CHOICE_BUDGETS for seed in seeds]
    kept: Callable[[tuple[str, ...]], list[str]] = lambda sets: [  # noqa: E731
        data for data in sets if not quick or data in QUICK_SETS
    ]
    return [
        *(Cell("suspects", data) for data in kept(LARGE_SETS)),
        *(Cell("curve", data) for data in kept(LARGE_SETS)),
        *(Cell("live", data) for data in kept(tuple(BUDGETS))),
        *(Cell("promote", data) for data in kept(LARGE_SETS)),
        *(Cell("drift", data) for data in kept(("rotten-tomatoes", "questions"))),
        *(Cell("unfamiliar", data) for data in kept(TRAINED_SETS)),
        *(Cell("labels", data, seed) for data in kept(tuple(BUDGETS)) for seed in seeds),
        Cell("service", "rotten-tomatoes"),
    ]


def find(name: str, *, quick: bool = False) -> Cell:
    """The cell with this name. Exits if there is none."""
    for choose in (False, True):
        for cell in cells(quick=quick, choose=choose):
            if cell.name == name:
                return cell
    raise SystemExit(f"there is no cell {name}; one is labels/rotten-tomatoes/0")
