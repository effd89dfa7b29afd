"""Training speed on GPUs compared with a tuned PEFT and Trainer: `python -m benchmarks.gpu`.

First one GPU for ours and the competitor in turn, then all GPUs for ours. Every number is
measured in its own processes and stored in `benchmarks/results/`: a stopped run continues.
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

from benchmarks import child_process
from benchmarks.results_file import DIRECTORY, ResultsFile
from benchmarks.train import cells, ours
from benchmarks.train.plan import Place, Size
from lora_core import distributed
from lora_core.process_settings import torchrun_world_size

NAMES = ("lora_qv", "lora_all", "full")
ONE = tuple(f"rate-{name}-{side}" for name in NAMES for side in ("tuned", "ours"))
ALL = tuple(f"together-{name}" for name in NAMES)
# One pass is 50 steps: both samplers sort as many batches together.
SIZE = Size(20.0, 3200, 20, 0, 0, 0, 0.0, Place("cuda", batch=64, tokens=64 * 512))


def here(cell: str) -> dict[str, Any] | None:
    """Metrics of a cell, measured by this process; only the first of several reports them.

    Several get as much work each as one alone.
    """
    if cell in ONE:
        return cells.run(cell, SIZE)
    several = torchrun_world_size()
    place = replace(SIZE.place, batch=SIZE.place.batch * several)
    size = replace(SIZE, rate_texts=SIZE.rate_texts * several, place=place)
    with distributed.process_group():
        metrics = ours.rate(cell.partition("-")[2], size) | {"processes": several}
        return metrics if distributed.destroy_process_group() else None


def measure(cell: str, card: str, gpus: int) -> dict[str, Any]:
    """Metrics of a cell from the last line of new processes. Exits if they fail."""
    environment = dict(os.environ)
    words = ["benchmarks.gpu", "--cell", cell]
    if cell in ALL:
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}", "-m"]
        words = launcher + words
    else:  # the Trainer takes every GPU that it sees
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]
    metrics: dict[str, Any] = child_process.last_line(cell, *words, environment=environment)
    return metrics | {"card": card}


def kept(directory: Path, card: str) -> ResultsFile:
    """Cells measured on this GPU model today."""
    name = re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")
    return ResultsFile(directory / f"gpu-{name}-{datetime.now(UTC).date()}.jsonl")


def summary(results: ResultsFile, card: str) -> dict[str, Any]:
    """Throughput, ratios and peak memory of each method."""
    report: dict[str, Any] = {"card": card}
    for name in NAMES:
        mine, tuned = (results.metrics(f"rate-{name}-{side}") for side in ("ours", "tuned"))
        report[name] = {
            "reviews_per_s": mine["reviews_per_s"],
            "vs_tuned": mine["reviews_per_s"] / tuned["reviews_per_s"],
            "peak_mb": mine["peak_mb"],
            "peak_mb_tuned": tuned["peak_mb"],
        }
        if (cell := f"together-{name}") in results.cells:
            several = results.metrics(cell)
            report[name]["processes"] = several["processes"]
            report[name]["vs_one_process"] = several["reviews_per_s"] / mine["reviews_per_s"]
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=DIRECTORY, help="directory to keep them in")
    parser.add_argument("--cell", choices=(*ONE, *ALL), help="measure this one here, and print it")
    arguments = parser.parse_args()
    if arguments.cell:
        if metrics := here(arguments.cell):
            print(json.dumps(metrics))
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
