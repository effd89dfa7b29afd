"""An optimized model computes the same as the plain one."""

import copy

import numpy as np
import pytest
import torch

from lora_core import fine_tuning_methods
from lora_core.data.tokens import TokenizedSplit
from lora_core.encoders import FAMILIES
from lora_core.fast.optimize import optimize
from lora_core.forward import Forward
from lora_core.layers.lora import LoraLinear
from lora_core.progress_reporter import ProgressReporter
from lora_core.runtime import Runtime
from lora_core.specs.data import Split
from lora_core.specs.method import FullFineTuningSpec, LastLayersBaselineSpec, LoraSpec, LoraVariant
from tests import tiny_base
from tests.recording_observer import RecordingObserver

LENGTHS = (3, 40, 17, 40)  # tokens
PROGRESS = ProgressReporter(RecordingObserver(), RecordingObserver())
MACHINE = Runtime(device="cpu", precision="fp32", threads=1)


def texts() -> TokenizedSplit:
    drawn = np.random.default_rng(0)
    ids = [drawn.integers(5, 60, n, dtype=np.int32) for n in LENGTHS]
    return TokenizedSplit(
        Split.TRAIN, ids, np.array(LENGTHS), np.zeros(len(ids), dtype=np.int64), pad_id=0
    )


@pytest.mark.parametrize(
    "method",
    [
        LoraSpec(r=2),
        LoraSpec(r=2, variant=LoraVariant.DORA),
        FullFineTuningSpec(),
        LastLayersBaselineSpec(blocks=1),
    ],
    ids=lambda method: f"{method.type}-{getattr(method, 'variant', '')}",
)
@pytest.mark.parametrize("family", tiny_base.each_family())
def test_logits_and_gradients_match_the_plain_model(
    family: str, method: LoraSpec | FullFineTuningSpec | LastLayersBaselineSpec
) -> None:
    torch.manual_seed(0)
    plain = tiny_base.FAMILIES[family](labels=3).eval()
    fine_tuning_methods.build_method(method).prepare(plain, FAMILIES[family])
    for name, parameter in plain.named_parameters():
        if name.endswith(".B"):
            torch.nn.init.normal_(parameter, std=0.1)
    fast, every = copy.deepcopy(plain), range(len(LENGTHS))
    forward = optimize(
        fast, FAMILIES[family], MACHINE, {Split.TRAIN: texts()},
        encoder_dropout=0.0, micro_batch_tokens=100, progress=PROGRESS, environment={},
    )  # fmt: skip
    expected, found = Forward(plain, MACHINE)(texts(), every), forward(texts(), every)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    weights = torch.randn_like(expected)
    torch.autograd.backward((expected * weights).sum())
    torch.autograd.backward((found * weights).sum())
    trained = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    for name, parameter in fast.named_parameters():
        if name in trained:
            # Softmax does not depend on the bias of keys: its gradient is zero or absent.
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(gradient, trained[name], rtol=1e-3, atol=1e-5)
    assert trained


def test_lora_is_folded_only_in_an_optimized_model() -> None:
    model = tiny_base.distilbert()
    fine_tuning_methods.build_method(LoraSpec(r=2)).prepare(model, FAMILIES["distilbert"])
    layers = [each for each in model.modules() if isinstance(each, LoraLinear)]
    assert not any("forward_with_adapter" in vars(layer) for layer in layers)
    optimize(
        model, FAMILIES["distilbert"], MACHINE, {Split.TRAIN: texts()},
        encoder_dropout=0.0, micro_batch_tokens=100, progress=PROGRESS, environment={},
    )  # fmt: skip
    assert all("forward_with_adapter" in vars(layer) for layer in layers)
