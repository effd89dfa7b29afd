"""The serving benchmark: summary, outcomes and alias moves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from benchmarks.results_file import ResultsFile, choose
from benchmarks.serve import checkpoint, outcomes, report, sides
from benchmarks.serve.as_bert import save_as_bert
from benchmarks.serve.plan import CELLS
from benchmarks.serve.swaps import Move, failures
from benchmarks.serve.target import scores
from lora_core.specs.method import LoraSpec
from tests.lora_artifact import make_lora_artifact
from tests.plain_checkpoint import plain_checkpoint

PER_S = {"ours": 40.0, "pipeline": 20.0, "litserve": 10.0, "infinity": 16.0, "vllm": 12.0}
LABELS = {"reviews:1": ["bad", "good"], "reviews:2": ["dull", "fine"]}


def engine(single: float, error: float, same: float) -> dict[str, float]:
    return {"single_ms_p50": single, "rms_error": error, "same_labels": same}


def example_metrics(cell: str) -> dict[str, Any]:
    """Made-up metrics of a cell."""
    kind, _, name = cell.partition("-")
    common = {"client_share_of_core": 0.01, "cores": 2}
    match kind:
        case "offline":
            work = {"flops_per_text": 4e9, "peak_gflops": 250.0}
            return {"per_s": 50.0, "engine": "native-bf16", **work}
        case "engines":
            return {"engines": {
                "torch-fp32": engine(20.0, 0.0, 1.0),
                "torch-bf16": engine(10.0, 0.004, 0.99),
                "native-bf16": engine(5.0, 0.003, 0.9985),
            }}  # fmt: skip
        case "single":
            return {"http_ms_p50": 25.5, "bare_ms_p50": 23.0}
        case "adapters":
            return {"share": 0.75}
        case "swaps":
            return common | {"failures": 0}
        case "closed" | "plain" | "float32":
            per_s = PER_S[name] / (2 if kind == "plain" or cell == "float32-ours" else 1)
            closed = {"per_s": per_s, "p50_ms": 1500.0, "p99_ms": 2000.0, "agreement": 1.0}
            more = {"rss_mb": 500.0, "libraries": {}, "engine": "native-bf16", "tuning": "--fast"}
            return common | closed | more
    found: dict[str, Any] = {
        "p50_ms": 40.0, "p99_ms": 100.0, "goodput_per_s": 36.0, "refusal_ms_p99": 4.0,
        "event_loop_lag_ms_p99": 5.0,
        "others_answered": 0.9, "statuses": {"200": 10, "429": 5}, "rss_before_mb": 500.0,
        "rss_after_mb": 510.0,
    }  # fmt: skip
    recovery = [[60.0, 900.0, 200], *([60.5 + i / 10, 50.0, 200] for i in range(10))]
    return common | found | ({"overload_seconds": 60, "recovery": recovery} if name == "5" else {})


@pytest.fixture
def results(tmp_path: Path) -> ResultsFile:
    made = choose(tmp_path, quick=True, fresh=False, what="serve")
    for cell in CELLS:
        made.add(cell, example_metrics(cell), seconds=1.0)
    return made


def test_ratios_and_shares(results: ResultsFile) -> None:
    summary = report.summary(results)
    assert (summary["per_s"], summary["vs_best_competitor"], summary["share_of_offline"]) == (
        40.0,
        2.0,
        0.8,
    )
    assert (summary["overhead_ms_p50"], summary["goodput_at_5x"]) == (2.5, 0.9)
    assert (summary["share_of_peak"], summary["single_ms_ratio"]) == (0.8, 0.5)
    assert summary["vs_best_competitor_float32"] == 1.0
    assert (summary["same_labels"], summary["logit_error_ratio"]) == (0.9985, 0.75)
    assert summary["statuses"] == {"200": 40, "429": 20}
    assert summary["seconds_to_normal"] == 0.5
    assert summary["rss_growth"] == 0.02
    assert (summary["adapters_32_share"], summary["swap_failures"]) == (0.75, 0)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("count", [1, 2, 10, 101])
def test_percentile_matches_numpy(share: float, count: int) -> None:
    values = np.random.default_rng(0).random(count)
    expected = np.quantile(values, share, method="inverted_cdf")
    assert outcomes.percentile(values.tolist(), share) == expected


def test_outcomes_of_requests() -> None:
    samples: list[list[Any]] = [
        [0.0, 100.0, 200, 0], [0.5, 600.0, 200, 1], [0.9, 5000.0, "late", 1], [1.0, 3.0, 429, 0],
        [1.1, 50.0, "left", 0], [1.2, 7.0, 503, 0],
    ]  # fmt: skip
    assert outcomes.statuses(samples) == {"200": 2, "429": 1, "503": 1, "late": 1, "left": 1}
    assert outcomes.waits(samples) == [100.0, 600.0, 5000.0]
    assert outcomes.refusals(samples) == [3.0, 7.0]
    assert outcomes.goodput(samples, 1.0) == 1.0  # the second response came after the end
    assert outcomes.goodput(samples, 2.0) == 1.0
    assert outcomes.answered_share(samples) == 0.4
    assert outcomes.answered_share([]) is None


def test_recovery_needs_ten_normal_responses_in_a_row() -> None:
    calm = [[10.0 + i, 50.0, 200] for i in range(5, 15)]
    slow = [[10.0 + i, 900.0, 200] for i in range(5)]
    before = [[9.0 - i / 10, 50.0, 200] for i in range(12)]
    gone = [[16.5, 10.0, "left"]]
    assert outcomes.seconds_to_normal([*calm, *gone, *slow, *before], 10.0, 100.0) == 5.0
    assert outcomes.seconds_to_normal(calm[:9], 10.0, 100.0) is None
    refused = [[17.5, 2.0, 429]]
    assert outcomes.seconds_to_normal([*calm, *refused], 10.0, 100.0) is None


def sample_at(at: float, version: str, ms: float = 100.0, labels: str | None = None) -> list[Any]:
    """A sample of a run that started at 100 s."""
    return [at, ms, 200, 0, version, LABELS[labels or version]]


MOVES = [Move(110.0, 110.1, "reviews:2"), Move(120.0, 120.1, "reviews:1")]


@pytest.mark.parametrize(
    "sample",
    [
        sample_at(1.0, "reviews:1"),
        sample_at(9.95, "reviews:2"),  # answered during the move
        sample_at(10.5, "reviews:1"),  # shortly after the move the old version may still respond
        sample_at(15.0, "reviews:2"),
        sample_at(30.0, "reviews:1"),
    ],
)
def test_response_of_a_current_version_is_correct(sample: list[Any]) -> None:
    assert failures([sample], 100.0, MOVES, LABELS) == 0


@pytest.mark.parametrize(
    "sample",
    [
        sample_at(1.0, "reviews:2"),
        sample_at(12.0, "reviews:1"),
        sample_at(30.0, "reviews:2"),
        sample_at(1.0, "reviews:1", labels="reviews:2"),
        [1.0, 3.0, 500, 0, None, None],
        [1.0, 5000.0, "late", 0, None, None],
    ],
)
def test_response_of_another_version_is_a_failure(sample: list[Any]) -> None:
    assert failures([sample], 100.0, MOVES, LABELS) == 1


@pytest.mark.parametrize(
    "answer",
    [
        [{"label": "neg", "score": 0.9}, {"label": "pos", "score": 0.1}],
        [[{"label": "neg", "score": 0.9}, {"label": "pos", "score": 0.1}]],
        {"data": [[{"label": "neg", "score": 0.9}, {"label": "pos", "score": 0.1}]]},
        {"data": [{"label": "neg", "probs": [0.9, 0.1], "num_classes": 2}]},
    ],
    ids=["flat", "nested", "infinity", "vllm"],
)
def test_scores_of_each_server(answer: Any) -> None:
    assert scores(answer, ["neg", "pos"]) == {"neg": 0.9, "pos": 0.1}


def test_settings_of_a_competitor_are_options_and_environment_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "bert", lambda: tmp_path)
    side = sides.competitor("vllm", "OMP_NUM_THREADS=2 --max-num-seqs 4")
    assert [*side.words][-2:] == ["--max-num-seqs", "4"]
    assert side.environment["OMP_NUM_THREADS"] == "2"
    assert not [word for word in side.words if "OMP" in word]


def test_checkpoint_for_vllm_is_the_same_encoder_as_a_bert(tmp_path: Path) -> None:
    distilbert = plain_checkpoint(make_lora_artifact(tmp_path / "artifact", LoraSpec(r=2)))
    save_as_bert(distilbert, tmp_path / "bert")
    states, heads = [], []
    for path in (distilbert, tmp_path / "bert"):
        model = AutoModelForSequenceClassification.from_pretrained(path).eval()
        with torch.no_grad():
            states.append(model.base_model(torch.arange(12).reshape(2, 6)).last_hidden_state)
        heads.append(model.classifier.weight)
    assert model.config.model_type == "bert"
    torch.testing.assert_close(states[1], states[0], rtol=0, atol=1e-6)
    assert torch.equal(heads[1], heads[0])
