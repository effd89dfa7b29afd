"""A run that was cut off and resumed is bitwise equal, for every method and stored state.

Here the run is cut off by an exception; `test_kill.py` does it to real processes.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lora_core.cpu import has_fast_bf16
from lora_core.errors.training import StopRequested
from lora_core.events import Event
from lora_core.fast.native.library import best_library
from lora_core.layers import VARIANTS
from lora_core.specs.method import LoraVariant
from lora_core.specs.train import TrainSpec
from lora_core.training import model_outputs
from lora_core.training.best_weights import BestWeights
from lora_core.training.checkpoint_schedule import CheckpointSettings
from lora_core.training.encoder import train_encoder
from lora_core.training.throughput import ThroughputAndLossMeter
from lora_core.training.training_state import TrainingState
from tests.lora_core.test_fine_tuning_methods import FrozenA
from tests.lora_core.training.twins import events_before, product, story
from tests.recording_observer import RecordingObserver
from tests.slow import slow_but
from tests.tiny_base import make_base, make_reviews

Make = Callable[..., TrainSpec]
Attempt = Callable[..., tuple[RecordingObserver, Path]]

RANDOM = {"encoder_dropout": 0.1, "head_dropout": 0.2}
LORA = {"type": "lora", "r": 4, "dropout": 0.1, "targets": ["query", "value", "mlp"]}


class Cut(Exception):
    """Ends the run, as in a power failure."""


class CutOff(RecordingObserver):
    """Ends the run before an update, at its first event."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.before = before

    def on_event(self, event: Event) -> None:
        if event.event == "step" and event.step == self.before:
            raise Cut
        super().on_event(event)


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    """One attempt at a spec: with a checkpoint after every step, cut off or resumed."""
    counter = iter(range(100))

    def go(
        spec: TrainSpec,
        *,
        cut: int | None = None,
        stop_at: int | None = None,
        at: int | None = None,
    ) -> tuple[RecordingObserver, Path]:
        observer = RecordingObserver(stop_at) if cut is None else CutOff(cut)
        out = tmp_path / f"out-{next(counter)}"
        checkpoint_settings = CheckpointSettings(tmp_path / "checkpoints", 0.0)
        resume = None if at is None else checkpoint_settings.directory / f"step-{at}"
        with suppress(Cut, StopRequested):
            train_encoder(
                spec,
                out_dir=out,
                observer=observer,
                stop=observer,
                checkpoint_settings=checkpoint_settings,
                resume=resume,
            )
        return observer, out

    return go


CASES: dict[str, dict[str, Any]] = {
    "lora": {"method": LORA, "optim": RANDOM},
    "lora-micro": {"method": LORA, "optim": {**RANDOM, "micro_batch_tokens": 32}},
    "lora-frozen-head": {"method": {**LORA, "head": "frozen"}, "optim": RANDOM},
    "dora": {"method": {"type": "lora", "variant": "dora", "head": "lora"}, "optim": RANDOM},
    "lora_fa": {"method": {**LORA, "variant": "lora_fa"}, "optim": RANDOM},
    "baseline": {"method": {"type": "baseline"}, "optim": {"head_dropout": 0.2}},  # frozen encoder
    "baseline-block": {"method": {"type": "baseline", "blocks": 1}, "optim": RANDOM},
    "full": {"method": {"type": "full"}, "optim": {**RANDOM, "decay": "cosine"}},
    "two-threads": {"method": LORA, "optim": RANDOM, "runtime": {"threads": 2}},
}


# Fast: features that are computed once, and all weights. An adapter is resumed below.
@pytest.mark.parametrize("case", slow_but(CASES, "baseline", "full"))
def test_every_method_resumes_bitwise(case: str, spec: Make, attempt: Attempt) -> None:
    described = spec(**CASES[case])
    uninterrupted, out = attempt(described)
    total = uninterrupted.all("started")[0].total_steps
    cut = total // 2 + 1  # within an epoch, after an evaluation
    first, _ = attempt(described, cut=cut)
    second, resumed = attempt(described, at=cut - 1)
    assert story(events_before(first.events, cut - 1)) + story(second.events) == story(
        uninterrupted.events
    )
    assert product(resumed) == product(out)
    resumption = second.all("resumed")[0]
    assert (resumption.step, resumption.exact, resumption.differences) == (cut - 1, True, [])
    names = [event.event for event in second.events]
    assert names.index("resumed") < names.index("started")


@pytest.mark.parametrize(
    "attention", ["native" if best_library() is not None and has_fast_bf16() else "torch"]
)
def test_run_in_bf16_resumes_bitwise(
    attention: str, spec: Make, attempt: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_base(tmp_path / "wide", n_heads=1)  # a head of 32, which native attention computes
    described = spec(base=str(base), method=LORA, runtime={"threads": 2})
    backwards: list[object] = []
    if attention == "native":
        library = best_library()
        compute = library.attention_backward  # type: ignore[union-attr]

        def count(call: object, *, threads: int) -> None:
            backwards.append(call)
            compute(call, threads=threads)

        monkeypatch.setattr(library, "attention_backward", count)
    uninterrupted, out = attempt(described)
    steps = uninterrupted.all("started")[0].total_steps
    assert (len(backwards) >= steps) == (attention == "native")
    first, _ = attempt(described, cut=steps // 2 + 1)
    second, resumed = attempt(described, at=steps // 2)
    assert second.all("resumed")[0].exact
    assert story(events_before(first.events, steps // 2)) + story(second.events) == story(
        uninterrupted.events
    )
    assert product(resumed) == product(out)


@pytest.mark.slow  # no method has such parameters
def test_untrained_adapter_parameters_resume_bitwise(
    spec: Make, attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VARIANTS, LoraVariant.LORA, FrozenA)
    described = spec(method=LORA, optim=RANDOM)
    _, out = attempt(described)
    attempt(described, cut=21)
    _, resumed = attempt(described, at=20)
    assert product(resumed) == product(out)
    assert any(name.endswith(".A") for name in load_file(out / "adapter.safetensors"))


@pytest.fixture
def short(spec: Make) -> TrainSpec:
    """Two epochs of six updates, evaluated twice in each."""
    return spec(
        method=LORA,
        optim={**RANDOM, "epochs": 2, "batch_size": 16, "micro_batch_tokens": 128},
        stop={"select_by": "loss"},
    )


@pytest.mark.slow  # the tests around it resume from half of the steps
def test_run_resumes_from_every_step(short: TrainSpec, attempt: Attempt) -> None:
    """The last step of an epoch, one before an evaluation, and the last step."""
    uninterrupted, out = attempt(short)
    for step in range(1, uninterrupted.all("started")[0].total_steps + 1):
        second, resumed = attempt(short, at=step)
        assert story(events_before(uninterrupted.events, step)) + story(second.events) == story(
            uninterrupted.events
        )
        assert product(resumed) == product(out)


def test_stopped_run_resumes_to_the_same_result(
    short: TrainSpec, attempt: Attempt, tmp_path: Path
) -> None:
    """Stopped repeatedly, each time a step later."""
    uninterrupted, out = attempt(short)
    observer: list[Event] = []
    at: int | None = None
    for step in (1, 3, 6, 7):
        part, _ = attempt(short, stop_at=step, at=at)
        observer += events_before(part.events, step)
        at = step
    last, resumed = attempt(short, at=at)
    assert story([*observer, *last.events]) == story(uninterrupted.events)
    assert product(resumed) == product(out)


def test_best_weights_from_before_the_resume_are_kept(spec: Make, attempt: Attempt) -> None:
    """A destructive learning rate: metrics get worse after the first epochs."""
    described = spec(
        optim={"epochs": 12, "learning_rate": 0.05, "decay": "none", **RANDOM},
        stop={"select_by": "loss", "evaluations_per_epoch": 1, "patience": 4},
    )
    uninterrupted, out = attempt(described)
    metrics = product(out)["metrics"]
    assert metrics["stopped_early"]
    cut = metrics["best_step"] + 3
    second, resumed = attempt(described, at=cut)
    assert product(resumed) == product(out)
    assert story(events_before(uninterrupted.events, cut)) + story(second.events) == story(
        uninterrupted.events
    )
    last, again = attempt(described, at=metrics["steps"])  # patience is already used up
    assert product(again) == product(out)
    assert len(last.all("step")) == 0


def test_saving_does_not_affect_training(
    short: TrainSpec, attempt: Attempt, tmp_path: Path
) -> None:
    saving, out = attempt(short)
    observer, plain = RecordingObserver(), tmp_path / "plain"
    train_encoder(short, out_dir=plain, observer=observer, stop=observer)
    assert story(observer.events) == story(saving.events)
    assert product(plain) == product(out)
    assert min(event.step for event in observer.all("evaluated")) > 0


@pytest.mark.slow
def test_random_numbers_in_evaluation_do_not_affect_training(
    short: TrainSpec, attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = attempt(short)
    quiet = model_outputs.compute_logits

    def noisy(*arguments: Any, **more: Any) -> Any:
        torch.rand(3), random.random(), np.random.random()
        return quiet(*arguments, **more)

    monkeypatch.setattr(model_outputs, "compute_logits", noisy)
    noise, _ = attempt(short)
    assert story(noise.events) == story(plain.events)


def without(kind: str) -> Callable[[TrainingState, Any, dict[str, Tensor]], None]:
    """`TrainingState.restore` that leaves out one kind of tensors."""
    original = TrainingState.restore

    def restore(self: TrainingState, state: Any, tensors: dict[str, Tensor]) -> None:
        kept = {name: t for name, t in tensors.items() if not name.startswith(kind)}
        original(self, state, {**self.tensors(), **kept})

    return restore


def without_schedule() -> Callable[[TrainingState, Any, dict[str, Tensor]], None]:
    """`TrainingState.restore` that leaves the schedule at its first step."""
    original = TrainingState.restore

    def restore(self: TrainingState, state: Any, tensors: dict[str, Tensor]) -> None:
        original(self, state, tensors)
        self.lr_scheduler.last_epoch = 0

    return restore


def nothing(*_: Any) -> None:
    pass


PIECES: dict[str, tuple[Any, str, Any]] = {
    "weights": (TrainingState, "restore", without("weights/")),
    "optimizer": (TrainingState, "restore", without("optimizer/")),
    "torch generator": (TrainingState, "restore", without("rng/torch")),
    "best": (BestWeights, "load_state", nothing),
    "throughput": (ThroughputAndLossMeter, "load_state", nothing),
    "schedule": (TrainingState, "restore", without_schedule()),
}


def mislabeled(reviews: Path) -> Path:
    """Every third label is wrong: memorizing them raises the validation loss."""
    header, *rows = reviews.read_text(encoding="utf-8").splitlines()
    wrong = {"bad": "good", "good": "bad"}
    for i in range(0, len(rows), 3):
        text, label = rows[i].rsplit(",", 1)
        rows[i] = f"{text},{wrong[label]}"
    reviews.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return reviews


@pytest.fixture(scope="module")
def long(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[TrainSpec, Path, RecordingObserver, Path]:
    """A run long enough that logged values are means of two steps, with early best weights."""
    place = tmp_path_factory.mktemp("long")
    spec = TrainSpec.model_validate(
        {
            "method": LORA,
            "base": str(make_base(place / "base")),
            "data": {"source": str(mislabeled(make_reviews(place / "reviews.csv")))},
            "optim": {**RANDOM, "epochs": 20, "batch_size": 8, "learning_rate": 0.01},
            "stop": {"select_by": "loss", "evaluations_per_epoch": 1},
            "runtime": {"threads": 1, "seed": 3},
            "result": {"cross_validation": False},
        }
    )
    observer, out = RecordingObserver(), place / "out"
    checkpoint_settings = CheckpointSettings(place / "checkpoints", 0.0)
    train_encoder(
        spec, out_dir=out, observer=observer, stop=observer, checkpoint_settings=checkpoint_settings
    )
    return spec, checkpoint_settings.directory, observer, out


@pytest.mark.slow  # tests the tests above
@pytest.mark.parametrize("piece", ["none", *PIECES, "position in the epoch"])
def test_each_part_of_the_checkpoint_is_needed(
    piece: str,
    long: tuple[TrainSpec, Path, RecordingObserver, Path],
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    """Without one part the resumed run differs, which the tests above detect."""
    spec, checkpoints, uninterrupted, out = long
    at = uninterrupted.all("started")[0].total_steps - 7
    assert at % 2 == 1  # half of a mean is in the checkpoint
    assert product(out)["metrics"]["best_step"] < at
    if piece in PIECES:
        monkeypatch.setattr(*PIECES[piece])
    elif piece == "position in the epoch":
        monkeypatch.setattr("lora_core.training.loop.islice", lambda updates, *_: updates)
    observer, resumed = RecordingObserver(), tmp_path / "out"
    train_encoder(
        spec, out_dir=resumed, observer=observer, stop=observer, resume=checkpoints / f"step-{at}"
    )
    same_story = story(events_before(uninterrupted.events, at)) + story(observer.events) == story(
        uninterrupted.events
    )
    assert (same_story and product(resumed) == product(out)) == (piece == "none")
