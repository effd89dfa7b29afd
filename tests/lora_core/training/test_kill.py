"""Processes that are killed, stopped or out of disk space, and their next attempts."""

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_core import child_protocol, manifest
from lora_core.specs.train import TrainSpec
from tests.lora_core.training.processes import Attempts
from tests.lora_core.training.twins import product, story
from tests.tiny_base import make_base, make_reviews

pytestmark = pytest.mark.e2e

Make = Callable[..., TrainSpec]
Runs = Callable[..., Attempts]

KILLED = -signal.SIGKILL
# In the order of one run of 12 steps with evaluations after 3, 6 (end of an epoch), 9 and 12.
FAULTS = [
    ("loading:kill", KILLED, None),
    ("step@2:kill", KILLED, 1),  # within an epoch
    ("evaluating:kill", KILLED, 3),  # before the evaluation's result
    ("checkpoint_files_written:kill", KILLED, None),  # that evaluation was reported; it is repeated
    ("checkpoint_written@2:kill", KILLED, 4),
    ("checkpoint_published@2:kill", KILLED, 5),  # published, but not reported
    ("step@2:kill", KILLED, 6),  # after the end of an epoch and its evaluation
    ("step@6:exit139", 139, 11),
    ("saving:kill", KILLED, 12),  # with the training done
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("kill") / "base")


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reviews(tmp_path_factory.mktemp("kill") / "reviews.csv")


@pytest.fixture
def runs(spec: Make, tmp_path: Path) -> Runs:
    """A run of two epochs of six steps, with all sources of randomness."""
    counter = iter(range(100))

    def make(seconds: float = 0.0, **changes: Any) -> Attempts:
        described = spec(
            **{
                "method": {"type": "lora", "r": 4, "dropout": 0.1, "targets": ["query", "mlp"]},
                "optim": {
                    "epochs": 2, "batch_size": 16, "micro_batch_tokens": 128,
                    "encoder_dropout": 0.1, "head_dropout": 0.2,
                },
                "stop": {"select_by": "loss"},
                **changes,
            }
        )  # fmt: skip
        path = tmp_path / f"spec-{next(counter)}.json"
        path.write_text(described.model_dump_json())
        return Attempts(path, seconds)

    return make


@pytest.fixture(scope="module")
def kept() -> list[Attempts]:
    """The uninterrupted run, once there is one."""
    return []


@pytest.fixture
def uninterrupted(runs: Runs, kept: list[Attempts]) -> Attempts:
    """The uninterrupted run, which all tests compare with theirs."""
    if not kept:
        run = runs(300.0)
        assert run.attempt()[0] == 0
        kept.append(run)
    return kept[0]


def same(run: Attempts, uninterrupted: Attempts) -> bool:
    return story(run.events) == story(uninterrupted.events) and product(run.out) == product(
        uninterrupted.out
    )


def test_run_killed_at_each_failpoint_resumes_to_the_same_result(
    runs: Runs, uninterrupted: Attempts
) -> None:
    run = runs()
    for fault, status, step in FAULTS:
        left, events = run.attempt(fault)
        assert left == status, fault
        saved = [event.step for event in events if event.event == "checkpoint"]
        assert saved[-1:] == ([] if step is None else [step]), fault
        for path in run.checkpoints.glob("step-*"):
            manifest.verify(path)  # visible checkpoints are complete
    left, events = run.attempt()
    assert left == 0
    assert (
        next(e.step for e in events if e.event == "evaluated") == 12
    )  # pending evaluation, done once
    assert same(run, uninterrupted)


@pytest.mark.slow  # the small forms have one thread
def test_two_threads_resume_bitwise(runs: Runs) -> None:
    uninterrupted, run = (runs(runtime={"threads": 2}) for _ in range(2))
    assert uninterrupted.attempt()[0] == 0
    assert run.attempt("step@5:kill")[0] == KILLED
    left, events = run.attempt()
    assert left == 0
    assert [(e.step, e.exact) for e in events if e.event == "resumed"] == [(4, True)]
    assert same(run, uninterrupted)


def test_stop_saves_at_the_next_step_and_exits_with_its_own_status(
    runs: Runs, uninterrupted: Attempts, tmp_path: Path
) -> None:
    """Within an epoch, during an evaluation, before the first step, and while saving the model."""
    run, hold_file = runs(300.0), tmp_path / "held"
    moments: list[tuple[str, dict[str, object], int | None]] = [
        ("step@2", {"event": "step", "step": 2}, 2),
        ("evaluating", {"event": "tick", "phase": "evaluating"}, 3),
        ("loading", {"event": "tick", "phase": "loading"}, None),
        ("saving", {"event": "tick", "phase": "saving"}, 12),  # at the end of the training
    ]
    for point, awaited, step in moments:
        hold_file.touch()
        child = run.start(f"{point}:pause:{hold_file}")
        run.wait_for(**awaited)
        child.terminate()
        hold_file.unlink()
        left, events = run.end(child)
        assert left == child_protocol.EXIT_STOPPED
        saved = [event.step for event in events if event.event == "checkpoint"]
        assert saved == ([] if step is None else [step])
    assert run.attempt()[0] == 0
    assert same(run, uninterrupted)


def test_full_disk_during_a_save_keeps_older_checkpoints(
    runs: Runs, uninterrupted: Attempts
) -> None:
    run = runs()
    for point in ("checkpoint_files_written", "checkpoint_written"):
        left, events = run.attempt(f"{point}@3:enospc")
        assert left == child_protocol.EXIT_FAILED
        assert events[-1].event == "failed"
        assert events[-1].code == "disk_full"
    left_behind = sorted(path.name for path in run.checkpoints.iterdir())
    assert left_behind == ["step-1", "step-2", "step-3", "step-4"]
    for path in run.checkpoints.iterdir():
        manifest.verify(path)
    assert run.attempt()[0] == 0
    assert same(run, uninterrupted)


def test_damaged_or_foreign_checkpoint_has_its_own_error_code(runs: Runs) -> None:
    run = runs()
    assert run.attempt("step@3:kill")[0] == KILLED
    other = json.loads(run.spec.read_text())
    other["optim"]["weight_decay"] = 0.5
    original = run.spec.read_text()
    for content, code in [(json.dumps(other), "checkpoint_mismatch"), (original, None)]:
        run.spec.write_text(content)
        assert run.newest is not None
        if code is None:
            (run.newest / "state.json").write_text("{}")
            code = "checkpoint_corrupt"
        left, events = run.attempt()
        assert left == child_protocol.EXIT_FAILED
        assert (events[-1].event, events[-1].code) == ("failed", code)  # type: ignore[union-attr]


@pytest.mark.slow
def test_run_killed_at_random_moments_resumes_to_the_same_result(
    runs: Runs, uninterrupted: Attempts
) -> None:
    began = time.monotonic()
    assert runs().attempt()[0] == 0
    length = time.monotonic() - began
    for _ in range(20):
        run, moment = runs(), random.uniform(0, length)
        child = run.start()
        time.sleep(moment)  # the time of the kill is what is tested
        child.kill()
        if run.end(child)[0] == KILLED:
            assert run.attempt()[0] == 0, moment
        assert same(run, uninterrupted), moment
