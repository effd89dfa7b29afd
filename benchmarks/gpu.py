"""Training on GPUs compared with a tuned PEFT and Trainer, and serving with a pipeline:
`python -m benchmarks.gpu`.

First one GPU for ours and the competitor in turn, then all GPUs for ours. The Trainer pads, since
PEFT has no unpadding for these encoders. Every number is measured in its own processes and stored
in `benchmarks/results/`: a stopped run continues. After ten minutes it ends with what there is: one
JSON object, whose `seconds` and `left_out` say how long it took and what is missing.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import pipeline

from benchmarks import child_process
from benchmarks.results_file import DIRECTORY, ResultsFile
from benchmarks.train import cells, ours
from benchmarks.train.plan import Place, Size
from lora_core import distributed
from lora_core.inference.predictor import Predictor
from lora_core.process_settings import torchrun_world_size

NAMES = ("lora_qv", "lora_all", "full")
SERVING = ("serve-pipeline", "serve-ours")
ONE = (*(f"rate-{name}-{side}" for name in NAMES for side in ("tuned", "ours")), *SERVING)
ALL = tuple(f"together-{name}" for name in NAMES)
# One pass is 50 steps: both samplers sort as many batches together.
PIPELINE_BATCH = 64
LIMIT = 600.0  # seconds, of `make gpu-check`
SIZE = Size(20.0, 3200, 20, 0, 0, 0, 0.0, Place("cuda", batch=64, tokens=64 * 512))


def here(cell: str) -> dict[str, Any] | None:
    """Metrics of a cell, measured by this process; only the first of several reports them.

    Several get as much work each as one alone.
    """
    if cell in SERVING:
        return serve(cell)
    if cell in ONE:
        return cells.run(cell, SIZE)
    several = torchrun_world_size()
    place = replace(SIZE.place, batch=SIZE.place.batch * several)
    size = replace(SIZE, rate_texts=SIZE.rate_texts * several, place=place)
    with distributed.process_group():
        metrics = ours.rate(cell.partition("-")[2], size) | {"processes": several}
        return metrics if distributed.destroy_group_and_check_main() else None


def serve(
    cell: str, seconds: float = 20.0, device: str = "cuda", engine_name: str = "cuda-bf16"
) -> dict[str, Any]:
    """Texts per second with all texts available, and the peak of memory."""
    from benchmarks.serve import checkpoint, engine

    texts = checkpoint.read_texts(20 * engine.AT_ONCE)
    if cell == "serve-ours":
        predictor = Predictor.load(checkpoint.artifact(), engine=engine_name)
        per_s = engine.offline(predictor, texts, seconds)["per_s"]
    else:
        per_s = _pipeline(str(checkpoint.merged()), sorted(texts, key=len), seconds, device)
    peak = torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else 0.0
    return {"texts_per_s": per_s, "peak_mb": peak}


def _pipeline(model: str, texts: Sequence[str], seconds: float, device: str) -> float:
    """Texts per second of a pipeline on texts of similar lengths, in bf16."""
    classify = pipeline(
        "text-classification", model=model, device=device, dtype=torch.bfloat16,
        batch_size=PIPELINE_BATCH, truncation=True,
    )  # fmt: skip
    classify(texts[:PIPELINE_BATCH])
    done, start = 0, time.perf_counter()
    while (took := time.perf_counter() - start) < seconds or not done:
        first = done % (len(texts) - PIPELINE_BATCH)
        classify(texts[first : first + PIPELINE_BATCH])
        done += PIPELINE_BATCH
    return done / took


def measure(cell: str, seconds: float, card: str, gpus: int) -> dict[str, Any]:
    """Metrics of a cell from the last line of new processes. Exits if they fail.

    Raises `TimeoutExpired` after `seconds`.
    """
    environment = dict(os.environ)
    words = ["benchmarks.gpu", "--cell", cell]
    if cell in ALL:
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}", "-m"]
        words = launcher + words
    else:  # the Trainer takes every GPU that it sees
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]
    metrics: dict[str, Any] = child_process.last_line(
        cell, *words, environment=environment, seconds=seconds
    )
    return metrics | {"card": card}


def measure_until(
    end: float,
    results: ResultsFile,
    cells: Sequence[str],
    measure: Callable[[str, float], dict[str, Any]],
) -> None:
    """Measure what is not stored yet, until this time of the monotonic clock."""
    for cell in cells:
        left = end - time.monotonic()
        if left > 0 or cell in results.cells:
            with suppress(subprocess.TimeoutExpired):
                results.ensure(cell, partial(measure, cell, left))


def kept(directory: Path, card: str) -> ResultsFile:
    """Cells measured on this GPU model today."""
    name = re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")
    return ResultsFile(directory / f"gpu-{name}-{datetime.now(UTC).date()}.jsonl")


def summary(results: ResultsFile, cells: Sequence[str], card: str) -> dict[str, Any]:
    """Throughput, ratios and peak memory of each method, as far as they were measured."""
    report: dict[str, Any] = {
        "card": card,
        **results.where(),
        "left_out": [cell for cell in cells if cell not in results.cells],
    }
    if results.cells.keys() >= set(SERVING):
        ours, competitor = (results.metrics(f"serve-{side}") for side in ("ours", "pipeline"))
        report["serving"] = {
            "texts_per_s": ours["texts_per_s"],
            "vs_pipeline": ours["texts_per_s"] / competitor["texts_per_s"],
            "peak_mb": ours["peak_mb"],
            "peak_mb_pipeline": competitor["peak_mb"],
        }
    for name in NAMES:
        pair = [f"rate-{name}-{side}" for side in ("ours", "tuned")]
        if not results.cells.keys() >= set(pair):
            continue
        mine, tuned = map(results.metrics, pair)
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
    parser.add_argument("--used", type=float, default=0.0, help="seconds of the ten minutes so far")
    arguments = parser.parse_args()
    began = time.monotonic() - arguments.used
    if arguments.cell:
        if metrics := here(arguments.cell):
            print(json.dumps(metrics))
        return

    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu needs a GPU, and torch finds none.")
    card, gpus = torch.cuda.get_device_name(0), torch.cuda.device_count()
    results = kept(arguments.results, card)
    cells = (*ONE, *(ALL if gpus > 1 else ()))
    measure_until(began + LIMIT, results, cells, partial(measure, card=card, gpus=gpus))
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps({**summary(results, cells, card), "seconds": seconds}))


if __name__ == "__main__":
    main()
