"""Two-layer encoders and small tokenizers, built in code: fast enough for every test."""

import json
import string
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.processors import RobertaProcessing, TemplateProcessing
from transformers import (
    CONFIG_MAPPING,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    CamembertConfig,
    CamembertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from lora_core import encoders
from lora_core.data.tokens import build_special_tokens_map
from lora_core.specs.method import LayerRole
from tests.made_once import make_or_copy
from tests.slow import slow_but

WORDS = (  # noqa: SIM905
    "the a film movie was is good bad great awful fine dull very not plot cast it and of to in "
    "##s ##ly ##ing watch boring lovely scene story end hero"
).split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def distilbert(labels: int = 2, **changes: Any) -> PreTrainedModel:
    """Return a DistilBERT of width 32 with two blocks and no dropout. Large initial weights make it
    learn in a few steps."""
    config: dict[str, Any] = {
        "vocab_size": 128, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64,
        "max_position_embeddings": 64, "dropout": 0.0, "attention_dropout": 0.0,
        "seq_classif_dropout": 0.0, "num_labels": labels, "initializer_range": 0.1, **changes,
    }  # fmt: skip
    return DistilBertForSequenceClassification(DistilBertConfig(**config)).eval()


def bert(labels: int = 2, **changes: Any) -> PreTrainedModel:
    """Return a BERT of the same size."""
    return BertForSequenceClassification(BertConfig(**{**_bert_config(labels), **changes})).eval()


def _bert_config(labels: int) -> dict[str, Any]:
    return {
        "vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": 64, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0, "num_labels": labels,
        "initializer_range": 0.1,
    }  # fmt: skip


def roberta(labels: int = 2, **changes: Any) -> PreTrainedModel:
    """Return a RoBERTa of the same size, with as many positions after the padding index."""
    config = RobertaConfig(**{**_roberta_config(labels), **changes})
    return RobertaForSequenceClassification(config).eval()


def _roberta_config(labels: int) -> dict[str, Any]:
    sizes = {"vocab_size": 400, "max_position_embeddings": 66, "type_vocab_size": 1}
    return {**_bert_config(labels), **sizes}


def xlm_roberta(labels: int = 2, **changes: Any) -> PreTrainedModel:
    """Return an XLM-RoBERTa, which is like the RoBERTa."""
    config = XLMRobertaConfig(**{**_roberta_config(labels), **changes})
    return XLMRobertaForSequenceClassification(config).eval()


def camembert(labels: int = 2, **changes: Any) -> PreTrainedModel:
    """Return a CamemBERT, which is like the RoBERTa."""
    config = CamembertConfig(**{**_roberta_config(labels), **changes})
    return CamembertForSequenceClassification(config).eval()


def electra(labels: int = 2, **changes: Any) -> PreTrainedModel:
    """Return an ELECTRA of the same size as the BERT, with narrower embeddings."""
    config = ElectraConfig(**{**_bert_config(labels), "embedding_size": 16, **changes})
    return ElectraForSequenceClassification(config).eval()


def modernbert(labels: int = 2, **changes: Any) -> PreTrainedModel:
    """Return a ModernBERT of the same size, whose second block sees four tokens to each side."""
    config: dict[str, Any] = {
        "vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 48, "max_position_embeddings": 64, "local_attention": 8,
        "pad_token_id": 0, "cls_token_id": 2, "bos_token_id": 2, "sep_token_id": 3,
        "eos_token_id": 3, "num_labels": labels, "initializer_range": 0.1, **changes,
    }  # fmt: skip
    return ModernBertForSequenceClassification(ModernBertConfig(**config)).eval()


FAMILIES = {
    "distilbert": distilbert,
    "bert": bert,
    "roberta": roberta,
    "xlm-roberta": xlm_roberta,
    "camembert": camembert,
    "electra": electra,
    "modernbert": modernbert,
}


def whole_layers(family: str, *roles: LayerRole) -> tuple[LayerRole, ...]:
    """Return these roles, with all others that are parts of the same layers in this family."""
    paths = encoders.FAMILIES[family].roles
    layers = {paths[role] for role in roles}
    return tuple(role for role in LayerRole if paths[role] in layers)


GENERAL_CONFIGS: dict[str, dict[str, Any]] = {
    "deberta-v2": {  # as DeBERTa-v3 has them
        "relative_attention": True, "pos_att_type": "p2c|c2p", "position_buckets": 16,
        "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False,
        "pooler_hidden_size": 32,
    },
    "mpnet": {"vocab_size": 400, "max_position_embeddings": 66},
    "albert": {"embedding_size": 16, "num_hidden_layers": 3, "classifier_dropout_prob": 0.0},
    "nomic_bert": {"classifier_dropout": 0.0},
    "gte": {"vocab_size": 400, "classifier_dropout": 0.0},
    "jina_embeddings_v3": {
        "vocab_size": 400, "max_position_embeddings": 66, "classifier_dropout": 0.0,
    },
    "eurobert": {
        "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
        "mask_token_id": 4,
    },
    "ultrabert": {"sliding_window": 4},
    "ernie": {},
    "megatron-bert": {},
    "rembert": {
        "input_embedding_size": 16, "classifier_dropout_prob": 0.0, "bos_token_id": 2,
        "eos_token_id": 3,
    },
    "mobilebert": {
        "embedding_size": 16, "intra_bottleneck_size": 16, "classifier_activation": False,
    },
    "data2vec-text": {"vocab_size": 400, "max_position_embeddings": 66},
    "roberta-prelayernorm": {"vocab_size": 400, "max_position_embeddings": 66},
    "xlm-roberta-xl": {"vocab_size": 400, "max_position_embeddings": 66},
    "luke": {
        "vocab_size": 400, "max_position_embeddings": 66, "entity_vocab_size": 10,
        "entity_emb_size": 16,
    },
    "roformer": {"embedding_size": 16},
    "big_bird": {"attention_type": "original_full"},
    "longformer": {"vocab_size": 400, "max_position_embeddings": 66, "attention_window": [8, 8]},
    "layoutlm": {"max_2d_position_embeddings": 8},
    "lilt": {"hidden_size": 48, "max_2d_position_embeddings": 8},
    "esm": {
        "max_position_embeddings": 66, "pad_token_id": 0, "mask_token_id": 4,
        "position_embedding_type": "rotary", "token_dropout": True,
    },
    "esmc": {"pad_token_id": 0, "mask_token_id": 4},
}  # fmt: skip


def general(family: str, labels: int = 2, **changes: Any) -> PreTrainedModel:
    """Return an encoder of a general family, of the same size as the BERT."""
    config_class = CONFIG_MAPPING[family]
    known = config_class().to_dict().keys() | {"num_labels"}
    config = {name: value for name, value in _bert_config(labels).items() if name in known}
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(
        config_class(**config | GENERAL_CONFIGS[family] | changes)
    )
    return model.eval()


EVERY_FAMILY: dict[str, Callable[..., PreTrainedModel]] = {
    **FAMILIES,
    **{name: partial(general, name) for name in GENERAL_CONFIGS},
}


def mostly_slow(names: Iterable[str]) -> list[Any]:
    """Return these families as parameters. Not slow are those of which each has another structure:
    of attention, positions and norms, or a block that runs many times."""
    general_ones = ("deberta-v2", "albert", "nomic_bert", "eurobert")
    return slow_but(names, "distilbert", "bert", "roberta", "modernbert", *general_ones)


def each_family() -> list[Any]:
    """Return `FAMILIES` as parameters. Those that are marked slow have the layers of another one:
    XLM-RoBERTa and CamemBERT those of RoBERTa, ELECTRA those of BERT."""
    return slow_but(FAMILIES, "distilbert", "bert", "roberta", "modernbert")


def tokenizer(family: str = "distilbert") -> Tokenizer:
    """Return a tokenizer of the family's type over `WORDS` and single letters or bytes."""
    match family:
        case (
            "roberta" | "mpnet" | "gte" | "jina_embeddings_v3" | "data2vec-text" | "luke"
            | "roberta-prelayernorm" | "xlm-roberta-xl" | "longformer"
        ):  # fmt: skip
            tokenizer_ = _byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
            tokenizer_.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
            return tokenizer_
        case "modernbert":
            tokenizer_ = _byte_level(SPECIAL)
            tokenizer_.normalizer = normalizers.NFC()
            tokenizer_.post_processor = _bert_template()
            return tokenizer_
        case "xlm-roberta":
            return _unigram(["<s>", "<pad>", "</s>", "<unk>"])
        case "camembert":  # whose special tokens are not where its config says
            unused = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"]
            return _unigram([*unused, "<s>", "</s>"])
        case _:
            return _word_piece()


def _byte_level(special: list[str]) -> Tokenizer:
    """Return a case-sensitive byte-level BPE, without a post-processor."""
    tokenizer_ = Tokenizer(BPE())
    tokenizer_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer_.decoder = decoders.ByteLevel()
    tokenizer_.train_from_iterator(
        [f" {word.strip('#')}" for word in WORDS],
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer_


def _bert_template() -> TemplateProcessing:
    return TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )


def _unigram(special: list[str]) -> Tokenizer:
    """Return a case-sensitive tokenizer as converted from a SentencePiece model."""
    words = [word.removeprefix("##") if "##" in word else f"\u2581{word}" for word in WORDS]
    letters = ["\u2581", *string.ascii_lowercase, *string.digits, *"ACW'-.,<>/[]"]
    pieces = [*((each, 0.0) for each in special), *((word, -3.0) for word in words)]
    pieces += [*((each, -6.0) for each in letters if each not in words), ("<mask>", 0.0)]
    tokenizer_ = Tokenizer(Unigram(pieces, unk_id=special.index("<unk>")))
    tokenizer_.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    tokenizer_.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer_.decoder = decoders.Metaspace()
    tokenizer_.add_special_tokens([*special, "<mask>"])
    tokenizer_.post_processor = TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(each, special.index(each)) for each in ("<s>", "</s>")],
    )
    return tokenizer_


def _word_piece() -> Tokenizer:
    """Return a lowercase WordPiece tokenizer."""
    pieces = [
        *SPECIAL,
        *WORDS,
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer_ = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer_.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer_.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer_.post_processor = _bert_template()
    return tokenizer_


_random_states: dict[str, torch.Tensor] = {}  # after a base was made


def make_base(directory: Path, family: str = "distilbert", seed: int = 0, **changes: Any) -> Path:
    """Write a base model directory: config, safetensors, tokenizer."""
    make_or_copy(_write_base, directory, family=family, seed=seed, **changes)
    torch.set_rng_state(_random_states[repr((family, seed, sorted(changes.items())))])
    return directory


def _write_base(directory: Path, *, family: str, seed: int, **changes: Any) -> None:
    torch.manual_seed(seed)
    EVERY_FAMILY[family](**changes).save_pretrained(directory)
    _random_states[repr((family, seed, sorted(changes.items())))] = torch.get_rng_state()
    saved_tokenizer = tokenizer(family)
    saved_tokenizer.save(str(directory / "tokenizer.json"))
    special = build_special_tokens_map(saved_tokenizer)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64, **special}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def make_reviews(path: Path, rows: int = 120, labels: tuple[str, ...] = ("bad", "good")) -> Path:
    """Write a CSV file of short sentences whose label a two-layer encoder can learn."""
    generator = torch.Generator().manual_seed(0)
    lines = ["text,label"]
    for i in range(rows):
        label = labels[i % len(labels)]
        picks = torch.randint(len(WORDS), (6,), generator=generator).tolist()
        filler = [WORDS[j].strip("#") for j in picks if WORDS[j] not in labels]
        lines.append(f"{' '.join(filler)} {label} {i},{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_pairs(path: Path, rows: int = 120) -> Path:
    """Write a CSV file of pairs of sentences; the label says whether both have the same verdict."""
    generator = torch.Generator().manual_seed(0)
    verdicts = ("bad", "good")
    lines = ["first,second,label"]
    for i in range(rows):
        picks = torch.randint(len(WORDS), (4,), generator=generator).tolist()
        filler = [WORDS[j].strip("#") for j in picks if WORDS[j] not in verdicts]
        first, second = verdicts[i % 2], verdicts[i // 2 % 2]
        label = "same" if first == second else "other"
        lines.append(f"{' '.join(filler)} {first} {i},a film {second},{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_chat_examples(path: Path, rows: int = 120) -> Path:
    """Write a file in chat form with the sentences of `make_reviews`, an instruction and JSON."""
    reviews = make_reviews(path.with_suffix(".csv"), rows).read_text(encoding="utf-8")
    lines = []
    for line in reviews.splitlines()[1:]:
        text, label = line.rsplit(",", 1)
        messages = [
            {"role": "system", "content": "You rate reviews."},
            {"role": "user", "content": f"Sort the review: {text}\n\n###\n\n"},
            {"role": "assistant", "content": json.dumps({"mood": label})},
        ]
        lines.append(json.dumps({"messages": messages}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
