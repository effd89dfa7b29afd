"""Training on one GPU: close to the CPU, reproducible, and with correct memory metrics."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_core import manifest
from lora_core.data.tokens import TokenizedSplit
from lora_core.encoders import FAMILIES
from lora_core.errors.training import DeviceOutOfMemory
from lora_core.fast import first_token
from lora_core.forward import Forward
from lora_core.runtime import Runtime
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec
from tests import tiny_base
from tests.recording_observer import RecordingObserver

# A GPU promises no equal bits: kernels that have no such form may say so.
pytestmark = pytest.mark.filterwarnings("ignore:.*determinis.*:UserWarning")

Make = Callable[..., TrainSpec]
Train = Callable[..., tuple[RecordingObserver, Path]]

METHODS = [{"type": "lora", "r": 4, "targets": ["query", "value", "mlp"]}, {"type": "full"}]
PLAIN = {"head_dropout": 0.0}  # each device draws its own numbers


def losses(observer: RecordingObserver) -> list[float]:
    return [event.loss for event in observer.all("step")]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m["type"])
@pytest.mark.parametrize(("precision", "close"), [("fp32", 1e-3), ("bf16", 5e-2)])
def test_training_matches_the_cpu(
    spec: Make, train: Train, method: dict[str, object], precision: str, close: float
) -> None:
    runs = [
        train(spec(method=method, optim=PLAIN, runtime={"device": device, "precision": name}))
        for device, name in (("cuda", precision), ("cpu", "fp32"))
    ]
    (observer, out), (expected, _) = runs
    started = observer.all("started")[0]
    assert (started.device, started.precision) == ("cuda:0", precision)
    assert losses(observer)[:3] == pytest.approx(losses(expected)[:3], rel=close)
    assert losses(observer)[-1] < losses(observer)[0] / 2
    metrics = manifest.verify(out)["metrics"]
    assert metrics["test"]["accuracy"] > 0.9
    assert metrics["merge_difference"] <= 1e-4


def test_auto_precision_is_bf16_if_supported(spec: Make, train: Train) -> None:
    observer, _ = train(spec())
    has_it = torch.cuda.is_bf16_supported(including_emulation=False)
    started = observer.all("started")[0]
    assert (started.device, started.precision) == ("cuda:0", "bf16" if has_it else "fp32")


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m["type"])
def test_the_same_seed_gives_the_same_curve(
    spec: Make, train: Train, method: dict[str, object]
) -> None:
    dropout = {"encoder_dropout": 0.1, "head_dropout": 0.1}
    runtime = {"device": "cuda", "precision": "fp32"}
    curves = [
        losses(train(spec(method=method, optim=dropout, runtime={**runtime, "seed": seed}))[0])
        for seed in (1, 1, 2)
    ]
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)
    assert curves[0] != pytest.approx(curves[2], rel=1e-3)


@pytest.mark.parametrize("family", tiny_base.FAMILIES)
@pytest.mark.parametrize(("precision", "close"), [("fp32", 1e-3), ("bf16", 5e-2)])
def test_predictions_match_the_cpu_for_many_lengths(
    family: str, precision: str, close: float
) -> None:
    """Attention covers every token of a text and no padding, alone and with a longer text."""
    draw = np.random.default_rng(0)
    ids = [draw.integers(5, 60, size=n, dtype=np.int32) for n in (3, 64, 17, 17, 40)]
    lengths, labels = np.array([len(row) for row in ids]), np.zeros(len(ids), dtype=np.int64)
    part = TokenizedSplit(Split.TEST, ids, lengths, labels, pad_id=0)
    torch.manual_seed(0)
    model = tiny_base.FAMILIES[family]()
    first_token.patch_last_block(model, FAMILIES[family])
    with torch.no_grad():
        expected = Forward(model, Runtime("cpu", "fp32", 1))(part, range(len(ids)))
        there = Forward(model.to("cuda:0"), Runtime("cuda:0", precision, 1))
        together = there(part, range(len(ids))).float().cpu()
        alone = torch.cat([there(part, [i]) for i in range(len(ids))]).float().cpu()
    torch.testing.assert_close(together, expected, rtol=close, atol=close)
    torch.testing.assert_close(alone, expected, rtol=close, atol=close)


def test_peak_memory_is_that_of_the_device(spec: Make, train: Train) -> None:
    torch.cuda.reset_peak_memory_stats()
    observer, out = train(spec(runtime={"device": "cuda"}))
    peak = manifest.read(out)["metrics"]["peak_memory_mb"]
    assert 0 < peak <= torch.cuda.max_memory_allocated() / 2**20 + 0.1
    assert observer.all("step")[-1].peak_memory_mb <= peak + 0.1


def test_gradient_checkpointing_uses_less_device_memory(spec: Make, train: Train) -> None:
    data = {"source": "imdb", "train_size": 64, "validation_size": 16, "test_size": 16}
    results = {}
    for wanted in (False, True):
        runtime = {"device": "cuda", "precision": "fp32", "gradient_checkpointing": wanted}
        run = spec(base="minilm-l6", method={"type": "full"}, data=data, optim=PLAIN,
                   runtime=runtime)  # fmt: skip
        torch.cuda.reset_peak_memory_stats()
        observer, out = train(run)
        results[wanted] = losses(observer), manifest.read(out)["metrics"]["peak_memory_mb"]
    assert results[True][0] == pytest.approx(results[False][0], rel=1e-3)
    assert results[True][1] < 0.8 * results[False][1]


def test_out_of_device_memory_has_its_own_cause(spec: Make, train: Train) -> None:
    """Limit the memory to one gigabyte, so that the test is the same on every GPU."""
    absurd = {"epochs": 1, "batch_size": 1024, "micro_batch_tokens": 1_048_576}
    data = {"source": "imdb", "train_size": 1024, "validation_size": 16, "test_size": 16}
    run = spec(
        base="minilm-l6", method={"type": "full"}, data=data, optim=absurd,
        runtime={"device": "cuda", "precision": "fp32"},
    )  # fmt: skip
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2**30 / total)
    try:
        with pytest.raises(DeviceOutOfMemory, match="cuda:0") as caught:
            train(run)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert caught.value.code == "oom_device"
    assert caught.value.detail["suggested"] == 524_288
    assert caught.value.detail["peak_mb"] > 0
