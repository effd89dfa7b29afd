"""Merging gives the same bits on every processor."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lora_core.layers import VARIANTS
from lora_core.layers.base import AdapterLinear
from lora_core.layers.lora import DoraLinear
from lora_core.specs.method import LoraVariant
from tests.lora_core.layers.test_adapter_invariant import every_variant, make

# Prints the sha256 of merged layers as large as those of the sample base.
PROGRAM = """
import hashlib
import numpy as np
import torch
from lora_core.layers import VARIANTS
from tests.lora_core.layers.test_adapter_invariant import make

draw = np.random.default_rng(0)  # the normal distribution of torch depends on the processor
for variant in VARIANTS:
    layer, _ = make(variant, trained=False, d_in=1536, d_out=384, r=8)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.from_numpy(draw.uniform(-1, 1, parameter.shape)))
    layer.merge()
    print(variant, hashlib.sha256(layer.base.weight.detach().numpy().tobytes()).hexdigest())
"""


def merge_one_number_at_a_time(layer: AdapterLinear) -> NDArray[np.float32]:
    """Compute the merged weight with scalars, which IEEE 754 defines to the last bit."""
    tensors = (layer.original_weight, layer.A, layer.B)
    weight, a, b = (tensor.detach().numpy() for tensor in tensors)
    scale, merged = np.float32(layer.scale), np.empty_like(weight)
    for i, j in np.ndindex(weight.shape):
        update = np.float32(0)
        for k in range(len(a)):
            update = update + b[i, k] * a[k, j]
        merged[i, j] = weight[i, j] + scale * update
    if isinstance(layer, DoraLinear):
        for row, magnitude in zip(merged, layer.magnitude.detach().numpy(), strict=True):
            squares = [np.float64(x) * np.float64(x) for x in row]
            while len(squares) > 1:
                half = len(squares) // 2
                pairs = [a + b for a, b in zip(squares[:half], squares[half:], strict=False)]
                squares = pairs + squares[2 * half :]
            row *= magnitude / np.float32(np.sqrt(squares[0]))
    return merged


@every_variant
@pytest.mark.parametrize("d_in", [1, 5, 12, 13])
def test_every_operation_is_rounded_in_the_order_of_the_documentation(
    variant: LoraVariant, d_in: int
) -> None:
    layer, _ = make(variant, trained=True, d_in=d_in, d_out=6, r=5)
    expected = merge_one_number_at_a_time(layer)
    layer.merge()
    assert layer.base.weight.detach().numpy().tobytes() == expected.tobytes()


@pytest.mark.slow  # starts processes with other settings of the processor
def test_instructions_and_threads_do_not_change_a_bit() -> None:
    printed = set()
    for capability, threads in (("default", "1"), ("avx2", "2"), ("", "2")):
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        if capability:
            environment["ATEN_CPU_CAPABILITY"] = capability
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, check=True, stdout=subprocess.PIPE
        )
        printed.add(run.stdout)
    assert len(printed) == 1
    assert len(printed.pop().splitlines()) == len(VARIANTS)


def test_matrix_product_is_only_used_where_bits_do_not_matter() -> None:
    """The effective weight of the forward pass may differ in the last bits."""
    layer, _ = make(LoraVariant.LORA, trained=True, d_in=384, d_out=384, r=64)
    torch.testing.assert_close(layer.merged_weight(), layer.effective_weight())
