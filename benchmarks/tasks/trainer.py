"""The competitor: PEFT and the Trainer of transformers, tuned as in `benchmarks.train`."""

from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.tasks import answers
from benchmarks.tasks.plan import BASE, BATCH, EPOCHS, MAX_LENGTH, METHOD, RATE, Kind, Size
from benchmarks.tasks.sets import Row, load
from benchmarks.train.competitor import start
from benchmarks.train.trainer import arguments, train
from lora_core.encoders import get_family
from lora_core.encoders.load import BaseCheckpoint, resolve_base
from lora_core.specs.data import Split

PROBLEM_TYPES = {
    "multilabel": "multi_label_classification",
    "pairs": "single_label_classification",
    "regression": "regression",
}
EVALUATION_BATCH = 64


def accuracy(kind: Kind, seed: int, size: Size) -> dict[str, Any]:
    """The answers of the model after its epochs, and the seconds of the training."""
    machine, base = start(), resolve_base(BASE)
    torch.manual_seed(seed)
    model = build_model(base, PROBLEM_TYPES[kind], len(answers.names(kind, size)) or 1)
    numbers = answers.truth(kind, size, Split.TRAIN)
    mean, std = (numbers.mean(), numbers.std()) if kind == "regression" else (0.0, 1.0)
    settings = arguments(RATE, "tuned", machine, epochs=EPOCHS, batch=BATCH, seed=seed)
    texts = _dataset(kind, size, base, mean, std)
    seconds = train(model, texts, base, settings)[1]
    validation, test = (
        mean + std * _logits(model, base, load(kind, size)[split])
        for split in (Split.VALIDATION, Split.TEST)
    )
    return {"answers": answers.decide(kind, size, validation, test), "train_seconds": seconds}


def build_model(base: BaseCheckpoint, problem_type: str, outputs: int) -> Any:
    """The base with a new head that trains in full, and adapters on all linear layers."""
    family = get_family(base.config)
    model = AutoModelForSequenceClassification.from_pretrained(
        base.directory,
        num_labels=outputs,
        problem_type=problem_type,
        dtype=torch.float32,
        local_files_only=True,
        **dict.fromkeys((*family.dropouts, *family.head_dropouts), 0.0),
    )
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=METHOD.r,
        lora_alpha=METHOD.alpha,
        target_modules={path for role in METHOD.targets for path in family.roles[role]},
        modules_to_save=list(family.saved_modules),
    )
    return get_peft_model(model, config)


def _dataset(
    kind: Kind, size: Size, base: BaseCheckpoint, mean: float, std: float
) -> list[dict[str, Any]]:
    rows = load(kind, size)[Split.TRAIN]
    encoded = _tokenized(base, rows)
    targets = (answers.truth(kind, size, Split.TRAIN) - mean) / std
    return [
        {name: encoded[name][i] for name in encoded}
        | {"labels": int(targets[i]) if kind == "pairs" else targets[i].tolist()}
        for i in range(len(rows))
    ]


def _tokenized(base: BaseCheckpoint, rows: list[Row]) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(base.directory, local_files_only=True)
    pairs = None if rows[0].pair is None else [row.pair for row in rows]
    return tokenizer([row.text for row in rows], pairs, truncation=True, max_length=MAX_LENGTH)


@torch.inference_mode()
def _logits(model: Any, base: BaseCheckpoint, rows: list[Row]) -> np.ndarray[Any, Any]:
    tokenizer = AutoTokenizer.from_pretrained(base.directory, local_files_only=True)
    encoded = _tokenized(base, rows)
    model.eval()
    parts = []
    for begin in range(0, len(rows), EVALUATION_BATCH):
        batch = {name: values[begin : begin + EVALUATION_BATCH] for name, values in encoded.items()}
        parts.append(model(**tokenizer.pad(batch, return_tensors="pt")).logits.float().numpy())
    return np.concatenate(parts).astype(float)
