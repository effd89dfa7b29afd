"""The module and config names of each supported encoder architecture. Does not import torch."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from lora_core.errors.spec import RolesFused
from lora_core.specs.method import Role


@dataclass(frozen=True)
class ConfigField:
    """A size in config.json: its possible keys, and its default if it is missing."""

    names: tuple[str, ...]
    default: int
    minimum: int = 1


@dataclass(frozen=True)
class ConfigFlag:
    """A choice in config.json: its key, and its default if it is missing."""

    name: str
    default: bool


@dataclass(frozen=True, kw_only=True)
class EncoderFamily:
    """The names inside the sequence classifier of transformers for one architecture.

    This is what every encoder has. It is enough to train and serve it on padded batches, by the
    forward pass of transformers ("general").
    """

    model_type: str  # as in config.json
    block_list: str  # the module list of transformer blocks
    # Linear layers inside one block. Roles with the same layer are parts of its output.
    roles: Mapping[Role, tuple[str, ...]]
    head: tuple[str, ...]  # linear layers after the last block, in order: one or two
    # between the two layers of the head; None: there is one layer
    head_activation: Literal["relu", "tanh", "gelu"] | None
    dropouts: tuple[str, ...]  # config keys of dropout inside the encoder
    head_dropouts: tuple[str, ...]  # config keys of dropout in the head
    saved_modules: tuple[str, ...]  # the head in PEFT's `modules_to_save`
    # layers, heads, width, feed_forward, vocabulary, positions; others of `EncoderShape` where
    # they exist
    sizes: Mapping[str, ConfigField]
    # attention_bias, feed_forward_bias, norm_bias, head_bias, where they can be missing
    biases: Mapping[str, ConfigFlag] = field(default_factory=dict)
    learned_positions: bool = True  # whether the embeddings have a vector per position
    gated: bool = False  # whether the first layer of the feed-forward network is twice as wide
    # Config key of the state that the head reads: "cls" or "mean". None: the first token, and a
    # block for the mean (`encoders/pooling.py`).
    pooling_key: str | None = None
    final_norm: str | None = None  # the norm after the last block, where norms come first in blocks
    head_norm: str | None = None  # the norm after the activation of the head
    head_dropout_modules: tuple[str, ...] = ()  # those whose rate has no config key of its own
    # config values that this description holds for, where the config has the key
    required: Mapping[str, object] = field(default_factory=dict)

    @property
    def head_modules(self) -> tuple[str, ...]:
        """The modules of the head: its linear layers, and its norm where it has one."""
        return (
            self.head
            if self.head_norm is None
            else (*self.head[:-1], self.head_norm, self.head[-1])
        )

    def check_targets(self, targets: Collection[Role]) -> None:
        """Raise `RolesFused` if these are some, but not all, of the roles of one layer."""
        for paths in self.roles.values():
            fused = [role for role in self.roles if self.roles[role] == paths]
            given = [role for role in fused if role in targets]
            if given and len(given) < len(fused):
                raise RolesFused(
                    encoder=self.model_type,
                    module=paths[0],
                    roles=", ".join(fused),
                    given=", ".join(given),
                    missing=", ".join(role for role in fused if role not in given),
                )


@dataclass(frozen=True, kw_only=True)
class FastFamily(EncoderFamily):
    """An architecture whose parts this library also runs itself, block by block ("fast")."""

    embeddings: str  # the module before the first block
    activation: str  # inside a block: between the two layers of the feed-forward network
    norms: tuple[str, str]  # inside a block: after attention, and after the feed-forward network
    head_dropout_layer: str  # dropout module before the last layer of the head
    drops_head_input: bool = False  # whether the same dropout precedes the first layer of the head
    # The linear layer between embeddings and blocks, in models where their widths differ.
    embedding_projection: str | None = None


# BERT (Devlin et al. 2018, arXiv 1810.04805).

BERT = FastFamily(
    model_type="bert",
    embeddings="bert.embeddings",
    block_list="bert.encoder.layer",
    roles={
        Role.QUERY: ("attention.self.query",),
        Role.KEY: ("attention.self.key",),
        Role.VALUE: ("attention.self.value",),
        Role.PROJECTION: ("attention.output.dense",),
        Role.MLP: ("intermediate.dense", "output.dense"),
    },
    activation="intermediate.intermediate_act_fn",
    norms=("attention.output.LayerNorm", "output.LayerNorm"),
    head=("bert.pooler.dense", "classifier"),
    head_activation="tanh",
    dropouts=("hidden_dropout_prob", "attention_probs_dropout_prob"),
    head_dropouts=("classifier_dropout",),
    head_dropout_layer="dropout",
    saved_modules=("pooler", "classifier"),
    sizes={
        "layers": ConfigField(("num_hidden_layers",), 12),
        "heads": ConfigField(("num_attention_heads",), 12),
        "width": ConfigField(("hidden_size",), 768),
        "feed_forward": ConfigField(("intermediate_size",), 3072),
        "vocabulary": ConfigField(("vocab_size",), 30_522),
        "positions": ConfigField(("max_position_embeddings",), 512),
        "segments": ConfigField(("type_vocab_size",), 2),
    },
)


# DistilBERT (Sanh et al. 2019, arXiv 1910.01108).

DISTILBERT = FastFamily(
    model_type="distilbert",
    embeddings="distilbert.embeddings",
    block_list="distilbert.transformer.layer",
    roles={
        Role.QUERY: ("attention.q_lin",),
        Role.KEY: ("attention.k_lin",),
        Role.VALUE: ("attention.v_lin",),
        Role.PROJECTION: ("attention.out_lin",),
        Role.MLP: ("ffn.lin1", "ffn.lin2"),
    },
    activation="ffn.activation",
    norms=("sa_layer_norm", "output_layer_norm"),
    head=("pre_classifier", "classifier"),
    head_activation="relu",
    dropouts=("dropout", "attention_dropout"),
    head_dropouts=("seq_classif_dropout",),
    head_dropout_layer="dropout",
    saved_modules=("pre_classifier", "classifier"),
    sizes={  # DistilBertConfig also accepts the common names
        "layers": ConfigField(("n_layers", "num_hidden_layers"), 6),
        "heads": ConfigField(("n_heads", "num_attention_heads"), 12),
        "width": ConfigField(("dim", "hidden_size"), 768),
        "feed_forward": ConfigField(("hidden_dim",), 3072),
        "vocabulary": ConfigField(("vocab_size",), 30_522),
        "positions": ConfigField(("max_position_embeddings",), 512),
    },
)


# RoBERTa (Liu et al. 2019, arXiv 1907.11692): BERT's blocks; positions start after padding.

ROBERTA = replace(
    BERT,
    model_type="roberta",
    embeddings="roberta.embeddings",
    block_list="roberta.encoder.layer",
    head=("classifier.dense", "classifier.out_proj"),
    head_dropout_layer="classifier.dropout",
    drops_head_input=True,
    saved_modules=("classifier",),
    sizes={
        **BERT.sizes,
        "vocabulary": ConfigField(("vocab_size",), 50_265),
        "padding": ConfigField(("pad_token_id",), 1, minimum=0),
    },
)


# XLM-RoBERTa (Conneau et al. 2019, arXiv 1911.02116) and CamemBERT (Martin et al. 2019, arXiv
# 1911.03894) are RoBERTa on other texts, down to the names of the modules.

XLM_ROBERTA = replace(
    ROBERTA,
    model_type="xlm-roberta",
    sizes={**ROBERTA.sizes, "vocabulary": ConfigField(("vocab_size",), 30_522)},
)
CAMEMBERT = replace(XLM_ROBERTA, model_type="camembert")


# ELECTRA (Clark et al. 2020, arXiv 2003.10555): BERT's blocks, in small models on narrower
# embeddings.

ELECTRA = replace(
    BERT,
    model_type="electra",
    embeddings="electra.embeddings",
    embedding_projection="electra.embeddings_project",
    block_list="electra.encoder.layer",
    head=("classifier.dense", "classifier.out_proj"),
    head_activation="gelu",
    head_dropout_layer="classifier.dropout",
    drops_head_input=True,
    saved_modules=("classifier",),
    sizes={
        **BERT.sizes,
        "heads": ConfigField(("num_attention_heads",), 4),
        "width": ConfigField(("hidden_size",), 256),
        "feed_forward": ConfigField(("intermediate_size",), 1024),
        "embedding_width": ConfigField(("embedding_size",), 128),
    },
)


# ModernBERT (Warner et al. 2024, arXiv 2412.13663), also Ettin and mmBERT: rotary positions, norms
# before each half of a block, attention within a window in most blocks, gated feed-forward network.

MODERNBERT = FastFamily(
    model_type="modernbert",
    embeddings="model.embeddings",
    block_list="model.layers",
    roles={
        **dict.fromkeys((Role.QUERY, Role.KEY, Role.VALUE), ("attn.Wqkv",)),
        Role.PROJECTION: ("attn.Wo",),
        Role.MLP: ("mlp.Wi", "mlp.Wo"),
    },
    activation="mlp.act",
    norms=("attn_norm", "mlp_norm"),
    final_norm="model.final_norm",
    head=("head.dense", "classifier"),
    head_norm="head.norm",
    head_activation="gelu",
    dropouts=("embedding_dropout", "attention_dropout", "mlp_dropout"),
    head_dropouts=("classifier_dropout",),
    head_dropout_layer="drop",
    saved_modules=("head", "classifier"),
    pooling_key="classifier_pooling",
    learned_positions=False,
    gated=True,
    sizes={
        "layers": ConfigField(("num_hidden_layers",), 22),
        "heads": ConfigField(("num_attention_heads",), 12),
        "width": ConfigField(("hidden_size",), 768),
        "feed_forward": ConfigField(("intermediate_size",), 1152),
        "vocabulary": ConfigField(("vocab_size",), 50_368),
        "positions": ConfigField(("max_position_embeddings",), 8192),
    },
    biases={
        "attention_bias": ConfigFlag("attention_bias", default=False),
        "feed_forward_bias": ConfigFlag("mlp_bias", default=False),
        "norm_bias": ConfigFlag("norm_bias", default=False),
        "head_bias": ConfigFlag("classifier_bias", default=False),
    },
)


# General families: transformers runs them. In what follows, "as BERT" is about names alone.

_COMMON_SIZES = {name: BERT.sizes[name] for name in BERT.sizes if name != "segments"}
_GATED_ROLES: Mapping[Role, tuple[str, ...]] = {  # of the blocks that follow Llama's names
    Role.QUERY: ("self_attn.q_proj",),
    Role.KEY: ("self_attn.k_proj",),
    Role.VALUE: ("self_attn.v_proj",),
    Role.PROJECTION: ("self_attn.o_proj",),
    Role.MLP: ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
}


# DeBERTa-v2 and v3 (He et al. 2020, arXiv 2006.03654; 2021, arXiv 2111.09543). Query and key also
# project the relative positions, so their adapters act on both.

DEBERTA_V2 = EncoderFamily(
    model_type="deberta-v2",
    block_list="deberta.encoder.layer",
    roles={
        **BERT.roles,
        Role.QUERY: ("attention.self.query_proj",),
        Role.KEY: ("attention.self.key_proj",),
        Role.VALUE: ("attention.self.value_proj",),
    },
    head=("pooler.dense", "classifier"),
    head_activation="gelu",
    dropouts=BERT.dropouts,
    head_dropouts=("pooler_dropout",),
    head_dropout_modules=("dropout",),
    saved_modules=("pooler", "classifier"),
    sizes={
        "layers": ConfigField(("num_hidden_layers",), 24),
        "heads": ConfigField(("num_attention_heads",), 24),
        "width": ConfigField(("hidden_size",), 1536),
        "feed_forward": ConfigField(("intermediate_size",), 6144),
        "vocabulary": ConfigField(("vocab_size",), 128_100),
        "positions": ConfigField(("max_position_embeddings",), 512),
        "segments": ConfigField(("type_vocab_size",), 0, minimum=0),
    },
    required={"pooler_hidden_act": "gelu"},
)


# MPNet (Song et al. 2020, arXiv 2004.09297). Its head has no dropout of its own.

MPNET = EncoderFamily(
    model_type="mpnet",
    block_list="mpnet.encoder.layer",
    roles={
        Role.QUERY: ("attention.attn.q",),
        Role.KEY: ("attention.attn.k",),
        Role.VALUE: ("attention.attn.v",),
        Role.PROJECTION: ("attention.attn.o",),
        Role.MLP: BERT.roles[Role.MLP],
    },
    head=ROBERTA.head,
    head_activation="tanh",
    dropouts=BERT.dropouts,
    head_dropouts=(),
    head_dropout_modules=("classifier.dropout",),
    saved_modules=("classifier",),
    sizes={
        **_COMMON_SIZES,
        "vocabulary": ConfigField(("vocab_size",), 30_527),
        "padding": ConfigField(("pad_token_id",), 1, minimum=0),
    },
)


# ALBERT (Lan et al. 2019, arXiv 1909.11942): one block with weights, which runs many times.

ALBERT = EncoderFamily(
    model_type="albert",
    block_list="albert.encoder.albert_layer_groups",
    roles={
        Role.QUERY: ("albert_layers.0.attention.query",),
        Role.KEY: ("albert_layers.0.attention.key",),
        Role.VALUE: ("albert_layers.0.attention.value",),
        Role.PROJECTION: ("albert_layers.0.attention.dense",),
        Role.MLP: ("albert_layers.0.ffn", "albert_layers.0.ffn_output"),
    },
    head=("albert.pooler", "classifier"),
    head_activation="tanh",
    dropouts=BERT.dropouts,
    head_dropouts=("classifier_dropout_prob",),
    saved_modules=("pooler", "classifier"),
    sizes={
        "layers": ConfigField(("num_hidden_groups",), 1),
        "depth": ConfigField(("num_hidden_layers",), 12),
        "heads": ConfigField(("num_attention_heads",), 64),
        "width": ConfigField(("hidden_size",), 4096),
        "embedding_width": ConfigField(("embedding_size",), 128),
        "feed_forward": ConfigField(("intermediate_size",), 16_384),
        "vocabulary": ConfigField(("vocab_size",), 30_000),
        "positions": ConfigField(("max_position_embeddings",), 512),
        "segments": ConfigField(("type_vocab_size",), 2),
    },
    required={"inner_group_num": 1},
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
        "vocabulary": ConfigField(("vocab_size",), 30_528),
        "positions": ConfigField(("max_position_embeddings",), 2048),
    },
)
GTE = replace(
    NOMIC,
    model_type="gte",
    block_list="gte.layers",
    head=("gte.pooler.dense", "classifier"),
    sizes={
        **_COMMON_SIZES,
        "vocabulary": ConfigField(("vocab_size",), 250_048),
        "positions": ConfigField(("max_position_embeddings",), 8192),
        "segments": ConfigField(("type_vocab_size",), 1, minimum=0),
    },
)


# Jina embeddings v3 (Sturua et al. 2024, arXiv 2409.10173): XLM-RoBERTa with rotary positions.

JINA_V3 = EncoderFamily(
    model_type="jina_embeddings_v3",
    block_list="roberta.layers",
    roles={**_GATED_ROLES, Role.MLP: ("mlp.fc1", "mlp.fc2")},
    head=ROBERTA.head,
    head_activation="tanh",
    dropouts=BERT.dropouts,
    head_dropouts=("classifier_dropout",),
    saved_modules=("classifier",),
    learned_positions=False,
    sizes={
        "layers": ConfigField(("num_hidden_layers",), 24),
        "heads": ConfigField(("num_attention_heads",), 16),
        "width": ConfigField(("hidden_size",), 1024),
        "feed_forward": ConfigField(("intermediate_size",), 4096),
        "vocabulary": ConfigField(("vocab_size",), 250_002),
        "positions": ConfigField(("max_position_embeddings",), 8194),
        "segments": ConfigField(("type_vocab_size",), 1),
        "padding": ConfigField(("pad_token_id",), 1, minimum=0),
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
        "vocabulary": ConfigField(("vocab_size",), 128_256),
        "positions": ConfigField(("max_position_embeddings",), 8192),
        "key_value_heads": ConfigField(("num_key_value_heads",), 0, minimum=0),
        "head_width": ConfigField(("head_dim",), 0, minimum=0),
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
        "layers": ConfigField(("num_hidden_layers",), 32),
        "heads": ConfigField(("num_attention_heads",), 32),
        "width": ConfigField(("hidden_size",), 4096),
        "feed_forward": ConfigField(("intermediate_size",), 11_008),
        "vocabulary": ConfigField(("vocab_size",), 32_000),
        "positions": ConfigField(("max_position_embeddings",), 32_768),
    },
)


# Architectures that transformers has, or that are well known, but that cannot be trained here.

_DECODER = "it is a decoder, whose classifier reads the last token and has no bias"
UNSUITABLE: Mapping[str, str] = {
    "neobert": "transformers has no class of its own for it",
    "gpt2": "its layers are Conv1D, not linear layers",
    "squeezebert": "its layers are grouped convolutions, not linear layers",
    "xlnet": "its attention has raw parameters instead of linear layers",
    "fnet": "padding changes its answers",
    **dict.fromkeys(
        ("gemma", "gemma2", "gemma3", "gemma3_text", "gpt_neox", "llama", "mistral", "opt", "phi3",
         "qwen2", "qwen3"), _DECODER,
    ),
}  # fmt: skip
