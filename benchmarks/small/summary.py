"""How far ours is from the best contender on each dataset and size, from the stored cells.

The best contender is chosen on one half of the draws and compared with ours on the other half, then
the other way round, so that luck in the choice does not bias the comparison. Each draw gives
one difference of two accuracies on the same test texts. Bounds are those of the 95% interval of
Student's t over the draws; they hold for this pool and these test texts. Draws of a large share of
the pool overlap, so for other texts of the kind they are too narrow.

A dataset and size counts in the totals once ours and all contenders that are planned there have
all their draws. Before that, its gap says which of them it is without.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from benchmarks.results_file import ResultsFile
from benchmarks.small.plan import Cell, draws

Accuracies = NDArray[np.float64]  # (draws,) of one contender, in percent
Place = tuple[str, int]  # dataset and labeled texts

OURS = "auto"
COMPETITORS = ("linear", "probe", "setfit", "lora")
SENTENCES = "rotten-tomatoes"


@dataclass(frozen=True)
class Goal:
    """A bound for a number of the summary, in points or percent."""

    bound: float
    at_most: bool = False

    def judge(self, value: float | None) -> tuple[str, str, str]:
        """The goal, the number, and whether it is met."""
        goal = f"{'≤' if self.at_most else '≥'} {self.bound:.1f}"
        if value is None:
            return goal, "", "results are missing"
        met = value <= self.bound if self.at_most else value >= self.bound
        return goal, f"{value:.2f}", "met" if met else "missed"


GOALS: Mapping[str, Goal] = {
    "worst_gap_low": Goal(1.0, at_most=True),
    "mean_gain": Goal(0.0),
    "lora_256_gain": Goal(1.0),
    "rt_1000": Goal(80.0),
    "rt_4000": Goal(82.0),
}


@dataclass(frozen=True)
class Gap:
    """How much better the chosen contender is than ours, in points: a mean and its interval."""

    chosen: tuple[str, ...]  # on each half of the draws
    draws: int
    mean: float
    low: float
    high: float


def gap(competitors: Mapping[str, Accuracies], ours: Accuracies) -> Gap:
    """Of accuracies over the same draws, at least two."""
    even = np.arange(len(ours)) % 2 == 0
    differences = np.empty(len(ours))
    chosen = []
    for half in (even, ~even):
        best = max(competitors, key=lambda name: float(competitors[name][half].mean()))
        differences[~half] = (competitors[best] - ours)[~half]
        chosen.append(best)
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / len(ours) ** 0.5
    reach = float(t.ppf(0.975, len(ours) - 1)) * error
    return Gap(tuple(dict.fromkeys(chosen)), len(ours), mean, mean - reach, mean + reach)


def accuracies(cells: Iterable[Cell], results: ResultsFile) -> dict[Place, dict[str, Accuracies]]:
    """Dataset and size → contender → accuracies of all its draws. Unfinished ones are left out."""
    found: dict[Place, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    expected: dict[Place, list[int]] = {}
    for cell in cells:
        metrics = results.metrics(cell.name)
        one = found[cell.data, cell.size][cell.contender]
        one |= dict(zip(metrics["draws"], metrics["accuracy"], strict=True))
        groups = draws(cell.size, quick=cell.quick)
        expected[cell.data, cell.size] = [number for group in groups for number in group]
    return {
        place: {
            name: 100 * np.array([by_draw[number] for number in expected[place]])
            for name, by_draw in contenders.items()
            if len(by_draw) == len(expected[place])
        }
        for place, contenders in found.items()
    }


def gaps(found: Mapping[Place, Mapping[str, Accuracies]]) -> dict[Place, Gap]:
    """Gaps where ours and a contender have all their draws."""
    return {
        place: gap({name: each[name] for name in COMPETITORS if name in each}, each[OURS])
        for place, each in found.items()
        if OURS in each and any(name in each for name in COMPETITORS)
    }


def missing(
    planned: Iterable[Cell], found: Mapping[Place, Mapping[str, Accuracies]]
) -> dict[Place, list[str]]:
    """Ours and the contenders that are planned there and lack draws, of each dataset and size."""
    expected: dict[Place, dict[str, None]] = defaultdict(dict)  # a set in the order of the plan
    for cell in planned:
        if cell.contender in (*COMPETITORS, OURS):
            expected[cell.data, cell.size][cell.contender] = None
    return {
        place: [name for name in names if name not in found.get(place, {})]
        for place, names in expected.items()
    }


def summary(planned: Sequence[Cell], cells: Sequence[Cell], results: ResultsFile) -> dict[str, Any]:
    """In points and percent; None where cells are missing. `cells`: those planned that are kept."""
    found = accuracies(cells, results)
    each, lacking = gaps(found), missing(planned, found)
    complete = {place: each[place] for place, names in lacking.items() if not names}
    total = complete if len(complete) == len(lacking) else {}
    worst = max(complete, key=lambda place: complete[place].low, default=None)
    low = complete[worst].low if worst else None
    missed = low is not None and low > GOALS["worst_gap_low"].bound  # more results only raise it
    return {
        "worst_gap_low": _rounded(low if total or missed else None),
        "mean_gain": _rounded(-np.mean([gap.mean for gap in total.values()]) if total else None),
        "lora_256_gain": _rounded(_gain(found.get((SENTENCES, 256), {}), "lora", "probe")),
        "rt_1000": _rounded(_mean(found.get((SENTENCES, 1000), {}), OURS)),
        "rt_4000": _rounded(_mean(found.get((SENTENCES, 4000), {}), OURS)),
        "compared": len(complete),
        "planned": len(lacking),
        "worst": _named(worst),
        "sets": {
            _named(place): {
                **{name: _rounded(float(one.mean())) for name, one in contenders.items()},
                **(_shown(each[place]) if place in each else {}),
                "missing": lacking[place],
            }
            for place, contenders in found.items()
            if contenders
        },
    }


def _named(place: Place | None) -> str | None:
    return None if place is None else f"{place[0]} {place[1]}"


def _shown(gap: Gap) -> dict[str, Any]:
    return {
        "best": "/".join(gap.chosen),
        "draws": gap.draws,
        "gap": _rounded(gap.mean),
        "gap_low": _rounded(gap.low),
        "gap_high": _rounded(gap.high),
    }


def _mean(contenders: Mapping[str, Accuracies], name: str) -> float | None:
    return float(contenders[name].mean()) if name in contenders else None


def _gain(contenders: Mapping[str, Accuracies], one: str, other: str) -> float | None:
    if one not in contenders or other not in contenders:
        return None
    return float((contenders[one] - contenders[other]).mean())


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 2)


def table(planned: Sequence[Cell], cells: Sequence[Cell], results: ResultsFile) -> list[list[str]]:
    """A line for each dataset and size: means ± standard errors in percent, and the gap."""
    found = accuracies(cells, results)
    each, lacking = gaps(found), missing(planned, found)
    names = list(dict.fromkeys(cell.contender for cell in cells))
    lines = [["", *names, "draws", "best contender minus ours"]]
    for place, contenders in found.items():
        if not contenders:
            continue
        line = [f"{place[0]} {place[1]:,}"]
        line += [_with_error(contenders[name]) if name in contenders else "" for name in names]
        line += [str(len(next(iter(contenders.values())))), ""]
        if place in each:
            one = each[place]
            line[-1] = f"{'/'.join(one.chosen)} {one.mean:+.1f} [{one.low:+.1f}, {one.high:+.1f}]"
            if lacking[place]:
                line[-1] += f", without {', '.join(lacking[place])}"
        lines.append(line)
    return lines


def page(planned: Sequence[Cell], cells: Sequence[Cell], results: ResultsFile) -> str:
    """Goals and table in Markdown, and where it was computed."""
    numbers = summary(planned, cells, results)
    goals = [["", "goal", "so far", ""]]
    goals += [[f"`{name}`", *goal.judge(numbers[name])] for name, goal in GOALS.items()]
    where = results.where([cell.name for cell in cells])
    return "\n".join([
        *_markdown(goals),
        "",
        f"All methods have results on {numbers['compared']} of {numbers['planned']} combinations "
        "of dataset and size.",
        "",
        *_markdown(table(planned, cells, results)),
        "",
        f"Test accuracy in percent ± its standard error over draws, computed on "
        f"{' and '.join(where['processor'])}.",
    ])  # fmt: skip


def _markdown(lines: Sequence[Sequence[str]]) -> list[str]:
    first, *others = lines
    rules = ["---", *["---:"] * (len(first) - 2), "---"]
    return [f"| {' | '.join(line)} |" for line in (first, rules, *others)]


def _with_error(one: Accuracies) -> str:
    return f"{one.mean():.1f} ± {one.std(ddof=1) / len(one) ** 0.5:.1f}"
