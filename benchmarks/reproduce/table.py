"""From the cells to the table, also beside that of the lessons."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from benchmarks.columns import aligned
from benchmarks.kept import DIRECTORY, Kept
from benchmarks.reproduce.plan import HUB, LINEAR, ROWS, SIZES, Lesson, Size
from benchmarks.spread import Spread, bits

PARTS = ("train", "validation", "test")
Figures = Mapping[str, Any]


def summary(cells: Iterable[str], results: Kept) -> dict[str, dict[str, Any]]:
    """Of these cells, all of one size: row → means over its seeds, and errors of test, 0 to 1."""
    found: dict[str, list[Figures]] = {}
    for cell in cells:
        found.setdefault(cell.split("/")[1], []).append(results.figures(cell))
    data = {each["data"] for seeds in found.values() for each in seeds}
    assert len(data) <= 1, "the rows saw other texts"
    return {row: _means(found[row]) for row in ROWS if row in found}


def _means(seeds: Sequence[Figures]) -> dict[str, Any]:
    spread = Spread(bits([each["correct"] for each in seeds]))
    means = {part: sum(each[part] for each in seeds) / len(seeds) for part in PARTS}
    return {
        "parameters": seeds[0].get("parameters"),
        **{part: round(mean, 4) for part, mean in means.items()},
        "test_seeds_se": round(spread.over_seeds, 4) if len(seeds) > 1 else None,
        "test_texts_se": round(spread.over_texts, 4),
        "test_se": round(spread.error, 4),
        "seeds": len(seeds),
        "seconds": round(sum(each["train_seconds"] for each in seeds) / len(seeds), 1),
    }


def table(told: Mapping[str, Figures]) -> str:
    """A line for each row: accuracies and errors in per cent, seconds of one training."""
    lines = [
        ["", "trained", *PARTS, "se of seeds", "se of texts", "seeds", "seconds", "lessons' test"]
    ]
    for row, figures in told.items():
        lesson = ROWS[row].lesson
        lines.append(
            [
                ROWS[row].title,
                _count(figures["parameters"]),
                *(_percent(figures[part]) for part in PARTS),
                _percent(figures["test_seeds_se"]),
                _percent(figures["test_texts_se"]),
                "" if row == LINEAR else str(figures["seeds"]),
                f"{figures['seconds']:,.0f}",
                f"{lesson.test:.2f}" if lesson else "",
            ]
        )
    return aligned(lines)


def beside_lessons(directory: Path = DIRECTORY) -> str:
    """Markdown: the table of the lessons beside ours, from the newest results that are kept.

    The largest size of which every row was measured, else the smallest with what there is.
    """
    return beside(*_newest(directory))


def beside(results: Kept, size: Size) -> str:
    """The same of this file and size."""
    names = of_size(results, size)
    told = summary(names, results)
    parts = " | ".join(PARTS)
    lines = [
        f"| | lessons: trained | {parts} | here: trained | {parts} |",
        "|---|" + "---:|" * 8,
        *(_line(row, told.get(row)) for row in ROWS),
        "",
        f"Accuracies in per cent. The lessons: {HUB.told()}, one seed; the standard error of "
        f"10,000 answers is about 0.3. Here: {size.told()}; ± is the standard error"
        f"{_where(told, names, results)}.",
    ]
    return "\n".join(lines)


def of_size(results: Kept, size: Size) -> list[str]:
    """Names of the cells of a size that are kept."""
    return [name for name in results.cells if name.startswith(f"{size.name}/")]


def newest(names: Iterable[str], results: Kept) -> Mapping[str, Any]:
    """The record of the cell that was computed last."""
    return max((results.cells[name] for name in names), key=itemgetter("date"))


def _newest(directory: Path) -> tuple[Kept, Size]:
    """What `beside_lessons` shows; nothing was kept where there is no file."""
    found = [Kept(path) for path in directory.glob("reproduce-*.jsonl")]
    for size in SIZES:
        date = partial(_date, size=size)
        whole = [
            results
            for results in found
            if {name.split("/")[1] for name in of_size(results, size)} >= ROWS.keys()
        ]
        if whole:
            return max(whole, key=date), size
    # None is whole: of the last size, the smallest, what there is.
    return max(found, key=date, default=Kept(directory / "reproduce.jsonl")), size


def _date(results: Kept, size: Size) -> str:
    """Of the newest cell."""
    return max((results.cells[name]["date"] for name in of_size(results, size)), default="")


def _line(row: str, figures: Figures | None) -> str:
    lesson = ROWS[row].lesson
    there = ["", "", "", ""] if lesson is None else _lesson(lesson)
    here = ["", "", "", "not measured yet"]
    if figures is not None:
        accuracies = [_percent(figures[part]) for part in PARTS]
        error = f" ± {_percent(figures['test_se'])}"
        here = [_count(figures["parameters"]), *accuracies[:2], accuracies[2] + error]
    return "| " + " | ".join([ROWS[row].title, *there, *here]) + " |"


def _lesson(lesson: Lesson) -> list[str]:
    accuracies = [getattr(lesson, part) for part in PARTS]
    return [_count(lesson.parameters), *("" if a is None else f"{a:.2f}" for a in accuracies)]


def _where(told: Mapping[str, Figures], names: Sequence[str], results: Kept) -> str:
    """Seeds, processor and day."""
    seeds = {figures["seeds"] for row, figures in told.items() if row != LINEAR}
    if not seeds:
        return ""
    record = newest(names, results)
    how_many = " to ".join(map(str, sorted({min(seeds), max(seeds)})))
    return f"; seeds: {how_many}; {record['processor']}, {record['date'][:10]}"


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"
