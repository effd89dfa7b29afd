"""Our side: the training that `python -m lora_core train` runs."""

import os
import tempfile
import time
from contextlib import suppress
from typing import Any

from benchmarks.silent import silent_progress
from benchmarks.train.needed import flops_of_review
from benchmarks.train.plan import (
    BASE,
    EPOCHS_OF_JOB,
    METHODS,
    SEEDS,
    Size,
    accuracy_data,
    rate_data,
    train_spec,
)
from benchmarks.train.window import Window
from lora_core import distributed
from lora_core.data.tokens import TokenizedSplit
from lora_core.encoders.load import resolve_base
from lora_core.errors.training import StopRequested
from lora_core.events import NullObserver
from lora_core.forward import Forward
from lora_core.progress_reporter import ProgressReporter
from lora_core.runtime import peak_process_memory_mb
from lora_core.specs.data import Split
from lora_core.specs.method import LoraSpec
from lora_core.specs.train import OptimSpec, TrainSpec
from lora_core.training import model_outputs
from lora_core.training.loop import Trainer
from lora_core.training.prepare import PreparedRun, prepare_run
from lora_core.training.resume import build_or_resume_trainer


def rate(name: str, size: Size) -> dict[str, Any]:
    """Reviews per second over steady steps at 512 tokens, and the peak in MB."""
    prepared = ready(train_spec(name, rate_data(size.rate_texts), 100, size.place))
    if size.warmup:
        steady(prepared, Window(0, size.warmup))
    steps, reviews, seconds = steady(prepared, Window(size.seconds, size.a_pass))
    found = {
        "reviews_per_s": reviews / seconds,
        "steps": steps,
        "steps_seconds": seconds,
        "precision": prepared.runtime.precision,
        "peak_mb": prepared.runtime.peak_memory_mb(),
    }
    if isinstance(method := METHODS[name], LoraSpec):
        lengths = prepared.tokenized[Split.TRAIN].lengths
        needed = flops_of_review(resolve_base(BASE).config, method, lengths)
        found["needed_gflop_per_review"] = needed / 1e9
    return found


def jobs(name: str, size: Size) -> dict[str, Any]:
    """Texts times epochs over the training of a whole job, and of a second one on the same data.

    Both begin in an empty cache of their own, so that no earlier run has left them features.
    """
    with tempfile.TemporaryDirectory() as cache:
        os.environ["LORAWORKS_CACHE"] = cache
        first, second = (job(name, size) for _ in range(2))
    reviews = size.job_texts * EPOCHS_OF_JOB
    return {
        "reviews_per_s": reviews / first["train_seconds"],
        "second_reviews_per_s": reviews / second["train_seconds"],
        "jobs": [first, second],
        "peak_mb": peak_process_memory_mb(),
    }


def job(name: str, size: Size) -> dict[str, float]:
    """Seconds of the training, features included, and of all from the spec to the last step."""
    began = time.monotonic()
    spec = train_spec(name, rate_data(size.job_texts), EPOCHS_OF_JOB)
    trained = trainer_of(ready(spec), silent_progress()).train()
    return {"train_seconds": trained.throughput.seconds, "all_seconds": time.monotonic() - began}


def accuracy(name: str, size: Size) -> dict[str, Any]:
    """The predictions of each seed after one epoch at 256 tokens."""
    correct, seconds = [], 0.0
    for seed in SEEDS[name]:
        prepared = ready(train_spec(name, accuracy_data(size), epochs=1, seed=seed))
        seconds += trainer_of(prepared, silent_progress()).train().throughput.seconds
        correct.append(right(prepared.forward, prepared.tokenized[Split.TEST]))
    return {
        "correct": correct,
        "data": prepared.splits.digest,
        "train_seconds": seconds,
        "peak_mb": peak_process_memory_mb(),
    }


def right(forward: Forward, part: TokenizedSplit) -> str:
    """1 or 0 for each text: whether it was predicted correctly."""
    budget = OptimSpec().micro_batch_tokens
    logits = model_outputs.compute_logits(forward, part, budget=budget, progress=silent_progress())
    return "".join(str(int(each)) for each in logits.argmax(axis=1) == part.targets)


def ready(spec: TrainSpec) -> PreparedRun:
    """Data, model and features."""
    return prepare_run(spec, NullObserver(), silent_progress())


def trainer_of(prepared: PreparedRun, progress: ProgressReporter) -> Trainer:
    """From the first step, without checkpoints."""
    return build_or_resume_trainer(
        prepared, observer=NullObserver(), progress=progress, checkpoint_settings=None, saved=None
    )


def steady(prepared: PreparedRun, window: Window) -> tuple[int, int, float]:
    """Steps, reviews and seconds of a training that ends with the window; without evaluation."""
    ending = Ending(window)
    trainer = ending.trainer = trainer_of(
        prepared, ProgressReporter(NullObserver(), distributed.DistributedStopSignal(ending))
    )
    with suppress(StopRequested):
        trainer.train()
    return trainer.state.step, trainer.throughput.texts, ending.elapsed(trainer)


class Ending:
    """Stops a trainer when the window is over."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.trainer: Trainer | None = None

    def requested(self) -> bool:
        trainer = self.trainer
        if trainer is None:
            return False
        return self.window.over(trainer.state.step, self.elapsed(trainer))

    def elapsed(self, trainer: Trainer) -> float:
        """Seconds of its steps."""
        return trainer.throughput.seconds - trainer.forward.setup_seconds
