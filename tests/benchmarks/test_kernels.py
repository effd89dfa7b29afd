"""The kernels that are added up do the products that the formulas count, and no others."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.train.kernels import kernels
from benchmarks.train.needed import flops_of_review
from benchmarks.train.plan import METHODS
from lora_core.compatibility import read_shape
from lora_core.samples import minilm
from lora_core.specs.method import LoraSpec


def test_products_are_those_of_the_formulas() -> None:
    config, method = minilm.config(), METHODS["lora_qv"]
    assert isinstance(method, LoraSpec)
    shape, texts, length = read_shape(config, base="minilm-l6"), 2, 24
    counted, attention = 0.0, 0
    for kernel in kernels(shape, method.r, texts, length, torch.float32):
        if kernel.name.startswith("attention"):  # the counter does not know the fused one
            attention += kernel.times
        elif not kernel.name.startswith("adapters"):  # the formula has two more of these thin ones
            with FlopCounterMode(display=False) as counter:
                kernel.run()
            counted += kernel.times * counter.get_total_flops()
    blocks = shape.layers - 1
    assert attention == 2 * blocks
    adapters = 6 * 2 * shape.layers * method.r * 2 * shape.width
    elsewhere = adapters + 3.5 * blocks * 4 * length * shape.width  # a token
    needed = flops_of_review(config, method, np.full(5, length)) - length * elsewhere
    assert counted == pytest.approx(texts * needed, rel=1e-9)


def test_they_run_in_bf16() -> None:
    shape = read_shape(minilm.config(), base="minilm-l6")
    for kernel in kernels(shape, 8, 1, 8, torch.bfloat16):
        assert kernel.seconds(0.0) > 0
