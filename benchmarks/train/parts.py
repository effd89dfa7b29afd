"""How much of a step of `lora_qv` goes into the kernels that its result needs.

The steps are those of a few batches of texts of nearly one length, so that no padding counts on
either side, and the kernels are timed at the same lengths.
"""

import csv
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.train.kernels import kernels
from benchmarks.train.ours import ready, steady
from benchmarks.train.plan import BASE, BATCH, FULL, METHODS, Size, rate_data, train_spec
from benchmarks.train.reviews import read
from benchmarks.train.window import Window
from lora_core.compatibility import read_encoder_shape
from lora_core.data.split import Example
from lora_core.encoders.load import resolve_base
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.method import LoraSpec

METHOD = "lora_qv"
LENGTHS = 5  # batches, in the middle of as many equal shares of the texts, sorted by length


def measure(size: Size) -> dict[str, Any]:
    """Seconds of a mean step, before and after the kernels are timed, and of its kernels."""
    base = resolve_base(BASE)
    method, shape = METHODS[METHOD], read_encoder_shape(base.config, base=BASE)
    assert isinstance(method, LoraSpec)
    with tempfile.TemporaryDirectory() as folder:
        data, lengths = _batches(Path(folder))
        prepared = ready(train_spec(METHOD, data, epochs=1000))
    dtype = torch.bfloat16 if prepared.runtime.precision == "bf16" else torch.float32
    steady(prepared, Window(0, LENGTHS))
    window = Window(size.seconds / 4, LENGTHS)
    took = [steady(prepared, window)]
    alone: dict[str, float] = defaultdict(float)
    for length in lengths:
        for kernel in kernels(shape, method.r, BATCH, length, dtype):
            alone[kernel.name] += kernel.seconds(size.kernel_seconds) / LENGTHS
    took.append(steady(prepared, window))
    step = sum(seconds for *_, seconds in took) / sum(steps for steps, *_ in took)
    return {
        "share": sum(alone.values()) / step,
        "step_seconds": step,
        "steps_seconds": [seconds / steps for steps, _, seconds in took],
        "lengths": lengths,
        "kernels": alone,
    }


def _batches(folder: Path) -> tuple[DataSpec, list[int]]:
    """A dataset of `LENGTHS` batches, and the mean length of each."""
    splits, parts = read(rate_data(FULL.rate_texts), resolve_base(BASE))
    found = parts[Split.TRAIN].lengths
    shares = np.array_split(np.argsort(found, kind="stable"), LENGTHS)
    batches = [share[len(share) // 2 - BATCH // 2 :][:BATCH] for share in shares]
    chosen = [splits.train[i] for batch in batches for i in batch]
    first = {example.label: example for example in chosen}  # one of each label
    train = _write(folder / "train.csv", chosen, splits.labels)
    few = _write(folder / "few.csv", list(first.values()), splits.labels)
    data = DataSpec(
        source={Split.TRAIN: train, Split.VALIDATION: few, Split.TEST: few}, max_length=512
    )
    return data, [round(float(found[batch].mean())) for batch in batches]


def _write(file: Path, examples: Sequence[Example], labels: Sequence[str]) -> str:
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["text", "label"])
        writer.writerows([each.text, labels[each.label]] for each in examples)
    return str(file)
