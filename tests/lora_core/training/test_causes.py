"""No memory, no room, no number: each has its own cause, and the curve shows what it can."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from lora_core.errors.training import DeviceOutOfMemory, DiskFull, HostOutOfMemory, NonFiniteLoss
from lora_core.events import parse_event
from lora_core.specs.method import LoraSpec
from lora_core.specs.train import TrainSpec
from lora_core.tasks.sequence_classification import SequenceClassification
from lora_core.training import library_errors
from lora_core.training.run import run
from tests.listener import Listener

Make = Callable[..., TrainSpec]
SPEC = TrainSpec.model_validate({"method": LoraSpec(), "runtime": {"device": "cuda"}})


def too_much_for_torch() -> None:
    torch.empty(2**50)


def too_much_for_python() -> None:
    bytearray(2**60)


def no_memory_for_a_file() -> None:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


@pytest.mark.parametrize("ask", [too_much_for_torch, too_much_for_python, no_memory_for_a_file])
def test_memory_of_the_machine(ask: Callable[[], None]) -> None:
    with (
        pytest.raises(HostOutOfMemory, match=r"used \d+ MB.*to 2048 \(now 4096\)"),
        library_errors.translate_errors(SPEC),
    ):
        ask()


def test_memory_of_the_device() -> None:
    words = r"cuda:0 .* used 0 MB .*to 2048 \(now 4096\)"
    with (
        pytest.raises(DeviceOutOfMemory, match=words) as caught,
        library_errors.translate_errors(SPEC),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert caught.value.detail["suggested"] == 2048


def test_the_suggestion_is_one_that_a_spec_may_have() -> None:
    small = SPEC.model_copy(
        update={"optim": SPEC.optim.model_copy(update={"micro_batch_tokens": 20})}
    )
    with pytest.raises(HostOutOfMemory, match="to 16 "), library_errors.translate_errors(small):
        raise MemoryError


def test_a_base_that_does_not_fit_is_not_broken(
    spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        torch.empty(2**50)

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", load)
    with pytest.raises(HostOutOfMemory):
        run(spec(), out_dir=tmp_path, observer=Listener(), stop=Listener())


def test_a_full_disk() -> None:
    with pytest.raises(DiskFull), library_errors.translate_errors(SPEC):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), OSError(errno.EIO, "broken")])
def test_any_other_error_stays_what_it_is(error: Exception) -> None:
    with (
        pytest.raises(type(error), match=str(error.args[-1])),
        library_errors.translate_errors(SPEC),
    ):
        raise error


def fail(spec: TrainSpec, out: Path) -> tuple[NonFiniteLoss, Listener]:
    heard = Listener()
    with pytest.raises(NonFiniteLoss) as caught:
        run(spec, out_dir=out, observer=heard, stop=heard)
    for event in heard.events:
        assert parse_event(event.model_dump_json()) == event
        json.loads(event.model_dump_json(), parse_constant=pytest.fail)  # no NaN, no Infinity
    return caught.value, heard


def test_a_loss_that_is_no_number_is_on_the_curve(spec: Make, tmp_path: Path) -> None:
    wild = spec(optim={"learning_rate": 1e9, "max_grad_norm": 1e6, "warmup": 0, "epochs": 30})
    error, heard = fail(wild, tmp_path)
    last = heard.all("step")[-1]
    assert (last.step, last.loss, last.grad_norm) == (error.detail["step"], None, None)
    assert heard.events[-1] == last
    assert len({event.step for event in heard.all("step")}) == len(heard.all("step"))


def test_a_gradient_that_is_no_number_leaves_its_loss(
    spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(1, 100))

    def clip(parameters: Any, limit: float) -> torch.Tensor:
        return torch.tensor(float("inf") if next(steps) == 3 else 1.0)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", clip)
    error, heard = fail(spec(), tmp_path)
    assert error.detail["what"] == "gradient norm"
    last = heard.all("step")[-1]
    assert (last.step, last.grad_norm) == (3, None)
    assert last.loss > 0


def test_a_validation_loss_that_is_no_number_is_told_and_is_never_the_best(
    spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {"loss": float("nan"), "accuracy": 1.0, "macro_f1": 1.0}
    monkeypatch.setattr(SequenceClassification, "metrics", lambda *_: figures)
    error, heard = fail(spec(), tmp_path)
    assert error.detail["what"] == "validation loss"
    last = heard.all("evaluated")[-1]
    assert (last.metrics["loss"], last.best) == (None, False)
