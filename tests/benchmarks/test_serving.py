"""What `benchmarks.serve` tells is worked out from its cells, under the names that it must have."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.kept import Kept, choose
from benchmarks.serve import outcomes, report
from benchmarks.serve.plan import CELLS, takes_share
from benchmarks.serve.swaps import Move, failures

KEYS = {
    "per_s", "rivals", "vs_best_rival", "share_of_offline", "overhead_ms_p50", "p50_ms", "p99_ms",
    "goodput_at_5x", "refusal_ms_p99", "statuses", "adapters_32_share", "engine", "processor",
    "versions", "rss_growth", "seconds_to_normal", "swap_failures",
}  # fmt: skip
PER_S = {"ours": 40.0, "pipeline": 20.0, "litserve": 10.0, "infinity": 16.0}
LABELS = {"reviews:1": ["bad", "good"], "reviews:2": ["dull", "fine"]}


def invented(cell: str) -> dict[str, Any]:
    """Figures of a cell that nobody measured."""
    kind, _, name = cell.partition("-")
    common = {"client_share_of_core": 0.01, "cores": 2}
    match kind:
        case "offline":
            return {"per_s": 50.0, "engine": "torch-fp32"}
        case "single":
            return {"http_ms_p50": 25.5, "bare_ms_p50": 23.0}
        case "adapters":
            return {"share": 0.75}
        case "swaps":
            return common | {"failures": 0}
        case "closed" | "plain":
            per_s = PER_S[name] / (2 if kind == "plain" else 1)
            closed = {"per_s": per_s, "p50_ms": 1500.0, "p99_ms": 2000.0, "agreement": 1.0}
            more = {"rss_mb": 500.0, "libraries": {}, "engine": "torch-fp32", "tuning": "--fast"}
            return common | closed | more
    found: dict[str, Any] = {
        "p50_ms": 40.0, "p99_ms": 100.0, "goodput_per_s": 36.0, "refusal_ms_p99": 4.0,
        "others_answered": 0.9, "statuses": {"200": 10, "429": 5}, "rss_before_mb": 500.0,
        "rss_after_mb": 510.0,
    }  # fmt: skip
    recovery = [[60.0, 900.0, 200], *([60.5 + i / 10, 50.0, 200] for i in range(10))]
    return common | found | ({"overload_seconds": 60, "recovery": recovery} if name == "5" else {})


@pytest.fixture
def results(tmp_path: Path) -> Kept:
    made = choose(tmp_path, quick=True, fresh=False, what="serve")
    for cell in CELLS:
        made.keep(cell, invented(cell), seconds=1.0)
    return made


def test_the_names_are_those_that_were_asked_for(results: Kept) -> None:
    told = report.summary(results)
    assert told.keys() >= KEYS
    assert told["p50_ms"].keys() == told["p99_ms"].keys() == {"0.5", "1", "2", "5"}
    assert told["rivals"] == {"pipeline": 20.0, "litserve": 10.0, "infinity": 16.0}
    assert "litserve" in report.table(results, told)


def test_ratios_and_shares(results: Kept) -> None:
    told = report.summary(results)
    assert (told["per_s"], told["vs_best_rival"], told["share_of_offline"]) == (40.0, 2.0, 0.8)
    assert (told["overhead_ms_p50"], told["goodput_at_5x"]) == (2.5, 0.9)
    assert told["statuses"] == {"200": 40, "429": 20}
    assert told["seconds_to_normal"] == 0.5
    assert told["rss_growth"] == 0.02
    assert (told["adapters_32_share"], told["swap_failures"]) == (0.75, 0)


def test_results_stand_apart_from_those_of_training(tmp_path: Path) -> None:
    served = choose(tmp_path, quick=False, fresh=False, what="serve")
    served.keep("offline", {"per_s": 1.0}, seconds=1.0)
    assert choose(tmp_path, quick=False, fresh=False).cells == {}
    assert choose(tmp_path, quick=False, fresh=False, what="serve").cells.keys() == {"offline"}


def test_only_some_cells_need_to_know_the_capacity() -> None:
    shares = [cell for cell in CELLS if takes_share(cell)]
    assert shares == ["open-0.5", "open-1", "open-2", "open-5", "swaps"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("count", [1, 2, 10, 101])
def test_a_percentile_is_one_of_the_values(share: float, count: int) -> None:
    values = np.random.default_rng(0).random(count)
    expected = np.quantile(values, share, method="inverted_cdf")
    assert outcomes.percentile(values.tolist(), share) == expected


def test_there_is_no_percentile_of_nothing() -> None:
    assert outcomes.percentile([], 0.5) is None


def test_what_questions_became() -> None:
    samples: list[list[Any]] = [
        [0.0, 100.0, 200, 0], [0.5, 600.0, 200, 1], [0.9, 5000.0, "late", 1], [1.0, 3.0, 429, 0],
        [1.1, 50.0, "left", 0], [1.2, 7.0, 503, 0],
    ]  # fmt: skip
    assert outcomes.statuses(samples) == {"200": 2, "429": 1, "503": 1, "late": 1, "left": 1}
    assert outcomes.waits(samples) == [100.0, 600.0, 5000.0]
    assert outcomes.refusals(samples) == [3.0, 7.0]
    assert outcomes.goodput(samples, 1.0) == 1.0  # the second answer came too late for it
    assert outcomes.goodput(samples, 2.0) == 1.0
    assert outcomes.answered_share(samples) == 0.4
    assert outcomes.answered_share([]) is None


def test_an_overload_is_over_when_ten_in_a_row_are_answered_as_before() -> None:
    calm = [[10.0 + i, 50.0, 200] for i in range(5, 15)]
    slow = [[10.0 + i, 900.0, 200] for i in range(5)]
    before = [[9.0 - i / 10, 50.0, 200] for i in range(12)]
    gone = [[16.5, 10.0, "left"]]
    assert outcomes.seconds_to_normal([*calm, *gone, *slow, *before], 10.0, 100.0) == 5.0
    assert outcomes.seconds_to_normal(calm[:9], 10.0, 100.0) is None
    refused = [[17.5, 2.0, 429]]
    assert outcomes.seconds_to_normal([*calm, *refused], 10.0, 100.0) is None


def asked(at: float, version: str, ms: float = 100.0, labels: str | None = None) -> list[Any]:
    """A question of a run that began at 100 s."""
    return [at, ms, 200, 0, version, LABELS[labels or version]]


MOVES = [Move(110.0, 110.1, "reviews:2"), Move(120.0, 120.1, "reviews:1")]


@pytest.mark.parametrize(
    "sample",
    [
        asked(1.0, "reviews:1"),
        asked(9.95, "reviews:2"),  # the move was under way when it was answered
        asked(10.5, "reviews:1"),  # a moment after it the old one may still answer
        asked(15.0, "reviews:2"),
        asked(30.0, "reviews:1"),
    ],
)
def test_a_right_answer_is_of_a_version_that_the_alias_meant(sample: list[Any]) -> None:
    assert failures([sample], 100.0, MOVES, LABELS) == 0


@pytest.mark.parametrize(
    "sample",
    [
        asked(1.0, "reviews:2"),
        asked(12.0, "reviews:1"),
        asked(30.0, "reviews:2"),
        asked(1.0, "reviews:1", labels="reviews:2"),
        [1.0, 3.0, 500, 0, None, None],
        [1.0, 5000.0, "late", 0, None, None],
    ],
)
def test_a_wrong_answer_is_a_failure(sample: list[Any]) -> None:
    assert failures([sample], 100.0, MOVES, LABELS) == 1
