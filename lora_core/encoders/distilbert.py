"""DistilBERT (Sanh et al. 2019, arXiv 1910.01108)."""

from lora_core.encoders.base import EncoderFamily, Size
from lora_core.specs.method import Role

DISTILBERT = EncoderFamily(
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
    head_dropout="seq_classif_dropout",
    head_dropout_layer="dropout",
    saved_modules=("pre_classifier", "classifier"),
    sizes={  # it also answers to the common names
        "layers": Size(("n_layers", "num_hidden_layers"), 6),
        "heads": Size(("n_heads", "num_attention_heads"), 12),
        "width": Size(("dim", "hidden_size"), 768),
        "feed_forward": Size(("hidden_dim",), 3072),
        "vocabulary": Size(("vocab_size",), 30_522),
        "positions": Size(("max_position_embeddings",), 512),
    },
)
