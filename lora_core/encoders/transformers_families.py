"""Families that transformers runs, and those that cannot be trained here. Does not import torch.

Every class that `AutoModelForSequenceClassification` of transformers 5.24 may load is in
`encoders.FAMILIES`, here, or in `UNSUITABLE` with the reason. In what follows, "as BERT" is about
names alone.
"""

from collections.abc import Mapping
from dataclasses import replace

from lora_core.encoders.families import (
    BERT,
    ROBERTA,
    ConfigRequirement,
    ConfigSizeField,
    EncoderFamily,
)
from lora_core.specs.method import LayerRole

_COMMON_SIZES = {name: BERT.sizes[name] for name in BERT.sizes if name != "segments"}
_GATED_ROLES: Mapping[LayerRole, tuple[str, ...]] = {  # of the blocks that follow Llama's names
    LayerRole.QUERY: ("self_attn.q_proj",),
    LayerRole.KEY: ("self_attn.k_proj",),
    LayerRole.VALUE: ("self_attn.v_proj",),
    LayerRole.PROJECTION: ("self_attn.o_proj",),
    LayerRole.MLP: ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
}


def _as_bert(
    model_type: str, *, prefix: str, sizes: Mapping[str, ConfigSizeField]
) -> EncoderFamily:
    """Return a family with the names of BERT and of its head, but for the `prefix`."""
    return EncoderFamily(
        model_type=model_type,
        block_list=f"{prefix}.encoder.layer",
        roles=BERT.roles,
        head=(f"{prefix}.pooler.dense", "classifier"),
        head_activation="tanh",
        dropouts=BERT.dropouts,
        head_dropouts=BERT.head_dropouts,
        saved_modules=BERT.saved_modules,
        sizes=sizes,
    )


def _as_roberta(
    model_type: str, *, prefix: str, sizes: Mapping[str, ConfigSizeField]
) -> EncoderFamily:
    """Return a family with the names of BERT and the head of RoBERTa, but for the `prefix`."""
    return replace(
        _as_bert(model_type, prefix=prefix, sizes=sizes),
        head=ROBERTA.head,
        saved_modules=ROBERTA.saved_modules,
    )


# DeBERTa-v2 and v3 (He et al. 2020, arXiv 2006.03654; 2021, arXiv 2111.09543). Query and key also
# project the relative positions, so their adapters act on both.

DEBERTA_V2 = EncoderFamily(
    model_type="deberta-v2",
    block_list="deberta.encoder.layer",
    roles={
        **BERT.roles,
        LayerRole.QUERY: ("attention.self.query_proj",),
        LayerRole.KEY: ("attention.self.key_proj",),
        LayerRole.VALUE: ("attention.self.value_proj",),
    },
    head=("pooler.dense", "classifier"),
    head_activation="gelu",
    dropouts=BERT.dropouts,
    head_dropouts=("pooler_dropout",),
    head_dropout_modules=("dropout",),
    saved_modules=("pooler", "classifier"),
    sizes={
        "layers": ConfigSizeField(("num_hidden_layers",), 24),
        "heads": ConfigSizeField(("num_attention_heads",), 24),
        "width": ConfigSizeField(("hidden_size",), 1536),
        "feed_forward": ConfigSizeField(("intermediate_size",), 6144),
        "vocabulary": ConfigSizeField(("vocab_size",), 128_100),
        "positions": ConfigSizeField(("max_position_embeddings",), 512),
        "segments": ConfigSizeField(("type_vocab_size",), 0, minimum=0),
    },
    required=(ConfigRequirement("pooler_hidden_act", "gelu", default="gelu"),),
)


# MPNet (Song et al. 2020, arXiv 2004.09297). Its head has no dropout of its own.

MPNET = EncoderFamily(
    model_type="mpnet",
    block_list="mpnet.encoder.layer",
    roles={
        LayerRole.QUERY: ("attention.attn.q",),
        LayerRole.KEY: ("attention.attn.k",),
        LayerRole.VALUE: ("attention.attn.v",),
        LayerRole.PROJECTION: ("attention.attn.o",),
        LayerRole.MLP: BERT.roles[LayerRole.MLP],
    },
    head=ROBERTA.head,
    head_activation="tanh",
    dropouts=BERT.dropouts,
    head_dropouts=(),
    head_dropout_modules=("classifier.dropout",),
    saved_modules=("classifier",),
    sizes={
        **_COMMON_SIZES,
        "vocabulary": ConfigSizeField(("vocab_size",), 30_527),
        "padding": ConfigSizeField(("pad_token_id",), 1, minimum=0),
    },
)


# ALBERT (Lan et al. 2019, arXiv 1909.11942): one block with weights, which runs many times.

ALBERT = EncoderFamily(
    model_type="albert",
    block_list="albert.encoder.albert_layer_groups",
    roles={
        LayerRole.QUERY: ("albert_layers.0.attention.query",),
        LayerRole.KEY: ("albert_layers.0.attention.key",),
        LayerRole.VALUE: ("albert_layers.0.attention.value",),
        LayerRole.PROJECTION: ("albert_layers.0.attention.dense",),
        LayerRole.MLP: ("albert_layers.0.ffn", "albert_layers.0.ffn_output"),
    },
    head=("albert.pooler", "classifier"),
    head_activation="tanh",
    dropouts=BERT.dropouts,
    head_dropouts=("classifier_dropout_prob",),
    saved_modules=("pooler", "classifier"),
    sizes={
        "layers": ConfigSizeField(("num_hidden_groups",), 1),
        "depth": ConfigSizeField(("num_hidden_layers",), 12),
        "heads": ConfigSizeField(("num_attention_heads",), 64),
        "width": ConfigSizeField(("hidden_size",), 4096),
        "embedding_width": ConfigSizeField(("embedding_size",), 128),
        "feed_forward": ConfigSizeField(("intermediate_size",), 16_384),
        "vocabulary": ConfigSizeField(("vocab_size",), 30_000),
        "positions": ConfigSizeField(("max_position_embeddings",), 512),
        "segments": ConfigSizeField(("type_vocab_size",), 2),
    },
    required=(ConfigRequirement("inner_group_num", 1, default=1),),
)


# Nomic BERT (Nussbaum et al. 2024, arXiv 2402.01613) and GTE (Zhang et al. 2024, arXiv 2407.19669):
# BERT with rotary positions and gated feed-forward networks.

NOMIC = EncoderFamily(
    model_type="nomic_bert",
    block_list="nomic_bert.layers",
    roles=_GATED_ROLES,
    head=("nomic_bert.pooler.dense", "classifier"),
    head_activation="tanh",
    dropouts=BERT.dropouts,
    head_dropouts=("classifier_dropout",),
    saved_modules=("pooler", "classifier"),
    learned_positions=False,
    sizes={
        **BERT.sizes,
        "vocabulary": ConfigSizeField(("vocab_size",), 30_528),
        "positions": ConfigSizeField(("max_position_embeddings",), 2048),
    },
)
GTE = replace(
    NOMIC,
    model_type="gte",
    block_list="gte.layers",
    head=("gte.pooler.dense", "classifier"),
    sizes={
        **_COMMON_SIZES,
        "vocabulary": ConfigSizeField(("vocab_size",), 250_048),
        "positions": ConfigSizeField(("max_position_embeddings",), 8192),
        "segments": ConfigSizeField(("type_vocab_size",), 1, minimum=0),
    },
)


# Jina embeddings v3 (Sturua et al. 2024, arXiv 2409.10173): XLM-RoBERTa with rotary positions.

JINA_V3 = EncoderFamily(
    model_type="jina_embeddings_v3",
    block_list="roberta.layers",
    roles={**_GATED_ROLES, LayerRole.MLP: ("mlp.fc1", "mlp.fc2")},
    head=ROBERTA.head,
    head_activation="tanh",
    dropouts=BERT.dropouts,
    head_dropouts=("classifier_dropout",),
    saved_modules=("classifier",),
    learned_positions=False,
    sizes={
        "layers": ConfigSizeField(("num_hidden_layers",), 24),
        "heads": ConfigSizeField(("num_attention_heads",), 16),
        "width": ConfigSizeField(("hidden_size",), 1024),
        "feed_forward": ConfigSizeField(("intermediate_size",), 4096),
        "vocabulary": ConfigSizeField(("vocab_size",), 250_002),
        "positions": ConfigSizeField(("max_position_embeddings",), 8194),
        "segments": ConfigSizeField(("type_vocab_size",), 1),
        "padding": ConfigSizeField(("pad_token_id",), 1, minimum=0),
    },
)


# EuroBERT (Boizard et al. 2025, arXiv 2503.05500) and Ultrabert: Llama's blocks, attending to both
# sides. Their configs name the pooling (`classifier_pooling`). EuroBERT's head has no dropout.

EUROBERT = EncoderFamily(
    model_type="eurobert",
    block_list="model.layers",
    roles=_GATED_ROLES,
    head=("dense", "classifier"),
    head_activation="gelu",
    dropouts=("attention_dropout",),
    head_dropouts=(),
    saved_modules=("dense", "classifier"),
    learned_positions=False,
    sizes={
        **_COMMON_SIZES,
        "vocabulary": ConfigSizeField(("vocab_size",), 128_256),
        "positions": ConfigSizeField(("max_position_embeddings",), 8192),
        "key_value_heads": ConfigSizeField(("num_key_value_heads",), 0, minimum=0),
        "head_width": ConfigSizeField(("head_dim",), 0, minimum=0),
    },
)
ULTRABERT = replace(
    EUROBERT,
    model_type="ultrabert",
    head=("classifier",),
    head_activation=None,
    head_dropouts=("classifier_dropout",),
    saved_modules=("classifier",),
    sizes={
        **EUROBERT.sizes,
        "layers": ConfigSizeField(("num_hidden_layers",), 32),
        "heads": ConfigSizeField(("num_attention_heads",), 32),
        "width": ConfigSizeField(("hidden_size",), 4096),
        "feed_forward": ConfigSizeField(("intermediate_size",), 11_008),
        "vocabulary": ConfigSizeField(("vocab_size",), 32_000),
        "positions": ConfigSizeField(("max_position_embeddings",), 32_768),
    },
)


# ERNIE 1 to 3 (Sun et al. 2019, arXiv 1904.09223), Megatron-BERT (Shoeybi et al. 2019, arXiv
# 1909.08053), RemBERT (Chung et al. 2020, arXiv 2010.12821) and LayoutLM (Xu et al. 2019, arXiv
# 1912.13318): BERT's head and names. LayoutLM also reads where on a page each word is; here all
# words are at the same place.

ERNIE = _as_bert("ernie", prefix="ernie", sizes=BERT.sizes)
MEGATRON_BERT = replace(
    _as_bert("megatron-bert", prefix="bert", sizes=BERT.sizes),
    head_dropouts=(),
    head_dropout_modules=("dropout",),
    sizes={
        **BERT.sizes,
        "layers": ConfigSizeField(("num_hidden_layers",), 24),
        "heads": ConfigSizeField(("num_attention_heads",), 16),
        "width": ConfigSizeField(("hidden_size",), 1024),
        "feed_forward": ConfigSizeField(("intermediate_size",), 4096),
        "vocabulary": ConfigSizeField(("vocab_size",), 29_056),
    },
)
REMBERT = replace(
    _as_bert("rembert", prefix="rembert", sizes=BERT.sizes),
    head_dropouts=("classifier_dropout_prob",),
    sizes={
        **BERT.sizes,
        "layers": ConfigSizeField(("num_hidden_layers",), 32),
        "heads": ConfigSizeField(("num_attention_heads",), 18),
        "width": ConfigSizeField(("hidden_size",), 1152),
        "embedding_width": ConfigSizeField(("input_embedding_size",), 256),
        "feed_forward": ConfigSizeField(("intermediate_size",), 4608),
        "vocabulary": ConfigSizeField(("vocab_size",), 250_300),
    },
)
LAYOUTLM = replace(
    _as_bert("layoutlm", prefix="layoutlm", sizes=BERT.sizes),
    head_dropouts=(),
    head_dropout_modules=("dropout",),
)


# LUKE (Yamada et al. 2020, arXiv 2010.01057), without entities: RoBERTa's positions, BERT's head.

LUKE = _as_bert(
    "luke",
    prefix="luke",
    sizes={**ROBERTA.sizes, "vocabulary": ConfigSizeField(("vocab_size",), 50_267)},
)


# MobileBERT (Sun et al. 2020, arXiv 2004.02984), as its authors trained it: blocks that are narrow
# inside, with four feed-forward networks, and a head that reads the first token directly.

MOBILEBERT = EncoderFamily(
    model_type="mobilebert",
    block_list="mobilebert.encoder.layer",
    roles={
        **BERT.roles,
        LayerRole.MLP: (
            *(f"ffn.{i}.{half}.dense" for i in range(3) for half in ("intermediate", "output")),
            *BERT.roles[LayerRole.MLP],
        ),
    },
    feed_forward_networks=4,
    head=("classifier",),
    head_activation=None,
    dropouts=BERT.dropouts,
    head_dropouts=("classifier_dropout",),
    saved_modules=("classifier",),
    sizes={
        **BERT.sizes,
        "layers": ConfigSizeField(("num_hidden_layers",), 24),
        "heads": ConfigSizeField(("num_attention_heads",), 4),
        "width": ConfigSizeField(("hidden_size",), 512),
        "inner_width": ConfigSizeField(("intra_bottleneck_size",), 128),
        "feed_forward": ConfigSizeField(("intermediate_size",), 512),
    },
    required=(
        ConfigRequirement("classifier_activation", False, default=True),
        ConfigRequirement("use_bottleneck", True, default=True),
        ConfigRequirement("use_bottleneck_attention", False, default=False),
        ConfigRequirement("key_query_shared_bottleneck", True, default=True),
        ConfigRequirement("num_feedforward_networks", 4, default=4),
    ),
)


# Data2Vec (Baevski et al. 2022, arXiv 2202.03555), RoBERTa with norms first (Wettig et al. 2022,
# arXiv 2202.08005), XLM-RoBERTa XL (Goyal et al. 2021, arXiv 2105.00572) and LiLT (Wang et al.
# 2022, arXiv 2202.13669): RoBERTa's head and names. LiLT reads all words at one place, like
# LayoutLM.

DATA2VEC_TEXT = _as_roberta(
    "data2vec-text",
    prefix="data2vec_text",
    sizes={**ROBERTA.sizes, "vocabulary": BERT.sizes["vocabulary"]},
)
ROBERTA_PRELAYERNORM = _as_roberta(
    "roberta-prelayernorm", prefix="roberta_prelayernorm", sizes=ROBERTA.sizes
)
XLM_ROBERTA_XL = _as_roberta(
    "xlm-roberta-xl",
    prefix="roberta",
    sizes={
        **ROBERTA.sizes,
        "layers": ConfigSizeField(("num_hidden_layers",), 36),
        "heads": ConfigSizeField(("num_attention_heads",), 32),
        "width": ConfigSizeField(("hidden_size",), 2560),
        "feed_forward": ConfigSizeField(("intermediate_size",), 10_240),
        "vocabulary": ConfigSizeField(("vocab_size",), 250_880),
        "positions": ConfigSizeField(("max_position_embeddings",), 514),
        "segments": ConfigSizeField(("type_vocab_size",), 1),
    },
)
LILT = replace(
    _as_roberta("lilt", prefix="lilt", sizes=BERT.sizes),
    passes_states_only=False,  # but also those of the places
    sizes={
        **ROBERTA.sizes,
        "vocabulary": BERT.sizes["vocabulary"],
        "padding": ConfigSizeField(("pad_token_id",), 0, minimum=0),
    },
)


# RoFormer (Su et al. 2021, arXiv 2104.09864) and BigBird (Zaheer et al. 2020, arXiv 2007.14062):
# BERT with rotary positions, and BERT for long texts. BigBird's sparse attention is that of BERT up
# to 704 tokens, where transformers leaves it for good; here it always is BERT's.

ROFORMER = replace(
    _as_roberta("roformer", prefix="roformer", sizes=BERT.sizes),
    head_activation="gelu",
    head_dropouts=(),
    head_dropout_modules=("classifier.dropout",),
    learned_positions=False,
    sizes={
        **BERT.sizes,
        "embedding_width": ConfigSizeField(("embedding_size",), 0, minimum=0),
        "vocabulary": ConfigSizeField(("vocab_size",), 50_000),
        "positions": ConfigSizeField(("max_position_embeddings",), 1536),
    },
    required=(ConfigRequirement("hidden_act", "gelu", default="gelu"),),
)
BIG_BIRD = replace(
    _as_roberta("big_bird", prefix="bert", sizes=BERT.sizes),
    head_activation="gelu_new",
    sizes={
        **BERT.sizes,
        "vocabulary": ConfigSizeField(("vocab_size",), 50_358),
        "positions": ConfigSizeField(("max_position_embeddings",), 4096),
    },
    required=(ConfigRequirement("hidden_act", "gelu_new", default="gelu_new"),),
    settings={"attention_type": "original_full"},
)


# Longformer (Beltagy et al. 2020, arXiv 2004.05150): attention in a window, which has layers of its
# own for the first token, the one that sees all others.

LONGFORMER = replace(
    _as_roberta("longformer", prefix="longformer", sizes=ROBERTA.sizes),
    roles={
        **BERT.roles,
        **{
            role: (f"attention.self.{role}", f"attention.self.{role}_global")
            for role in (LayerRole.QUERY, LayerRole.KEY, LayerRole.VALUE)
        },
    },
    head_dropouts=(),
    head_dropout_modules=("classifier.dropout",),
    sizes={**ROBERTA.sizes, "vocabulary": BERT.sizes["vocabulary"]},
)


# ESM-2 (Lin et al. 2022) and ESM C: encoders of proteins.

ESM = replace(
    _as_roberta("esm", prefix="esm", sizes=_COMMON_SIZES),
    head_dropouts=(),
    head_dropout_modules=("classifier.dropout",),
    sizes={
        **_COMMON_SIZES,
        "vocabulary": ConfigSizeField(("vocab_size",), 33),
        "positions": ConfigSizeField(("max_position_embeddings",), 1026),
        "padding": ConfigSizeField(("pad_token_id",), 1, minimum=0),
    },
)
ESMC = replace(
    JINA_V3,
    model_type="esmc",
    block_list="esmc.layers",
    roles=_GATED_ROLES,
    dropouts=("attention_dropout",),
    sizes={
        "layers": ConfigSizeField(("num_hidden_layers",), 80),
        "heads": ConfigSizeField(("num_attention_heads",), 40),
        "width": ConfigSizeField(("hidden_size",), 2560),
        "feed_forward": ConfigSizeField(("intermediate_size",), 6912),
        "vocabulary": ConfigSizeField(("vocab_size",), 64),
        "positions": ConfigSizeField(("max_position_embeddings",), 2048),
        "key_value_heads": ConfigSizeField(("num_key_value_heads",), 0, minimum=0),
        "head_width": ConfigSizeField(("head_dim",), 0, minimum=0),
    },
)


# Architectures that transformers has, or that are well known, but that cannot be trained here.

_DECODER = "it is a decoder, whose classifier reads the last token and has no bias"
_ENCODER_DECODER = "it has an encoder and a decoder, whose classifier reads the end of the text"
_PADDING = "padding changes its answers"
_NOT_TEXT = "it reads more than text: {}"
UNSUITABLE: Mapping[str, str] = {
    "neobert": "transformers has no class of its own for it",
    **dict.fromkeys(("gpt2", "gpt-sw3", "openai-gpt"), "its layers are Conv1D, not linear layers"),
    "squeezebert": "its layers are grouped convolutions, not linear layers",
    "ibert": "its layers are QuantLinear, not linear layers",
    "xlnet": "its attention has raw parameters instead of linear layers",
    **dict.fromkeys(("convbert", "fnet", "funnel", "nystromformer", "yoso"), _PADDING),
    **dict.fromkeys(
        ("flaubert", "xlm"), "the layers of a block are in several lists, not in one module"
    ),
    "mra": "its attention needs a CUDA kernel from the hub, and is zero without it",
    "reformer": "its attention is random, and texts in training must have one length",
    **dict.fromkeys(("deberta", "xmod"), "its class in transformers fails in mixed precision"),
    "canine": "it reads characters, for which there is no tokenizer.json",
    "perceiver": "it reads bytes, for which there is no tokenizer.json",
    "layoutlmv2": _NOT_TEXT.format("images of pages"),
    "layoutlmv3": _NOT_TEXT.format("images of pages"),
    "markuplm": _NOT_TEXT.format("the paths of nodes in HTML"),
    "modernvbert": _NOT_TEXT.format("images"),
    "roc_bert": _NOT_TEXT.format("shape and sound of each character"),
    "tapas": _NOT_TEXT.format("rows and columns of tables"),
    "ultravbert": _NOT_TEXT.format("images"),
    **dict.fromkeys(
        ("bart", "bigbird_pegasus", "mbart", "mt5", "mvp", "plbart", "t5", "t5gemma", "t5gemma2",
         "umt5"), _ENCODER_DECODER,
    ),
    **dict.fromkeys(
        ("arcee", "axk1", "axk2", "biogpt", "bloom", "cohere_compass_text", "ctrl", "deepseek_v2",
         "deepseek_v3", "diffllama", "doge", "exaone4", "falcon", "gemma", "gemma2", "gemma3",
         "gemma3_text", "glm", "glm4", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj",
         "helium", "hunyuan_v1_dense", "hunyuan_v1_moe", "jamba", "jetmoe", "llama", "minicpm3",
         "minimax", "ministral", "ministral3", "mistral", "mistral4", "mixtral",
         "modernbert-decoder", "mpt", "nemotron", "olmo", "olmo2", "olmo3", "opt", "persimmon",
         "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_5", "qwen3_5_text",
         "qwen3_moe", "qwen3_next", "seed_oss", "smollm3", "stablelm", "starcoder2", "zamba",
         "zamba2"), _DECODER,
    ),
}  # fmt: skip
