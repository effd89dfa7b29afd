"""Events as metric values and messages."""

import math

import pytest
from pydantic import ValidationError

from app.queue.events import EventContent
from lora_core.events import (
    CandidateEvaluated,
    Evaluated,
    Event,
    Failed,
    Finished,
    LinearModelFitted,
    NoteLogged,
    Phase,
    ProgressReported,
    Started,
    StepLogged,
    parse_event,
)
from lora_core.results import CandidateResult, MetricName
from lora_core.specs.data import Split
from lora_core.specs.method import LinearSpec
from worker.recorder import STEP_METRICS, event_to_content, metric_values

STEP = StepLogged(
    step=3,
    epoch=0.5,
    loss=0.25,
    learning_rate=0.001,
    grad_norm=1.5,
    reviews_per_second=10.0,
    tokens_per_second=100.0,
    peak_memory_mb=50.0,
)


def test_step_yields_a_value_per_metric() -> None:
    found = list(metric_values(STEP))
    assert [point.name for point in found] == list(STEP_METRICS)
    assert {(point.split, point.step, point.epoch) for point in found} == {(Split.TRAIN, 3, 0.5)}
    assert [point.value for point in found] == [0.25, 0.001, 1.5, 10.0, 100.0, 50.0]
    assert event_to_content(STEP) is None


def test_evaluation_yields_values_and_a_message() -> None:
    event = Evaluated(step=4, split=Split.TEST, metrics={"loss": 0.5, "accuracy": 0.75}, best=True)
    assert [(p.split, p.name, p.step, p.value) for p in metric_values(event)] == [
        (Split.TEST, "loss", 4, 0.5),
        (Split.TEST, "accuracy", 4, 0.75),
    ]
    words = event_to_content(event)
    assert words is not None
    assert (words.kind, words.message) == (
        "evaluated",
        "Test at step 4: loss 0.5000, accuracy 0.7500.",
    )
    assert words.data == {
        "step": 4,
        "split": "test",
        "metrics": {"loss": 0.5, "accuracy": 0.75},
        "best": True,
    }


@pytest.mark.parametrize("line", ["null", "NaN", "Infinity"])
def test_nonfinite_metric_has_no_value(line: str) -> None:
    event = parse_event(
        f'{{"event": "evaluated", "step": 1, "split": "validation", "metrics": {{"loss": {line}}}}}'
    )
    (point,) = metric_values(event)
    assert (point.value, point.nonfinite) == (None, True)
    words = event_to_content(event)
    assert words is not None
    assert words.data["metrics"] == {"loss": None}
    assert "loss not finite" in words.message


def candidate(metric: MetricName, value: float) -> CandidateEvaluated:
    result = CandidateResult(
        method=LinearSpec(C=4.0),
        folds=5,
        repeats=5,
        texts=90,
        metric=metric,
        value=value,
        low=value,
        high=value,
        seconds=1.0,
    )
    return CandidateEvaluated(number=1, of=2, result=result)


def started(*, total_steps: int) -> Started:
    return Started(
        total_steps=total_steps,
        trainable_parameters=14_770,
        total_parameters=22_000_000,
        examples={Split.TRAIN: 8},
        labels=["a", "b"],
        device="cpu",
        precision="fp32",
        threads=2,
        learning_rate=0.001,
    )


@pytest.mark.parametrize(
    ("event", "kind", "part"),
    [
        (
            started(total_steps=1200),
            "training",
            "14,770 of 22,000,000 parameters for 1,200 steps on cpu.",
        ),
        (started(total_steps=1), "training", "for 1 step on cpu."),
        (NoteLogged(level="warning", code="cut", message="3% cut."), "noted", "3% cut."),
        (
            LinearModelFitted(
                validation={"accuracy": 0.7},
                test={"accuracy": 0.6},
                train_texts=8,
                seconds=1,
                cached=False,
            ),
            "linear_model",
            "accuracy 0.7000",
        ),
        (
            candidate("accuracy", 0.8123),
            "candidate",
            "linear C 4 classifies 81.2% of 90 held-out texts correctly",
        ),
        (candidate("rmse", 12.3456), "candidate", "linear C 4 has RMSE 12.35 on 90 held-out texts"),
        (Finished(summary={"a": math.nan}), "storing", "Storing the result."),
    ],
)
def test_event_messages(event: Event, kind: str, part: str) -> None:
    words = event_to_content(event)
    assert isinstance(words, EventContent)
    assert words.kind == kind
    assert part in words.message


def test_progress_reports_and_failures_have_no_rows() -> None:
    for event in (ProgressReported(phase=Phase.LOADING), Failed(code="one_class", message="One.")):
        assert event_to_content(event) is None
        assert list(metric_values(event)) == []


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "checkpoint", "step": 2147483648, "directory": "step"}',
        '{"event": "tick", "phase": "loading", "step": -1}',
        f'{{"event": "failed", "code": "{"c" * 65}", "message": "m"}}',
        f'{{"event": "evaluated", "step": 1, "split": "test", "metrics": {{"{"m" * 65}": 1}}}}',
    ],
)
def test_what_no_column_can_store_is_no_event(line: str) -> None:
    with pytest.raises(ValidationError):
        parse_event(line)


def test_nul_is_replaced() -> None:
    event = parse_event(rb'{"event": "noted", "code": "c", "message": "a\u0000b"}')
    assert isinstance(event, NoteLogged)
    assert event.message == "a\N{REPLACEMENT CHARACTER}b"
