"""BERT (Devlin et al. 2018, arXiv 1810.04805)."""

from lora_core.encoders.base import EncoderFamily, Size
from lora_core.specs.method import Role

BERT = EncoderFamily(
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
    head_dropout="classifier_dropout",
    head_dropout_layer="dropout",
    saved_modules=("pooler", "classifier"),
    sizes={
        "layers": Size(("num_hidden_layers",), 12),
        "heads": Size(("num_attention_heads",), 12),
        "width": Size(("hidden_size",), 768),
        "feed_forward": Size(("intermediate_size",), 3072),
        "vocabulary": Size(("vocab_size",), 30_522),
        "positions": Size(("max_position_embeddings",), 512),
        "segments": Size(("type_vocab_size",), 2),
    },
)
