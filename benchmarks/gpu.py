"""How fast we train on GPUs, beside PEFT and the Trainer tuned: `python -m benchmarks.gpu`.

One GPU for ours and the rival in turn, then all that there are for ours alone. Every figure is
measured in processes of its own and kept in `benchmarks/results/`: a run that was stopped goes on.
Ends with one JSON object.
"""

import argparse
import json
import os
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import apart
from benchmarks.kept import DIRECTORY, Kept
from benchmarks.train import cells, ours
from benchmarks.train.plan import Place, Size
from lora_core import distributed
from lora_core.process import torchrun_world_size

NAMES = ("lora_qv", "lora_all", "full")
ONE = tuple(f"rate-{name}-{side}" for name in NAMES for side in ("tuned", "ours"))
ALL = tuple(f"together-{name}" for name in NAMES)
# One pass is 50 steps: both samplers sort as many batches together.
SIZE = Size(20.0, 3200, 20, 0, 0, 0, 0.0, Place("cuda", batch=64, tokens=64 * 512))


def here(cell: str) -> dict[str, Any] | None:
    """The figures of a cell, measured by this process; nothing from all but the first of several.

    Several get as much work each as one alone.
    """
    if cell in ONE:
        return cells.run(cell, SIZE)
    several = torchrun_world_size()
    place = replace(SIZE.place, batch=SIZE.place.batch * several)
    size = replace(SIZE, rate_texts=SIZE.rate_texts * several, place=place)
    with distributed.process_group():
        figures = ours.rate(cell.partition("-")[2], size) | {"processes": several}
        return figures if distributed.destroy_process_group() else None


def measure(cell: str, card: str, gpus: int) -> dict[str, Any]:
    """The figures of a cell from new processes; their last line. Ends this one if they fail."""
    environment = dict(os.environ)
    words = ["benchmarks.gpu", "--cell", cell]
    if cell in ALL:
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}", "-m"]
        words = launcher + words
    else:  # the Trainer takes every GPU that it sees
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]
    figures: dict[str, Any] = apart.last_line(cell, *words, environment=environment)
    return figures | {"card": card}


def kept(directory: Path, card: str) -> Kept:
    """The cells that were measured on such a card today."""
    name = re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")
    return Kept(directory / f"gpu-{name}-{datetime.now(UTC).date()}.jsonl")


def summary(results: Kept, card: str) -> dict[str, Any]:
    """What is told in the end: of each method the rates, their ratios and the peaks."""
    told: dict[str, Any] = {"card": card}
    for name in NAMES:
        mine, tuned = (results.figures(f"rate-{name}-{side}") for side in ("ours", "tuned"))
        told[name] = {
            "reviews_per_s": mine["reviews_per_s"],
            "vs_tuned": mine["reviews_per_s"] / tuned["reviews_per_s"],
            "peak_mb": mine["peak_mb"],
            "peak_mb_tuned": tuned["peak_mb"],
        }
        if (cell := f"together-{name}") in results.cells:
            several = results.figures(cell)
            told[name]["processes"] = several["processes"]
            told[name]["vs_one_process"] = several["reviews_per_s"] / mine["reviews_per_s"]
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=DIRECTORY, help="directory to keep them in")
    parser.add_argument("--cell", choices=(*ONE, *ALL), help="measure this one here, and print it")
    arguments = parser.parse_args()
    if arguments.cell:
        if figures := here(arguments.cell):
            print(json.dumps(figures))
        return

    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu needs a GPU, and torch finds none.")
    card, gpus = torch.cuda.get_device_name(0), torch.cuda.device_count()
    results = kept(arguments.results, card)
    for cell in (*ONE, *(ALL if gpus > 1 else ())):
        results.ensure(cell, partial(measure, cell, card, gpus))
    print(json.dumps(summary(results, card)))


if __name__ == "__main__":
    main()
