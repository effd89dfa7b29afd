"""The benchmark of the OpenAI API measures a running service."""

import pytest

from benchmarks import openai_overhead


@pytest.mark.slow  # starts a service and trains
@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_both_routes_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_overhead, "WARM_PAIRS", 2)
    found = openai_overhead.measure(pairs=6)
    assert found["pairs"] == 6
    assert 0 < found["predict_ms_p50"] < 10_000
    assert 0 < found["chat_ms_p50"] < 10_000
    assert openai_overhead.summary(found) == {"overhead_ms_p50": found["overhead_ms_p50"]}


def test_overhead_is_that_of_pairs() -> None:
    found = openai_overhead.metrics([10.0, 20.0, 30.0], [11.0, 20.5, 30.25])
    assert (found["predict_ms_p50"], found["chat_ms_p50"]) == (20.0, 20.5)
    assert found["overhead_ms_p50"] == 0.5
