"""The module and config names of each supported encoder architecture. Does not import torch."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from lora_core.errors.spec import LayerRolesFused
from lora_core.specs.method import LayerRole

FULL_ATTENTION = "full_attention"  # in `layer_types` of the config; other blocks have a window
MAX_SQUARE_WINDOWS = 6  # a text of more windows, each to one side, is cut into chunks


@dataclass(frozen=True)
class ConfigSizeField:
    """A size in config.json: its possible keys, and its default if it is missing."""

    names: tuple[str, ...]
    default: int
    minimum: int = 1


@dataclass(frozen=True)
class ConfigBooleanField:
    """A choice in config.json: its key, and its default if it is missing."""

    name: str
    default: bool


@dataclass(frozen=True)
class ConfigRequirement:
    """A value that config.json must have, and the one it has if the key is missing."""

    name: str
    value: object
    default: object


@dataclass(frozen=True, kw_only=True)
class EncoderFamily:
    """The names inside the sequence classifier of transformers for one architecture.

    This is what every encoder has. It is enough to train and serve it on padded batches, by the
    forward pass of transformers ("general").
    """

    model_type: str  # as in config.json
    block_list: str  # the module list of transformer blocks
    # Linear layers inside one block. Roles with the same layer are parts of its output.
    roles: Mapping[LayerRole, tuple[str, ...]]
    head: tuple[str, ...]  # linear layers after the last block, in order: one or two
    # between the two layers of the head; None: there is one layer
    head_activation: Literal["relu", "tanh", "gelu", "gelu_new"] | None
    dropouts: tuple[str, ...]  # config keys of dropout inside the encoder
    head_dropouts: tuple[str, ...]  # config keys of dropout in the head
    saved_modules: tuple[str, ...]  # the head in PEFT's `modules_to_save`
    # layers, heads, width, feed_forward, vocabulary, positions; others of `EncoderShape` where
    # they exist
    sizes: Mapping[str, ConfigSizeField]
    # attention_bias, feed_forward_bias, norm_bias, head_bias, where they can be missing
    biases: Mapping[str, ConfigBooleanField] = field(default_factory=dict)
    learned_positions: bool = True  # whether the embeddings have a vector per position
    gated: bool = False  # whether the first layer of the feed-forward network is twice as wide
    # Config key of the state that the head reads: "cls" or "mean". None: the first token, and a
    # block for the mean (`encoders/pooling.py`).
    pooling_key: str | None = None
    final_norm: str | None = None  # the norm after the last block, where norms come first in blocks
    head_norm: str | None = None  # the norm after the activation of the head
    head_dropout_modules: tuple[str, ...] = ()  # those whose rate has no config key of its own
    feed_forward_networks: int = 1  # in one block
    passes_states_only: bool = True  # whether blocks give the next one nothing but their states
    required: tuple[ConfigRequirement, ...] = ()  # what this description holds for
    settings: Mapping[str, object] = field(default_factory=dict)  # config values set on loading

    @property
    def head_module_names(self) -> tuple[str, ...]:
        """The modules of the head: its linear layers, and its norm where it has one."""
        return (
            self.head
            if self.head_norm is None
            else (*self.head[:-1], self.head_norm, self.head[-1])
        )

    def check_fused_roles(self, targets: Collection[LayerRole]) -> None:
        """Raise `LayerRolesFused` if these are some, but not all, of the roles of one layer."""
        for paths in self.roles.values():
            fused = [role for role in self.roles if self.roles[role] == paths]
            given = [role for role in fused if role in targets]
            if given and len(given) < len(fused):
                raise LayerRolesFused(
                    encoder=self.model_type,
                    module=paths[0],
                    roles=", ".join(fused),
                    given=", ".join(given),
                    missing=", ".join(role for role in fused if role not in given),
                )


@dataclass(frozen=True, kw_only=True)
class FastPathFamily(EncoderFamily):
    """An architecture whose parts this library also runs itself, block by block ("fast")."""

    embeddings: str  # the module before the first block
    activation: str  # inside a block: between the two layers of the feed-forward network
    norms: tuple[str, str]  # inside a block: after attention, and after the feed-forward network
    head_dropout_layer: str  # dropout module before the last layer of the head
    drops_head_input: bool = False  # whether the same dropout precedes the first layer of the head
    # The linear layer between embeddings and blocks, in models where their widths differ.
    embedding_projection: str | None = None


# BERT (Devlin et al. 2018, arXiv 1810.04805).

BERT = FastPathFamily(
    model_type="bert",
    embeddings="bert.embeddings",
    block_list="bert.encoder.layer",
    roles={
        LayerRole.QUERY: ("attention.self.query",),
        LayerRole.KEY: ("attention.self.key",),
        LayerRole.VALUE: ("attention.self.value",),
        LayerRole.PROJECTION: ("attention.output.dense",),
        LayerRole.MLP: ("intermediate.dense", "output.dense"),
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
        "layers": ConfigSizeField(("num_hidden_layers",), 12),
        "heads": ConfigSizeField(("num_attention_heads",), 12),
        "width": ConfigSizeField(("hidden_size",), 768),
        "feed_forward": ConfigSizeField(("intermediate_size",), 3072),
        "vocabulary": ConfigSizeField(("vocab_size",), 30_522),
        "positions": ConfigSizeField(("max_position_embeddings",), 512),
        "segments": ConfigSizeField(("type_vocab_size",), 2),
    },
)


# DistilBERT (Sanh et al. 2019, arXiv 1910.01108).

DISTILBERT = FastPathFamily(
    model_type="distilbert",
    embeddings="distilbert.embeddings",
    block_list="distilbert.transformer.layer",
    roles={
        LayerRole.QUERY: ("attention.q_lin",),
        LayerRole.KEY: ("attention.k_lin",),
        LayerRole.VALUE: ("attention.v_lin",),
        LayerRole.PROJECTION: ("attention.out_lin",),
        LayerRole.MLP: ("ffn.lin1", "ffn.lin2"),
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
        "layers": ConfigSizeField(("n_layers", "num_hidden_layers"), 6),
        "heads": ConfigSizeField(("n_heads", "num_attention_heads"), 12),
        "width": ConfigSizeField(("dim", "hidden_size"), 768),
        "feed_forward": ConfigSizeField(("hidden_dim",), 3072),
        "vocabulary": ConfigSizeField(("vocab_size",), 30_522),
        "positions": ConfigSizeField(("max_position_embeddings",), 512),
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
        "vocabulary": ConfigSizeField(("vocab_size",), 50_265),
        "padding": ConfigSizeField(("pad_token_id",), 1, minimum=0),
    },
)


# XLM-RoBERTa (Conneau et al. 2019, arXiv 1911.02116) and CamemBERT (Martin et al. 2019, arXiv
# 1911.03894) are RoBERTa on other texts, down to the names of the modules.

XLM_ROBERTA = replace(
    ROBERTA,
    model_type="xlm-roberta",
    sizes={**ROBERTA.sizes, "vocabulary": ConfigSizeField(("vocab_size",), 30_522)},
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
        "heads": ConfigSizeField(("num_attention_heads",), 4),
        "width": ConfigSizeField(("hidden_size",), 256),
        "feed_forward": ConfigSizeField(("intermediate_size",), 1024),
        "embedding_width": ConfigSizeField(("embedding_size",), 128),
    },
)


# ModernBERT (Warner et al. 2024, arXiv 2412.13663), also Ettin and mmBERT: rotary positions, norms
# before each half of a block, attention within a window in most blocks, gated feed-forward network.

MODERNBERT = FastPathFamily(
    model_type="modernbert",
    embeddings="model.embeddings",
    block_list="model.layers",
    roles={
        **dict.fromkeys((LayerRole.QUERY, LayerRole.KEY, LayerRole.VALUE), ("attn.Wqkv",)),
        LayerRole.PROJECTION: ("attn.Wo",),
        LayerRole.MLP: ("mlp.Wi", "mlp.Wo"),
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
        "layers": ConfigSizeField(("num_hidden_layers",), 22),
        "heads": ConfigSizeField(("num_attention_heads",), 12),
        "width": ConfigSizeField(("hidden_size",), 768),
        "feed_forward": ConfigSizeField(("intermediate_size",), 1152),
        "vocabulary": ConfigSizeField(("vocab_size",), 50_368),
        "positions": ConfigSizeField(("max_position_embeddings",), 8192),
        "window": ConfigSizeField(("local_attention",), 128),
    },
    biases={
        "attention_bias": ConfigBooleanField("attention_bias", default=False),
        "feed_forward_bias": ConfigBooleanField("mlp_bias", default=False),
        "norm_bias": ConfigBooleanField("norm_bias", default=False),
        "head_bias": ConfigBooleanField("classifier_bias", default=False),
    },
)
