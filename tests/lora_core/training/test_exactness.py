"""A run that was cut off and resumed is the same run, bit for bit: every method, every kept piece.

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

from lora_core.errors.training import StopRequested
from lora_core.events import Event
from lora_core.layers import VARIANTS
from lora_core.specs.method import LoraVariant
from lora_core.specs.train import TrainSpec
from lora_core.training import evaluate
from lora_core.training.best_checkpoint import BestCheckpoint
from lora_core.training.checkpoint_schedule import CheckpointSettings
from lora_core.training.run import run
from lora_core.training.throughput import Throughput
from lora_core.training.training_state import TrainingState
from tests.listener import Listener
from tests.lora_core.test_methods import FrozenA
from tests.lora_core.training.twins import events_before, product, story
from tests.tiny_base import make_base, make_reviews

Make = Callable[..., TrainSpec]
Attempt = Callable[..., tuple[Listener, Path]]

RANDOM = {"encoder_dropout": 0.1, "head_dropout": 0.2}
LORA = {"type": "lora", "r": 4, "dropout": 0.1, "targets": ["query", "value", "mlp"]}


class Cut(Exception):
    """The run ends here, as if the power went."""


class CutOff(Listener):
    """Ends the run in front of an update: the first of its kind that is told."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.before = before

    def on_event(self, event: Event) -> None:
        if event.event == "step" and event.step == self.before:
            raise Cut
        super().on_event(event)


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    """One attempt at a spec: with a checkpoint after every step, cut off, resumed."""
    counter = iter(range(100))

    def go(
        spec: TrainSpec,
        *,
        cut: int | None = None,
        stop_at: int | None = None,
        at: int | None = None,
    ) -> tuple[Listener, Path]:
        heard = Listener(stop_at) if cut is None else CutOff(cut)
        out = tmp_path / f"out-{next(counter)}"
        checkpoint_settings = CheckpointSettings(tmp_path / "checkpoints", 0.0)
        resume = None if at is None else checkpoint_settings.directory / f"step-{at}"
        with suppress(Cut, StopRequested):
            run(
                spec,
                out_dir=out,
                observer=heard,
                stop=heard,
                checkpoint_settings=checkpoint_settings,
                resume=resume,
            )
        return heard, out

    return go


CASES: dict[str, dict[str, Any]] = {
    "lora": {"method": LORA, "optim": RANDOM},
    "lora-micro": {"method": LORA, "optim": {**RANDOM, "micro_batch_tokens": 32}},
    "lora-frozen-head": {"method": {**LORA, "head": "frozen"}, "optim": RANDOM},
    "dora": {"method": {"type": "lora", "variant": "dora", "head": "lora"}, "optim": RANDOM},
    "lora_fa": {"method": {**LORA, "variant": "lora_fa"}, "optim": RANDOM},
    "baseline": {"method": {"type": "baseline"}, "optim": {"head_dropout": 0.2}},  # frozen trunk
    "baseline-block": {"method": {"type": "baseline", "blocks": 1}, "optim": RANDOM},
    "full": {"method": {"type": "full"}, "optim": {**RANDOM, "decay": "cosine"}},
    "two-threads": {"method": LORA, "optim": RANDOM, "runtime": {"threads": 2}},
}


# Forms that other tests of this folder have too.
REPEATED = {"lora-micro", "two-threads"}


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.slow if c in REPEATED else ()) for c in CASES]
)
def test_every_method_goes_on_with_the_same_bits(case: str, spec: Make, attempt: Attempt) -> None:
    described = spec(**CASES[case])
    whole, out = attempt(described)
    total = whole.all("started")[0].total_steps
    cut = total // 2 + 1  # within an epoch, an evaluation behind it
    first, _ = attempt(described, cut=cut)
    second, resumed = attempt(described, at=cut - 1)
    assert story(events_before(first.events, cut - 1)) + story(second.events) == story(whole.events)
    assert product(resumed) == product(out)
    told = second.all("resumed")[0]
    assert (told.step, told.exact, told.differences) == (cut - 1, True, [])
    names = [event.event for event in second.events]
    assert names.index("resumed") < names.index("started")


def test_what_an_adapter_does_not_train_goes_on_too(
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


def test_it_goes_on_from_every_step(short: TrainSpec, attempt: Attempt) -> None:
    """The last of an epoch, one that is followed by an evaluation, the last of all."""
    whole, out = attempt(short)
    for step in range(1, whole.all("started")[0].total_steps + 1):
        second, resumed = attempt(short, at=step)
        assert story(events_before(whole.events, step)) + story(second.events) == story(
            whole.events
        )
        assert product(resumed) == product(out)


def test_a_stop_saves_and_the_next_attempt_ends_as_the_unbroken_run(
    short: TrainSpec, attempt: Attempt, tmp_path: Path
) -> None:
    """Stopped again and again, each time a step further."""
    whole, out = attempt(short)
    heard: list[Event] = []
    at: int | None = None
    for step in (1, 3, 6, 7):
        part, _ = attempt(short, stop_at=step, at=at)
        heard += events_before(part.events, step)
        at = step
    last, resumed = attempt(short, at=at)
    assert story([*heard, *last.events]) == story(whole.events)
    assert product(resumed) == product(out)


def test_the_best_weights_from_before_the_cut_are_the_ones_that_are_kept(
    spec: Make, attempt: Attempt
) -> None:
    """It gets worse after the first epochs: a rate that only destroys."""
    described = spec(
        optim={"epochs": 12, "learning_rate": 0.05, "decay": "none", **RANDOM},
        stop={"select_by": "loss", "evaluations_per_epoch": 1, "patience": 4},
    )
    whole, out = attempt(described)
    metrics = product(out)["metrics"]
    assert metrics["stopped_early"]
    cut = metrics["best_step"] + 3
    second, resumed = attempt(described, at=cut)
    assert product(resumed) == product(out)
    assert story(events_before(whole.events, cut)) + story(second.events) == story(whole.events)
    last, again = attempt(described, at=metrics["steps"])  # patience is spent already
    assert product(again) == product(out)
    assert len(last.all("step")) == 0


def test_saving_changes_nothing(short: TrainSpec, attempt: Attempt, tmp_path: Path) -> None:
    saving, out = attempt(short)
    heard, plain = Listener(), tmp_path / "plain"
    run(short, out_dir=plain, observer=heard, stop=heard)
    assert story(heard.events) == story(saving.events)
    assert product(plain) == product(out)


def test_an_evaluation_that_draws_changes_nothing(
    short: TrainSpec, attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = attempt(short)
    quiet = evaluate.logits

    def noisy(*arguments: Any, **more: Any) -> Any:
        torch.rand(3), random.random(), np.random.random()
        return quiet(*arguments, **more)

    monkeypatch.setattr(evaluate, "logits", noisy)
    noise, _ = attempt(short)
    assert story(noise.events) == story(plain.events)


def without(kind: str) -> Callable[[TrainingState, Any, dict[str, Tensor]], None]:
    """`TrainingState.restore`, but tensors of this kind are not those of the checkpoint."""
    whole = TrainingState.restore

    def restore(self: TrainingState, figures: Any, tensors: dict[str, Tensor]) -> None:
        kept = {name: t for name, t in tensors.items() if not name.startswith(kind)}
        whole(self, figures, {**self.tensors(), **kept})

    return restore


def nothing(*_: Any) -> None:
    pass


PIECES: dict[str, tuple[Any, str, Any]] = {
    "weights": (TrainingState, "restore", without("weights/")),
    "optimizer": (TrainingState, "restore", without("optimizer/")),
    "torch generator": (TrainingState, "restore", without("rng/torch")),
    "best": (BestCheckpoint, "load_state", nothing),
    "pace": (Throughput, "load_state", nothing),
    "schedule": (torch.optim.lr_scheduler.LambdaLR, "load_state_dict", nothing),
}


def mislabeled(reviews: Path) -> Path:
    """Every third label is wrong: learning them by heart raises the validation loss."""
    header, *rows = reviews.read_text(encoding="utf-8").splitlines()
    wrong = {"bad": "good", "good": "bad"}
    for i in range(0, len(rows), 3):
        text, label = rows[i].rsplit(",", 1)
        rows[i] = f"{text},{wrong[label]}"
    reviews.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return reviews


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainSpec, Path, Listener, Path]:
    """A run of so many steps that a logged line is a mean of two, with its best weights early."""
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
    heard, out = Listener(), place / "out"
    checkpoint_settings = CheckpointSettings(place / "checkpoints", 0.0)
    run(spec, out_dir=out, observer=heard, stop=heard, checkpoint_settings=checkpoint_settings)
    return spec, checkpoint_settings.directory, heard, out


@pytest.mark.parametrize("piece", ["none", *PIECES, "position in the epoch"])
def test_each_piece_is_needed(
    piece: str, long: tuple[TrainSpec, Path, Listener, Path], tmp_path: Path, monkeypatch: Any
) -> None:
    """With one piece left out the run is another one; the tests above see that."""
    spec, checkpoints, whole, out = long
    at = whole.all("started")[0].total_steps - 7
    assert at % 2 == 1  # half of a mean is in the checkpoint
    assert product(out)["metrics"]["best_step"] < at
    if piece in PIECES:
        monkeypatch.setattr(*PIECES[piece])
    elif piece == "position in the epoch":
        monkeypatch.setattr("lora_core.training.loop.islice", lambda updates, *_: updates)
    heard, resumed = Listener(), tmp_path / "out"
    run(spec, out_dir=resumed, observer=heard, stop=heard, resume=checkpoints / f"step-{at}")
    same_story = story(events_before(whole.events, at)) + story(heard.events) == story(whole.events)
    assert (same_story and product(resumed) == product(out)) == (piece == "none")
