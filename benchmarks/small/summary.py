"""How far ours is from the best contender on each dataset and size, from the stored cells.

The best contender is chosen on one half of the draws and compared with ours on the other half, then
the other way round, so that luck in the choice does not bias the comparison. Each draw gives
one difference of two accuracies on the same test texts. Bounds are those of the 95% interval of
Student's t over the draws; they hold for this pool and these test texts. Draws of a large share of
the pool overlap, so for other texts of the kind they are too narrow.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from benchmarks.results_file import ResultsFile
from benchmarks.small.plan import CONTENDERS, OURS, Cell, draws
from benchmarks.small.sets import TABLE

Accuracies = NDArray[np.float64]  # (draws,) of one contender, in percent
Place = tuple[str, int]  # dataset and labeled texts

COMPETITORS = ("linear", "probe", "setfit", "lora")
SENTENCES = "rotten-tomatoes"


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
    ours = name_of_ours(found)
    others = [name for name in COMPETITORS if name != ours]
    return {
        place: gap({name: each[name] for name in others if name in each}, each[ours])
        for place, each in found.items()
        if ours in each and any(name in each for name in others)
    }


def name_of_ours(found: Mapping[Place, Mapping[str, Accuracies]]) -> str:
    """The first of `OURS` that was computed."""
    there = {name for each in found.values() for name in each}
    return next((name for name in OURS if name in there), OURS[-1])


def summary(cells: Sequence[Cell], results: ResultsFile) -> dict[str, Any]:
    """In points and percent; None where cells are missing."""
    found = accuracies(cells, results)
    each = gaps(found)
    ours = name_of_ours(found)
    return {
        "worst_gap_low": _rounded(max((gap.low for gap in each.values()), default=None)),
        "mean_gain": _rounded(-np.mean([gap.mean for gap in each.values()]) if each else None),
        "lora_256_gain": _rounded(_gain(found.get((SENTENCES, 256), {}), "lora", "probe")),
        "rt_1000": _rounded(_mean(found.get((SENTENCES, 1000), {}), ours)),
        "rt_4000": _rounded(_mean(found.get((SENTENCES, 4000), {}), ours)),
        "ours": ours,
        "compared": len(each),
        "worst": " ".join(map(str, max(each, key=lambda place: each[place].low))) if each else None,
        "sets": {
            f"{data} {size}": {
                **{name: _rounded(float(one.mean())) for name, one in contenders.items()},
                **(_shown(each[data, size]) if (data, size) in each else {}),
            }
            for (data, size), contenders in found.items()
            if contenders
        },
    }


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


def table(cells: Sequence[Cell], results: ResultsFile) -> list[list[str]]:
    """A line for each dataset and size: means ± standard errors in percent, and the gap."""
    found = accuracies(cells, results)
    each = gaps(found)
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
        lines.append(line)
    return lines


def page(results: ResultsFile) -> str:
    """The table of all stored cells in Markdown, and where it was computed."""
    cells = [_cell(name, metrics["metrics"]) for name, metrics in results.cells.items()]
    cells.sort(key=lambda cell: [*CONTENDERS].index(cell.contender))
    cells.sort(key=lambda cell: ([*TABLE].index(cell.data), cell.size))
    first, *lines = table(cells, results)
    rules = ["---", *["---:"] * (len(first) - 2), "---"]
    where = results.where(results.cells)
    return "\n".join([
        *(f"| {' | '.join(line)} |" for line in (first, rules, *lines)),
        "",
        f"Test accuracy in percent ± its standard error over draws, computed on "
        f"{' and '.join(where['processor'])}.",
    ])  # fmt: skip


def _cell(name: str, metrics: Mapping[str, Any]) -> Cell:
    data, size, contender, _ = name.split("/")
    return Cell(data, int(size), contender, tuple(metrics["draws"]))


def _with_error(one: Accuracies) -> str:
    return f"{one.mean():.1f} ± {one.std(ddof=1) / len(one) ** 0.5:.1f}"
