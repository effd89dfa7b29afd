"""From the cells to the figures that are told: one JSON object, a table, a picture."""

from pathlib import Path
from statistics import NormalDist, median
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.columns import aligned
from benchmarks.kept import Kept
from benchmarks.spread import bits
from benchmarks.train.plan import BELIEVED, METHODS, PAIRS

SIDES = ("default", "tuned", "ours")
COLUMNS = (
    "reviews_per_s", "vs_default", "vs_tuned", "accuracy", "accuracy_tuned", "accuracy_diff_low",
    "peak_mb", "peak_mb_tuned", "second_job_vs_tuned",
)  # fmt: skip


def summary(results: Kept) -> dict[str, Any]:
    """Ratios and shares are plain numbers, accuracies and their difference between 0 and 1."""
    any_cell = results.cells["peak"]
    qv = results.figures("rate-lora_qv-ours")
    peak = results.figures("peak")["gflops"]
    return {
        **{name: _method(results, name) for name in METHODS},
        "harness_vs_script": round(_harness_vs_script(results), 3),
        "gemm_peak_gflops": round(peak, 1),
        "share_of_peak": round(qv["reviews_per_s"] * qv["needed_gflop_per_review"] / peak, 4),
        "share_of_parts": round(results.figures("parts")["share"], 4),
        "processor": any_cell["processor"],
        "versions": any_cell["versions"],
    }


def _method(results: Kept, name: str) -> dict[str, float]:
    rates = {side: results.figures(f"rate-{name}-{side}") for side in SIDES}
    ours, tuned = (results.figures(f"accuracy-{name}-{side}") for side in ("ours", "tuned"))
    assert ours["data"] == tuned["data"], "the two sides saw other texts"
    # How often each text was answered rightly, as a share of the seeds.
    right, right_tuned = (bits(side["correct"]).mean(axis=0) for side in (ours, tuned))
    rate, rate_tuned = rates["ours"]["reviews_per_s"], rates["tuned"]["reviews_per_s"]
    found = {
        "reviews_per_s": round(rate, 2),
        "vs_default": round(rate / rates["default"]["reviews_per_s"], 3),
        "vs_tuned": round(rate / rate_tuned, 3),
        "accuracy": round(float(right.mean()), 4),
        "accuracy_tuned": round(float(right_tuned.mean()), 4),
        "accuracy_diff_low": round(lower_end(right, right_tuned), 4),
        "peak_mb": round(max(rates["ours"]["peak_mb"], ours["peak_mb"]), 1),
        "peak_mb_tuned": round(max(rates["tuned"]["peak_mb"], tuned["peak_mb"]), 1),
    }
    if "second_reviews_per_s" in rates["ours"]:
        found["second_job_vs_tuned"] = round(rates["ours"]["second_reviews_per_s"] / rate_tuned, 3)
    return found


def _harness_vs_script(results: Kept) -> float:
    """The tuned rival's rate in our harness over that in a plain script: median of the pairs."""
    pairs = [results.figures(f"pair-{number}") for number in range(1, PAIRS + 1)]
    return median(pair["harness_vs_script"] for pair in pairs)


def check(told: dict[str, Any]) -> None:
    """Ends this process with an error if the tuned rival is slower in our harness than without."""
    found = told["harness_vs_script"]
    if found < BELIEVED:
        raise SystemExit(
            f"The tuned Trainer runs at {found:.3f} of its speed in a plain script; below "
            f"{BELIEVED} the ratios to it cannot be believed. On a busy machine, run `make "
            "bench-train FRESH=1` again once it is quiet; on a quiet one, find what "
            "benchmarks/train/rival.py does beyond benchmarks/train/script.py."
        )


def lower_end(right: np.ndarray[Any, Any], right_tuned: np.ndarray[Any, Any]) -> float:
    """Lower end of the 95 % interval of the first accuracy minus the second.

    Both answered the same n texts, once for each seed: the mean of the paired differences less 1.96
    standard errors, the normal approximation for paired proportions (Newcombe 1998, Statistics in
    Medicine 17:2635, method 1).
    """
    difference = right - right_tuned
    error = difference.std() / np.sqrt(len(difference))
    return float(difference.mean() - NormalDist().inv_cdf(0.975) * error)


def table(told: dict[str, Any]) -> str:
    """A line a method, a column a figure."""
    lines = [["", *COLUMNS]]
    lines += [[name, *(str(told[name].get(each, "")) for each in COLUMNS)] for name in METHODS]
    facts = (
        "harness_vs_script",
        "gemm_peak_gflops",
        "share_of_peak",
        "share_of_parts",
        "processor",
    )
    return "\n".join([aligned(lines), *(f"{fact}: {told[fact]}" for fact in facts)])


def draw(results: Kept, path: Path) -> None:
    """Reviews per second of each side, one panel a method, each with a scale of its own."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(METHODS)), METHODS, strict=True):
        rates = [results.figures(f"rate-{name}-{side}")["reviews_per_s"] for side in SIDES]
        bars = axes.bar(list(SIDES), rates, color=["tab:gray", "tab:orange", "tab:blue"])
        axes.bar_label(bars, fmt="%.1f")
        axes.set_title(name)
        axes.margins(y=0.1)
    first, threads = results.cells["peak"], results.figures("peak")["threads"]
    figure.suptitle(f"{first['processor']}, {threads} threads, {first['date'][:10]}")
    figure.supylabel("reviews/s")
    figure.savefig(path, dpi=120)
