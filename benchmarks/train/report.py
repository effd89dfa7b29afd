"""Summarizes the cells: one JSON object, a table and a chart."""

from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from benchmarks.columns import aligned
from benchmarks.results_file import ResultsFile
from benchmarks.spread import Spread, bits
from benchmarks.train.plan import BELIEVED, METHODS, PAIRS

SIDES = ("default", "tuned", "ours")
COLUMNS = (
    "reviews_per_s", "vs_default", "vs_tuned", "accuracy", "accuracy_tuned", "accuracy_diff_low",
    "peak_mb", "peak_mb_tuned", "second_job_vs_tuned",
)  # fmt: skip


def summary(results: ResultsFile) -> dict[str, Any]:
    """Ratios and shares are plain numbers, accuracies and their difference between 0 and 1."""
    qv = results.metrics("rate-lora_qv-ours")
    peak = results.metrics("peak")["gflops"]
    return {
        **{name: _method(results, name) for name in METHODS},
        "harness_vs_script": round(_harness_vs_script(results), 3),
        "gemm_peak_gflops": round(peak, 1),
        "share_of_peak": round(qv["reviews_per_s"] * qv["needed_gflop_per_review"] / peak, 4),
        "share_of_parts": round(results.metrics("parts")["share"], 4),
        **results.where(),
    }


def _method(results: ResultsFile, name: str) -> dict[str, float]:
    rates = {side: results.metrics(f"rate-{name}-{side}") for side in SIDES}
    ours, tuned = (results.metrics(f"accuracy-{name}-{side}") for side in ("ours", "tuned"))
    assert ours["data"] == tuned["data"], "the two sides saw other texts"
    right, right_tuned = (bits(side["correct"]) for side in (ours, tuned))
    rate, rate_tuned = rates["ours"]["reviews_per_s"], rates["tuned"]["reviews_per_s"]
    found = {
        "reviews_per_s": round(rate, 2),
        "vs_default": round(rate / rates["default"]["reviews_per_s"], 3),
        "vs_tuned": round(rate / rate_tuned, 3),
        "accuracy": round(float(right.mean()), 4),
        "accuracy_tuned": round(float(right_tuned.mean()), 4),
        # Of seeds and texts; with one seed, of texts alone.
        "accuracy_diff_low": round(Spread(right - right_tuned).interval()[0], 4),
        "peak_mb": round(max(rates["ours"]["peak_mb"], ours["peak_mb"]), 1),
        "peak_mb_tuned": round(max(rates["tuned"]["peak_mb"], tuned["peak_mb"]), 1),
    }
    if "second_reviews_per_s" in rates["ours"]:
        found["second_job_vs_tuned"] = round(rates["ours"]["second_reviews_per_s"] / rate_tuned, 3)
    return found


def _harness_vs_script(results: ResultsFile) -> float:
    """Rate of the tuned competitor in our harness over that in a plain script (median)."""
    pairs = [results.metrics(f"pair-{number}") for number in range(1, PAIRS + 1)]
    return median(pair["harness_vs_script"] for pair in pairs)


def check(report: dict[str, Any]) -> None:
    """Exit with an error if the tuned competitor is slower in our harness than without it."""
    found = report["harness_vs_script"]
    if found < BELIEVED:
        raise SystemExit(
            f"The tuned Trainer runs at {found:.3f} of its speed in a plain script; below "
            f"{BELIEVED} the ratios to it cannot be believed. On a busy machine, run `make "
            "bench-train FRESH=1` again once it is quiet; on a quiet one, find what "
            "benchmarks/train/competitor.py does beyond benchmarks/train/script.py."
        )


def table(report: dict[str, Any]) -> str:
    """A row per method, a column per metric."""
    lines = [["", *COLUMNS]]
    lines += [[name, *(str(report[name].get(each, "")) for each in COLUMNS)] for name in METHODS]
    facts = (
        "harness_vs_script",
        "gemm_peak_gflops",
        "share_of_peak",
        "share_of_parts",
        "processor",
        "dates",
        "commits",
    )
    return "\n".join([aligned(lines), *(f"{fact}: {report[fact]}" for fact in facts)])


def draw(results: ResultsFile, path: Path) -> None:
    """Reviews per second of each side, one panel a method, each with its own scale."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(METHODS)), METHODS, strict=True):
        rates = [results.metrics(f"rate-{name}-{side}")["reviews_per_s"] for side in SIDES]
        bars = axes.bar(list(SIDES), rates, color=["tab:gray", "tab:orange", "tab:blue"])
        axes.bar_label(bars, fmt="%.1f")
        axes.set_title(name)
        axes.margins(y=0.1)
    first, threads = results.cells["peak"], results.metrics("peak")["threads"]
    figure.suptitle(f"{first['processor']}, {threads} threads, {first['date'][:10]}")
    figure.supylabel("reviews/s")
    figure.savefig(path, dpi=120)
