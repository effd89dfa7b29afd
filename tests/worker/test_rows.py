"""Events as points and words."""

import math

import pytest

from app.queue.transitions import Told
from lora_core.events import (
    Evaluated,
    Event,
    Failed,
    Finished,
    Noted,
    Phase,
    RivalFitted,
    Started,
    StepLogged,
    Tick,
    parse_event,
)
from lora_core.specs.data import Split
from worker.recorder import STEP_METRICS, points, told

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


def test_a_step_is_a_point_on_each_curve_of_training() -> None:
    found = list(points(STEP))
    assert [point.name for point in found] == list(STEP_METRICS)
    assert {(point.split, point.step, point.epoch) for point in found} == {(Split.TRAIN, 3, 0.5)}
    assert [point.value for point in found] == [0.25, 0.001, 1.5, 10.0, 100.0, 50.0]
    assert told(STEP) is None


def test_an_evaluation_is_a_point_per_figure_and_words() -> None:
    event = Evaluated(step=4, split=Split.TEST, metrics={"loss": 0.5, "accuracy": 0.75}, best=True)
    assert [(p.split, p.name, p.step, p.value) for p in points(event)] == [
        (Split.TEST, "loss", 4, 0.5),
        (Split.TEST, "accuracy", 4, 0.75),
    ]
    words = told(event)
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
def test_a_figure_that_is_not_finite_has_no_value_and_says_so(line: str) -> None:
    event = parse_event(
        f'{{"event": "evaluated", "step": 1, "split": "validation", "metrics": {{"loss": {line}}}}}'
    )
    (point,) = points(event)
    assert (point.value, point.nonfinite) == (None, True)
    words = told(event)
    assert words is not None
    assert words.data["metrics"] == {"loss": None}
    assert "loss not finite" in words.message


@pytest.mark.parametrize(
    ("event", "kind", "part"),
    [
        (
            Started(
                total_steps=1200,
                trainable_parameters=14_770,
                total_parameters=22_000_000,
                examples={Split.TRAIN: 8},
                labels=["a", "b"],
                device="cpu",
                precision="fp32",
                threads=2,
                learning_rate=0.001,
            ),
            "training",
            "14,770 of 22,000,000 parameters for 1,200 steps on cpu",
        ),
        (Noted(level="warning", code="cut", message="3 % cut."), "noted", "3 % cut."),
        (
            RivalFitted(
                validation={"accuracy": 0.7},
                test={"accuracy": 0.6},
                train_texts=8,
                seconds=1,
                cached=False,
            ),
            "rival",
            "accuracy 0.7000",
        ),
        (Finished(summary={"a": math.nan}), "trained", "being stored"),
    ],
)
def test_what_a_user_reads(event: Event, kind: str, part: str) -> None:
    words = told(event)
    assert isinstance(words, Told)
    assert words.kind == kind
    assert part in words.message


def test_ticks_and_failures_are_no_rows() -> None:
    for event in (Tick(phase=Phase.LOADING), Failed(code="one_class", message="One.")):
        assert told(event) is None
        assert list(points(event)) == []
