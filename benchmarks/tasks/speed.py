"""Seconds of a training on a random encoder: ModernBERT, or DeBERTa on the general road."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from benchmarks.silent import silent_progress
from benchmarks.tasks.plan import BATCH, METHOD, RATE, SPEED_TEXT_LENGTH, Size
from benchmarks.tasks.trainer import build_model
from benchmarks.train.competitor import dataset, start
from benchmarks.train.ours import ready, trainer_of
from benchmarks.train.reviews import read
from benchmarks.train.trainer import arguments, train
from lora_core.artifact import save_tokenizer
from lora_core.data.tokens import load_tokenizer
from lora_core.encoders.load import resolve_base
from lora_core.samples import minilm
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.train import CheckpointSelectionAndStopSpec, HeadInit, OptimSpec, TrainSpec

EPOCHS = 2
SPECIAL = {"pad_token_id": 0, "cls_token_id": 101, "sep_token_id": 102}
FEED_FORWARD = {"modernbert": 1.5, "deberta-v2": 4}  # times the width, as in the published models
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "modernbert": {"bos_token_id": 101, "eos_token_id": 102},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "type_vocab_size": 0,
        "position_biased_input": False,
    },
}


def seconds(encoder: str, side: str, size: Size) -> dict[str, Any]:
    """Seconds from the first step to the last one, on the same texts in both sides."""
    with tempfile.TemporaryDirectory() as folder:
        base = make_base(Path(folder) / "base", encoder, size)
        spec = _spec(base, size)
        if side == "ours":
            trained = trainer_of(ready(spec), silent_progress()).train()
            return {"train_seconds": trained.throughput.seconds, "steps": trained.steps}
        machine = start()
        checkpoint = resolve_base(str(base))
        texts = dataset(read(spec.data, checkpoint)[1][Split.TRAIN])
        model = build_model(checkpoint, "single_label_classification", 2)
        settings = arguments(RATE, "tuned", machine, epochs=EPOCHS, batch=BATCH)
        steps, spent = train(model, texts, checkpoint, settings)
        return {"train_seconds": spent, "steps": steps}


def make_base(directory: Path, encoder: str, size: Size) -> Path:
    """A random encoder with the tokenizer of the sample base."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        encoder,
        vocab_size=30_522,
        hidden_size=size.speed_width,
        num_hidden_layers=size.speed_layers,
        num_attention_heads=size.speed_width // 64,
        intermediate_size=int(FEED_FORWARD[encoder] * size.speed_width),
        max_position_embeddings=512,
        **SPECIAL,
        **SETTINGS[encoder],
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(directory)
    tokenizer = load_tokenizer(minilm.build_cached_checkpoint() / "tokenizer.json")
    save_tokenizer(directory, tokenizer, 512)
    return directory


def _spec(base: Path, size: Size) -> TrainSpec:
    return TrainSpec(
        method=METHOD,
        base=str(base),
        head_init=HeadInit.RANDOM,  # as the competitor starts it
        data=DataSpec(
            source="imdb",
            train_size=size.speed_texts,
            validation_size=16,
            test_size=16,
            max_length=SPEED_TEXT_LENGTH,
        ),
        optim=OptimSpec(epochs=EPOCHS, batch_size=BATCH, learning_rate=RATE, head_dropout=0.0),
        stop=CheckpointSelectionAndStopSpec(evaluations_per_epoch=1),
    )
