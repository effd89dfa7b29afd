"""A run in two processes matches a single process, and resumes exactly."""

import json
import os
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_core import distributed, manifest
from lora_core.__main__ import read_input
from lora_core.child_protocol import EXIT_FAILED, EXIT_STOPPED
from lora_core.events import Event, StepLogged
from lora_core.progress_reporter import ProgressReporter
from lora_core.specs.train import TrainSpec
from lora_core.training.encoder import train_encoder
from lora_core.training.prepare import prepare_run
from lora_core.training.resume import build_or_resume_trainer
from tests.lora_core.training.pairs import (
    ODD,
    PLAIN,
    Pair,
    environments,
    failures,
    open_store,
    saved,
)
from tests.lora_core.training.processes import FORKING
from tests.lora_core.training.twins import product, story
from tests.recording_observer import RecordingObserver

pytestmark = pytest.mark.e2e

Write = Callable[..., Path]
Train = Callable[..., tuple[RecordingObserver, Path]]


def curve(events: list[Event]) -> list[float]:
    """Losses and norms."""
    steps = [event for event in events if isinstance(event, StepLogged)]
    return [figure or 0.0 for step in steps for figure in (step.loss, step.grad_norm)]


def answers(out: Path) -> list[int]:
    lines = (out / "predictions" / "test.jsonl").read_text().splitlines()
    return [json.loads(line)["predicted"] for line in lines]


@pytest.mark.parametrize(
    "method",
    [{"type": "full"}, pytest.param({"type": "baseline", "blocks": 1}, marks=pytest.mark.slow)],
    ids=lambda m: m["type"],
)
def test_two_processes_match_a_single_process(
    method: dict[str, Any], write: Write, train: Train
) -> None:
    """Also if an update has texts for only one process, and with cached features."""
    path = write(method=method, optim=PLAIN, data=ODD)
    pair = Pair(path)
    assert pair.both()[0] == [0, 0]
    observer, alone = train(read_input(path, TrainSpec))
    assert curve(pair.events) == pytest.approx(curve(observer.events), rel=1e-4)
    ours, theirs = (manifest.verify(out)["metrics"]["test"] for out in (pair.out, alone))
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    assert ours["accuracy"] == theirs["accuracy"] > 0.9
    assert answers(pair.out) == answers(alone)
    found = [manifest.read(out)["metrics"]["features_found"] for out in (pair.out, alone)]
    assert found == [False, method["type"] == "baseline"]


def keep_weights(spec: Path, environment: dict[str, str], file: Path) -> None:
    """Store the final weights of one process, and whether it found cached features."""
    os.environ.update(environment)
    observer = RecordingObserver()
    progress = ProgressReporter(observer, distributed.DistributedStopSignal(observer))
    with distributed.process_group():
        with distributed.main_process_first():
            prepared = prepare_run(
                read_input(spec, TrainSpec), observer, progress=ProgressReporter(observer, observer)
            )
        build_or_resume_trainer(
            prepared, observer=observer, progress=progress, checkpoint_settings=None, saved=None
        ).train()
        found = torch.tensor(prepared.forward.cache_hit)
        save_file({**prepared.method.state_dict(prepared.model), "found": found}, file)


@pytest.mark.slow  # losses and predictions are compared above
@pytest.mark.parametrize("method", ["lora", pytest.param("baseline", marks=pytest.mark.slow)])
def test_both_processes_end_with_the_same_weights(
    method: str, write: Write, random: Write, tmp_path: Path
) -> None:
    """Features computed by the first process are used by the other."""
    path, store = random() if method == "lora" else write(method={"type": method}), open_store()
    files = [tmp_path / f"weights-{i}" for i in range(2)]
    children = [
        FORKING.Process(target=keep_weights, args=(path, environment, file))
        for environment, file in zip(environments(store), files, strict=True)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    first, second = (load_file(file) for file in files)
    assert [bool(each.pop("found")) for each in (first, second)] == [False, method == "baseline"]
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def interrupt(*children: BaseProcess) -> None:
    """Signal twice, as when a system signals the process group and `torchrun` forwards it."""
    for _ in range(2):
        for child in children:
            child.terminate()
        time.sleep(0.1)  # two signals at once may be merged


def test_stop_in_one_or_all_processes_saves_once_and_resumes_exactly(
    random: Write, tmp_path: Path
) -> None:
    """Bitwise equal to the uninterrupted run in two processes."""
    uninterrupted, hold_file = Pair(random(), 300.0), tmp_path / "held"
    assert uninterrupted.both()[0] == [0, 0]
    broken = Pair(random(), 300.0)
    moments: list[tuple[str, dict[str, object], slice, int]] = [
        ("step@7", {"event": "step", "step": 7}, slice(2), 7),
        ("evaluating", {"event": "tick", "phase": "evaluating"}, slice(1, 2), 9),
    ]
    for point, event, signalled, step in moments:
        hold_file.touch()
        broken.start(f"{point}:pause:{hold_file}")
        broken.wait_for(**event)
        interrupt(*broken.children[signalled])
        hold_file.unlink()
        statuses, events = broken.left()
        assert statuses == [EXIT_STOPPED, EXIT_STOPPED]
        assert (saved(events), failures(events)) == ([step], [])
    statuses, events = broken.both()
    assert statuses == [0, 0]
    assert [e.exact for e in events if e.event == "resumed"] == [True]
    assert story(broken.events) == story(uninterrupted.events)
    assert product(broken.out) == product(uninterrupted.out)


@pytest.mark.slow  # starts four processes
@pytest.mark.parametrize(
    "signalled",
    [
        pytest.param(slice(2), marks=pytest.mark.slow, id="all"),
        pytest.param(slice(1, 2), id="one"),
    ],
)
def test_stop_during_method_selection_ends_both_processes(
    signalled: slice, write: Write, tmp_path: Path
) -> None:
    candidates = [{"method": {"type": "probe"}}, {"method": {"type": "lora", "r": 2}, "folds": 1}]
    described = {"method": {"type": "auto", "candidates": candidates}, "optim": PLAIN}
    pair, hold_file = Pair(write(**described)), tmp_path / "held"
    hold_file.touch()
    pair.start(f"step@2:pause:{hold_file}")
    pair.wait_for(event="candidate", number=1)
    interrupt(*pair.children[signalled])
    hold_file.unlink()
    statuses, events = pair.left()
    assert statuses == [EXIT_STOPPED, EXIT_STOPPED]
    assert failures(events) == []
    statuses, events = pair.both()
    assert statuses == [0, 0]
    assert [event.number for event in events if event.event == "candidate"] == [1, 2]


def test_different_process_count_is_reported(random: Write, tmp_path: Path) -> None:
    pair = Pair(random())
    assert pair.both("checkpoint_written@2:enospc")[0] == [EXIT_FAILED, EXIT_FAILED]
    assert pair.newest is not None
    observer = RecordingObserver()
    out = tmp_path / "out"
    train_encoder(
        read_input(pair.spec, TrainSpec),
        out_dir=out,
        observer=observer,
        stop=observer,
        resume=pair.newest,
    )
    resumed = observer.all("resumed")[0]
    assert (resumed.exact, resumed.differences) == (False, ["processes 2 → 1"])
