"""The Trainer of transformers: its settings, default or tuned, and a training with it."""

import tempfile
import time
from typing import Any, Literal

import torch
from transformers import (
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.train.plan import BATCH, SEED, WARMUP, WEIGHT_DECAY
from benchmarks.train.window import End, Window
from lora_core.encoders.load import BaseCheckpoint
from lora_core.runtime import Runtime

Side = Literal["default", "tuned"]


def precision(side: Side, machine: Runtime) -> str:
    """bf16 only when tuned, and where the processor computes it."""
    return machine.precision if side == "tuned" else "fp32"


def arguments(
    rate: float,
    side: Side,
    machine: Runtime,
    *,
    epochs: int,
    batch: int = BATCH,
    seed: int = SEED,
    **more: Any,
) -> Any:
    """Batch, rate, warm-up and decay are ours on both sides; the rest is default or tuned.

    `more` are other settings of the Trainer, by its names.
    """
    tuned = {
        "train_sampling_strategy": "group_by_length",
        "bf16": precision(side, machine) == "bf16",
        "save_strategy": "no",
        "logging_strategy": "no",
        "dataloader_pin_memory": machine.device != "cpu",
    }
    common = {
        "output_dir": tempfile.gettempdir(),  # a training that ends with a window saves nothing
        "use_cpu": machine.device == "cpu",
        "per_device_train_batch_size": batch,
        "num_train_epochs": epochs,
        "learning_rate": rate,
        "warmup_steps": WARMUP,  # below 1 it is a share
        "weight_decay": WEIGHT_DECAY,
        "seed": seed,
        "disable_tqdm": True,
    }
    return TrainingArguments(**common | (tuned if side == "tuned" else {}) | more)


def train(
    model: Any,
    texts: list[dict[str, Any]],
    base: BaseCheckpoint,
    settings: Any,
    window: Window | None = None,
    *,
    warmup: int = 0,
) -> tuple[int, float]:
    """Steps and seconds after the first `warmup` steps of a training that ends with the window, or
    with its epochs.
    """
    ending = Ending(window, warmup)
    trainer = build_trainer(model, texts, base, settings, ending)
    trainer.train()
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    return ending.steps, ending.seconds


def build_trainer(
    model: Any,
    texts: list[dict[str, Any]],
    base: BaseCheckpoint,
    settings: Any,
    ending: "Ending",
    **more: Any,
) -> Any:
    """The Trainer of transformers, padding to the longest of a batch; `more` by its names.

    Raises `ValueError` for a model that has been trained before.
    """
    # accelerate marks a model that it has wrapped in autocast, and the mark outlives the wrapper:
    # a second training would silently compute in fp32.
    if getattr(model, "_is_accelerate_prepared", False):
        raise ValueError("accelerate has prepared this model before; train a fresh one")
    tokenizer = AutoTokenizer.from_pretrained(base.directory, local_files_only=True)
    return Trainer(
        model=model,
        args=settings,
        train_dataset=texts,
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        callbacks=[ending],
        **more,
    )


class Ending(TrainerCallback):  # type: ignore[misc]  # transformers has no types here
    """Counts steps and seconds after `warmup` steps, and ends a training with its window."""

    def __init__(self, window: End | None, warmup: int = 0) -> None:
        self.window, self.warmup = window, warmup
        self.steps, self.seconds = 0, 0.0
        self.began = time.monotonic()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.monotonic()

    def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
        steps = state.global_step - self.warmup
        if torch.cuda.is_available() and self.window and steps % self.window.a_pass == 0:
            torch.cuda.synchronize()  # wait for queued kernels
        if steps <= 0:
            self.began = time.monotonic()
            return
        self.steps, self.seconds = steps, time.monotonic() - self.began
        if self.window is not None and self.window.over(self.steps, self.seconds):
            control.should_training_stop = True
