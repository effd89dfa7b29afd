"""The tuned competitor in our harness and in a plain script, on the same texts in the same order.

A pair is both sides in turn, each in a process of its own. `python -m benchmarks.train.pairs FILE`
is the side of the harness.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

from benchmarks.child_process import ROOT, last_line_of
from benchmarks.train import competitor
from benchmarks.train.plan import BASE, FULL, METHODS, PAIRED, QUICK, RATES, SEED, Size, rate_data
from benchmarks.train.reviews import read
from lora_core.cpu import has_fast_bf16
from lora_core.encoders.load import BaseCheckpoint, resolve_base
from lora_core.specs.data import Split
from lora_core.specs.method import LoraSpec

SCRIPT = ROOT / "benchmarks" / "train" / "script.py"


def measure(number: int, size: Size) -> dict[str, Any]:
    """Reviews per second of both sides and their ratio. Odd pairs begin with the harness."""
    base = resolve_base(BASE)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.json"
        file.write_text(json.dumps(in_order(base, size)))
        words = {
            "harness": ["-m", "benchmarks.train.pairs", str(file), *["--quick"] * (size == QUICK)],
            "script": ["-I", str(SCRIPT), *script_arguments(base, file, size)],
        }
        turns = ("harness", "script") if number % 2 else ("script", "harness")
        found = {side: last_line_of(f"{side} of pair {number}", *words[side]) for side in turns}
    rates = {side: found[side]["reviews_per_s"] for side in words}
    return {
        **rates,
        "harness_vs_script": rates["harness"] / rates["script"],
        "steps": size.pair_steps,
        "steps_seconds": {side: found[side]["steps_seconds"] for side in words},
        "peak_mb": {side: found[side]["peak_mb"] for side in words},
        "first": turns[0],
        "precision": found["harness"]["precision"],
    }


def in_order(base: BaseCheckpoint, size: Size) -> list[dict[str, Any]]:
    """The texts that both sides train on (and warm up) in one pool of the Trainer's sampler."""
    batch, steps = size.place.batch, size.warmup + size.pair_steps
    texts = competitor.dataset(read(rate_data(size.rate_texts), base)[1][Split.TRAIN])[
        : batch * steps
    ]
    order = get_length_grouped_indices(
        [len(each["input_ids"]) for each in texts],
        batch,
        mega_batch_mult=steps,
        generator=torch.Generator().manual_seed(SEED),
    )
    return [texts[i] for i in order]


def script_arguments(base: BaseCheckpoint, file: Path, size: Size) -> list[str]:
    """The arguments with which the script trains as the harness does."""
    method, family = METHODS[PAIRED], base.family
    assert isinstance(method, LoraSpec)
    options = {
        "steps": [size.pair_steps],
        "warmup": [size.warmup],
        "batch": [size.place.batch],
        "rate": [RATES[PAIRED]],
        "rank": [method.r],
        "alpha": [method.alpha],
        "targets": [path for role in method.targets for path in family.roles[role]],
        "heads": family.head,
        "dropouts": [*family.dropouts, *family.head_dropouts],
    }
    words = [str(base.directory), str(file), *["--bf16"] * has_fast_bf16()]
    for name, values in options.items():
        words += [f"--{name}", *map(str, values)]
    return words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", type=Path, help="JSON, as `in_order` makes it")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    texts = json.loads(arguments.texts.read_text())
    size = QUICK if arguments.quick else FULL
    print(json.dumps(competitor.rate_in_order(PAIRED, texts, size)))


if __name__ == "__main__":
    main()
