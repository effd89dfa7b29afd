"""LoRA on a sequence classifier with PEFT and the Trainer, written as a user would write it.

It imports nothing of this project: the benchmark compares it with its harness of the competitor
to show that the harness does not slow the competitor down. Prints one JSON object.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class Timer(TrainerCallback):  # type: ignore[misc]  # transformers has no types here
    """Seconds from the end of the warm-up to the end of the last step."""

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup
        self.began = self.seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.monotonic()

    def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        if state.global_step == self.warmup:
            self.began = time.monotonic()
        self.seconds = time.monotonic() - self.began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="directory of a checkpoint")
    parser.add_argument("texts", type=Path, help="JSON: input_ids and labels, in training order")
    parser.add_argument("--steps", type=int, required=True, help="that are timed")
    parser.add_argument("--warmup", type=int, default=0, help="steps before them")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16.0)
    parser.add_argument("--targets", nargs="+", required=True, help="modules that get an adapter")
    parser.add_argument("--heads", nargs="+", required=True, help="modules that train in full")
    parser.add_argument("--dropouts", nargs="*", default=[], help="settings of the model, made 0")
    parser.add_argument("--bf16", action="store_true")
    a = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(a.model)
    model = AutoModelForSequenceClassification.from_pretrained(
        a.model, num_labels=2, dtype=torch.float32, **dict.fromkeys(a.dropouts, 0.0)
    )
    lora = LoraConfig(
        task_type="SEQ_CLS",
        r=a.rank,
        lora_alpha=a.alpha,
        target_modules=a.targets,
        modules_to_save=a.heads,
    )
    timer = Timer(a.warmup)
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            bf16=a.bf16,
            per_device_train_batch_size=a.batch,
            max_steps=a.warmup + a.steps,
            learning_rate=a.rate,
            warmup_steps=0.06,
            weight_decay=0.01,
            train_sampling_strategy="sequential",
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=get_peft_model(model, lora),
            args=settings,
            train_dataset=json.loads(a.texts.read_text()),
            data_collator=DataCollatorWithPadding(tokenizer),
            processing_class=tokenizer,
            callbacks=[timer],
        )
        trainer.train()
    print(
        json.dumps(
            {
                "reviews_per_s": a.steps * a.batch / timer.seconds,
                "steps": trainer.state.global_step - a.warmup,
                "steps_seconds": timer.seconds,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
