"""Summarizes the cells: one JSON object and a table."""

from collections import Counter
from typing import Any

from benchmarks.columns import aligned
from benchmarks.results_file import ResultsFile
from benchmarks.serve import outcomes
from benchmarks.serve.plan import CALM, COMPETITORS, FLOAT32_CELLS, RATES

LISTED = (
    "vs_best_competitor", "vs_best_competitor_float32", "vs_plain", "share_of_offline",
    "share_of_peak", "single_ms_ratio", "same_labels", "logit_error_ratio", "overhead_ms_p50",
    "goodput_at_5x",
    "refusal_ms_p99", "event_loop_lag_ms_p99", "others_answered_at_5x", "seconds_to_normal",
    "rss_growth", "adapters_32_share", "swap_failures", "statuses", "client_share_of_core",
    "tunings", "engine", "processor", "dates", "commits",
)  # fmt: skip


def summary(results: ResultsFile) -> dict[str, Any]:
    """Rates are reviews a second; shares and ratios are plain numbers."""
    ours, offline, single = (results.metrics(name) for name in ("closed-ours", "offline", "single"))
    loops = {rate: results.metrics(f"open-{rate}") for rate in RATES}
    top, calm, swaps = loops[max(RATES)], loops[CALM], results.metrics("swaps")
    competitors = {name: results.metrics(f"closed-{name}") for name in COMPETITORS}
    plain = {name: results.metrics(f"plain-{name}") for name in COMPETITORS}
    float32 = {
        cell.removeprefix("float32-"): results.metrics(cell)["per_s"] for cell in FLOAT32_CELLS
    }
    assert ours["engine"] == offline["engine"], "the service and the engine alone differ"
    per_s, where = ours["per_s"], results.where()
    engines = results.metrics("engines")["engines"]
    engine = engines[ours["engine"]]
    # What served before there was a native engine.
    torch = engines.get("torch-bf16", engines["torch-fp32"])
    statuses: Counter[str] = Counter()
    for loop in loops.values():
        statuses.update(loop["statuses"])
    tunings = {name: found["tuning"] for name, found in competitors.items()}
    clients = [ours, swaps, *loops.values(), *competitors.values(), *plain.values()]
    normal = outcomes.seconds_to_normal(top["recovery"], top["overload_seconds"], calm["p99_ms"])
    return {
        "per_s": round(per_s, 2),
        "competitors": {name: round(found["per_s"], 2) for name, found in competitors.items()},
        "vs_best_competitor": round(per_s / max(each["per_s"] for each in competitors.values()), 3),
        "float32": {name: round(found, 2) for name, found in float32.items()},
        "vs_best_competitor_float32": round(
            float32["ours"] / max(float32[name] for name in COMPETITORS), 3
        ),
        "competitors_plain": {name: round(found["per_s"], 2) for name, found in plain.items()},
        "vs_plain": {name: round(per_s / found["per_s"], 2) for name, found in plain.items()},
        "share_of_offline": round(per_s / offline["per_s"], 4),
        "share_of_peak": round(
            offline["per_s"] * offline["flops_per_text"] / offline["peak_gflops"] / 1e9, 4
        ),
        "single_ms_ratio": round(engine["single_ms_p50"] / torch["single_ms_p50"], 3),
        "same_labels": round(engine["same_labels"], 4),
        "logit_error_ratio": round(engine["rms_error"] / torch["rms_error"], 3)
        if torch["rms_error"]
        else None,
        "engines": engines,
        "overhead_ms_p50": round(single["http_ms_p50"] - single["bare_ms_p50"], 2),
        "single": single,
        "p50_ms": {str(rate): _rounded(loop["p50_ms"]) for rate, loop in loops.items()},
        "p99_ms": {str(rate): _rounded(loop["p99_ms"]) for rate, loop in loops.items()},
        "goodput_at_5x": round(top["goodput_per_s"] / per_s, 4),
        "refusal_ms_p99": _rounded(top["refusal_ms_p99"]),
        "event_loop_lag_ms_p99": max(loop["event_loop_lag_ms_p99"] for loop in loops.values()),
        "statuses": dict(sorted(statuses.items())),
        "adapters_32_share": round(results.metrics("adapters")["share"], 4),
        "others_answered_at_5x": _rounded(top["others_answered"], 4),
        "seconds_to_normal": _rounded(normal),
        "rss_growth": round(top["rss_after_mb"] / top["rss_before_mb"] - 1, 4),
        "swap_failures": swaps["failures"],
        "client_share_of_core": round(max(each["client_share_of_core"] for each in clients), 4),
        "tunings": tunings,
        "offline_per_s": round(offline["per_s"], 2),
        "engine": ours["engine"],
        "cores": ours["cores"],
        **where,
        "versions": where["versions"] | {
            name: found["libraries"] for name, found in {"ours": ours, **competitors}.items()
        },
    }  # fmt: skip


def table(results: ResultsFile, report: dict[str, Any]) -> str:
    """The closed loop of each side, the open loop by rate, and the other metrics."""
    sides = [["", "reviews/s", "p50 ms", "p99 ms", "right", "MB"]]
    competitors = [f"{how}-{name}" for how in ("closed", "plain") for name in COMPETITORS]
    for cell in ("closed-ours", *competitors, *FLOAT32_CELLS):
        found = results.metrics(cell)
        numbers = (found["per_s"], found["p50_ms"], found["p99_ms"])
        right = f"{found['agreement']:.0%}"
        sides.append([cell, *(f"{each:.1f}" for each in numbers), right, f"{found['rss_mb']:.0f}"])
    rates = [["rate", "p50 ms", "p99 ms"]]
    rates += [
        [rate, str(p50), str(report["p99_ms"][rate])] for rate, p50 in report["p50_ms"].items()
    ]
    facts = [f"{name}: {report[name]}" for name in LISTED]
    return "\n".join([aligned(sides), "", aligned(rates), "", *facts])


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)
