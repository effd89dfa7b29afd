"""Out of memory, full disk and NaN have their own errors, and metrics stay valid JSON."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from lora_core import runtime
from lora_core.errors.training import DeviceOutOfMemory, DiskFull, HostOutOfMemory, NonFiniteLoss
from lora_core.events import parse_event
from lora_core.specs.method import LoraSpec
from lora_core.specs.train import TrainSpec
from lora_core.tasks.single_label import SingleLabel
from lora_core.training.encoder import train_encoder
from tests.recording_observer import RecordingObserver

Make = Callable[..., TrainSpec]
SPEC = TrainSpec.model_validate({"method": LoraSpec(), "runtime": {"device": "cuda"}})


def too_much_for_torch() -> None:
    torch.empty(2**50)


def too_much_for_python() -> None:
    bytearray(2**60)


def no_memory_for_a_file() -> None:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


@pytest.mark.parametrize("ask", [too_much_for_torch, too_much_for_python, no_memory_for_a_file])
def test_out_of_memory_on_the_host(ask: Callable[[], None]) -> None:
    with (
        pytest.raises(HostOutOfMemory, match=r"used \d+ MB.*to 2048 \(now 4096\)"),
        runtime.convert_resource_errors(SPEC),
    ):
        ask()


def test_out_of_memory_on_the_device() -> None:
    words = r"cuda:0 .* used 0 MB .*to 2048 \(now 4096\)"
    with (
        pytest.raises(DeviceOutOfMemory, match=words) as caught,
        runtime.convert_resource_errors(SPEC),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert caught.value.detail["suggested"] == 2048


def test_suggested_setting_is_valid() -> None:
    small = SPEC.model_copy(
        update={"optim": SPEC.optim.model_copy(update={"micro_batch_tokens": 20})}
    )
    with pytest.raises(HostOutOfMemory, match="to 16 "), runtime.convert_resource_errors(small):
        raise MemoryError


def test_out_of_memory_while_loading_is_not_a_damaged_base(
    spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        torch.empty(2**50)

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", load)
    with pytest.raises(HostOutOfMemory):
        train_encoder(
            spec(), out_dir=tmp_path, observer=RecordingObserver(), stop=RecordingObserver()
        )


def test_full_disk_is_reported() -> None:
    with pytest.raises(DiskFull), runtime.convert_resource_errors(SPEC):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), OSError(errno.EIO, "broken")])
def test_other_errors_are_not_translated(error: Exception) -> None:
    with (
        pytest.raises(type(error), match=str(error.args[-1])),
        runtime.convert_resource_errors(SPEC),
    ):
        raise error


def fail(spec: TrainSpec, out: Path) -> tuple[NonFiniteLoss, RecordingObserver]:
    observer = RecordingObserver()
    with pytest.raises(NonFiniteLoss) as caught:
        train_encoder(spec, out_dir=out, observer=observer, stop=observer)
    for event in observer.events:
        assert parse_event(event.model_dump_json()) == event
        json.loads(event.model_dump_json(), parse_constant=pytest.fail)  # no NaN, no Infinity
    return caught.value, observer


def test_nonfinite_loss_is_reported_in_its_step(spec: Make, tmp_path: Path) -> None:
    wild = spec(optim={"learning_rate": 1e9, "max_grad_norm": 1e6, "warmup": 0, "epochs": 30})
    error, observer = fail(wild, tmp_path)
    last = observer.all("step")[-1]
    assert (last.step, last.loss, last.grad_norm) == (error.detail["step"], None, None)
    assert observer.events[-1] == last
    assert len({event.step for event in observer.all("step")}) == len(observer.all("step"))


def test_nonfinite_gradient_is_reported_with_its_loss(
    spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(1, 100))

    def clip(parameters: Any, limit: float) -> torch.Tensor:
        return torch.tensor(float("inf") if next(steps) == 3 else 1.0)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", clip)
    error, observer = fail(spec(), tmp_path)
    assert error.detail["what"] == "gradient norm"
    last = observer.all("step")[-1]
    assert (last.step, last.grad_norm) == (3, None)
    assert last.loss > 0


def test_nonfinite_validation_loss_is_reported_and_never_the_best(
    spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = {"loss": float("nan"), "accuracy": 1.0, "macro_f1": 1.0}
    monkeypatch.setattr(SingleLabel, "compute_logged_metrics", lambda *_: metrics)
    error, observer = fail(spec(), tmp_path)
    assert error.detail["what"] == "validation loss"
    last = observer.all("evaluated")[-1]
    assert (last.metrics["loss"], last.best) == (None, False)
