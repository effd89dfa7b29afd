"""Builds the table of the cells, and a comparison with the table of the lessons."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.columns import aligned
from benchmarks.reproduce.plan import HUB, LINEAR, ROWS, SIZES, Lesson, Size
from benchmarks.results_file import DIRECTORY, ResultsFile
from benchmarks.spread import Spread, bits

PARTS = ("train", "validation", "test")
Metrics = Mapping[str, Any]


def summary(cells: Iterable[str], results: ResultsFile) -> dict[str, dict[str, Any]]:
    """Of these cells, all of one size: row → means over its seeds, and errors of test, 0 to 1."""
    found: dict[str, list[Metrics]] = {}
    for cell in cells:
        found.setdefault(cell.split("/")[1], []).append(results.metrics(cell))
    data = {each["data"] for seeds in found.values() for each in seeds}
    assert len(data) <= 1, "the rows saw other texts"
    return {row: _means(found[row]) for row in ROWS if row in found}


def _means(seeds: Sequence[Metrics]) -> dict[str, Any]:
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


def table(report: Mapping[str, Metrics]) -> str:
    """A line for each row: accuracies and errors in percent, seconds of one training."""
    lines = [
        ["", "trained", *PARTS, "se of seeds", "se of texts", "seeds", "seconds", "lessons' test"]
    ]
    for row, metrics in report.items():
        lesson = ROWS[row].lesson
        lines.append(
            [
                ROWS[row].title,
                _count(metrics["parameters"]),
                *(_percent(metrics[part]) for part in PARTS),
                _percent(metrics["test_seeds_se"]),
                _percent(metrics["test_texts_se"]),
                "" if row == LINEAR else str(metrics["seeds"]),
                f"{metrics['seconds']:,.0f}",
                f"{lesson.test:.2f}" if lesson else "",
            ]
        )
    return aligned(lines)


def lessons_comparison(directory: Path = DIRECTORY) -> str:
    """Markdown: the table of the lessons and ours, from the newest stored results.

    Of the largest size with all rows measured, else of the smallest size.
    """
    return comparison(*_newest(directory))


def comparison(results: ResultsFile, size: Size) -> str:
    """The comparison for this file and size."""
    names = of_size(results, size)
    report = summary(names, results)
    parts = " | ".join(PARTS)
    lines = [
        f"| | lessons: trained | {parts} | here: trained | {parts} |",
        "|---|" + "---:|" * 8,
        *(_line(row, report.get(row)) for row in ROWS),
        "",
        f"Accuracies in percent. The lessons: {HUB.description()}, one seed; the standard error "
        f"of 10,000 predictions is about 0.3. Here: {size.description()}; ± is the standard error"
        f"{_where(report, names, results)}.",
    ]
    return "\n".join(lines)


def of_size(results: ResultsFile, size: Size) -> list[str]:
    """Names of the stored cells of a size."""
    return [name for name in results.cells if name.startswith(f"{size.name}/")]


def _newest(directory: Path) -> tuple[ResultsFile, Size]:
    """The results that `lessons_comparison` shows."""
    found = [ResultsFile(path) for path in directory.glob("reproduce-*.jsonl")]
    for size in SIZES:
        date = partial(_date, size=size)
        complete = [
            results
            for results in found
            if {name.split("/")[1] for name in of_size(results, size)} >= ROWS.keys()
        ]
        if complete:
            return max(complete, key=date), size
    # No size is complete: show what there is of the smallest.
    return max(found, key=date, default=ResultsFile(directory / "reproduce.jsonl")), size


def _date(results: ResultsFile, size: Size) -> str:
    """Of the newest cell."""
    return max((results.cells[name]["date"] for name in of_size(results, size)), default="")


def _line(row: str, metrics: Metrics | None) -> str:
    lesson = ROWS[row].lesson
    there = ["", "", "", ""] if lesson is None else _lesson(lesson)
    here = ["", "", "", "not measured yet"]
    if metrics is not None:
        accuracies = [_percent(metrics[part]) for part in PARTS]
        error = f" ± {_percent(metrics['test_se'])}"
        here = [_count(metrics["parameters"]), *accuracies[:2], accuracies[2] + error]
    return "| " + " | ".join([ROWS[row].title, *there, *here]) + " |"


def _lesson(lesson: Lesson) -> list[str]:
    accuracies = [getattr(lesson, part) for part in PARTS]
    return [_count(lesson.parameters), *("" if a is None else f"{a:.2f}" for a in accuracies)]


def _where(report: Mapping[str, Metrics], names: Sequence[str], results: ResultsFile) -> str:
    """Seeds, versions of the training unless the cells are older, processors and days."""
    seeds = {metrics["seeds"] for row, metrics in report.items() if row != LINEAR}
    if not seeds:
        return ""
    how_many = " to ".join(map(str, sorted({min(seeds), max(seeds)})))
    settings = (results.metrics(name).get("settings", {}) for name in names)
    versions = sorted({each["training_version"] for each in settings if "training_version" in each})
    trained = f"; training version {' and '.join(map(str, versions))}" if versions else ""
    where = results.where(names)
    machines, days = (" and ".join(where[each]) for each in ("processor", "dates"))
    return f"; seeds: {how_many}{trained}; {machines}, {days}"


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"
