"""RoBERTa (Liu et al. 2019, arXiv 1907.11692): BERT's blocks, positions after that of padding."""

from dataclasses import replace

from lora_core.encoders.base import Size
from lora_core.encoders.bert import BERT

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
        "vocabulary": Size(("vocab_size",), 50_265),
        "padding": Size(("pad_token_id",), 1, least=0),
    },
)
