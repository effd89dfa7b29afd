"""Two-layer encoders and small tokenizers, made in code: fast enough for every test."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE, WordPiece
from tokenizers.processors import RobertaProcessing, TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from lora_core.data.tokens import special_tokens

WORDS = (  # noqa: SIM905
    "the a film movie was is good bad great awful fine dull very not plot cast it and of to in "
    "##s ##ly ##ing watch boring lovely scene story end hero"
).split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def distilbert(labels: int = 2, **changes: Any) -> PreTrainedModel:
    """Width 32, two blocks, no dropout; wide weights, so that it learns in a few steps."""
    config: dict[str, Any] = {
        "vocab_size": 128, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64,
        "max_position_embeddings": 64, "dropout": 0.0, "attention_dropout": 0.0,
        "seq_classif_dropout": 0.0, "num_labels": labels, "initializer_range": 0.1, **changes,
    }  # fmt: skip
    return DistilBertForSequenceClassification(DistilBertConfig(**config)).eval()


def bert(labels: int = 2, **changes: Any) -> PreTrainedModel:
    """The same size in BERT's architecture."""
    config: dict[str, Any] = {
        "vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": 64, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0, "num_labels": labels,
        "initializer_range": 0.1, **changes,
    }  # fmt: skip
    return BertForSequenceClassification(BertConfig(**config)).eval()


def roberta(labels: int = 2, **changes: Any) -> PreTrainedModel:
    """The same size in RoBERTa's architecture, with as many positions after that of padding."""
    config: dict[str, Any] = {
        "vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": 66, "type_vocab_size": 1,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0,
        "num_labels": labels, "initializer_range": 0.1, **changes,
    }  # fmt: skip
    return RobertaForSequenceClassification(RobertaConfig(**config)).eval()


FAMILIES = {"distilbert": distilbert, "bert": bert, "roberta": roberta}


def tokenizer(family: str = "distilbert") -> Tokenizer:
    """As the family has it, over `WORDS` and single letters or bytes."""
    return _byte_level() if family == "roberta" else _word_piece()


def _byte_level() -> Tokenizer:
    """Byte-level BPE, in which case counts."""
    made = Tokenizer(BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        [f" {word.strip('#')}" for word in WORDS],
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    made.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    return made


def _word_piece() -> Tokenizer:
    """Lower case, WordPiece."""
    pieces = [
        *SPECIAL,
        *WORDS,
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    made = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return made


def make_base(directory: Path, family: str = "distilbert", seed: int = 0, **changes: Any) -> Path:
    """A base directory as a user would have it: config, safetensors, tokenizer."""
    torch.manual_seed(seed)
    FAMILIES[family](**changes).save_pretrained(directory)
    made = tokenizer(family)
    made.save(str(directory / "tokenizer.json"))
    special = special_tokens(made)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64, **special}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


def make_reviews(path: Path, rows: int = 120, labels: tuple[str, ...] = ("bad", "good")) -> Path:
    """A CSV file of short sentences whose label a two-layer encoder can learn."""
    generator = torch.Generator().manual_seed(0)
    lines = ["text,label"]
    for i in range(rows):
        label = labels[i % len(labels)]
        picks = torch.randint(len(WORDS), (6,), generator=generator).tolist()
        filler = [WORDS[j].strip("#") for j in picks if WORDS[j] not in labels]
        lines.append(f"{' '.join(filler)} {label} {i},{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
