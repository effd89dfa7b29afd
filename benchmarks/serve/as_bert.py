"""The encoder of a DistilBERT as that of a BERT, which is the same but for names and segments."""

from pathlib import Path

_NAMES = {  # part of the name of a DistilBERT's weight → of a BERT's
    "distilbert.embeddings.": "bert.embeddings.",
    "distilbert.transformer.layer.": "bert.encoder.layer.",
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    ".sa_layer_norm": ".attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    ".output_layer_norm": ".output.LayerNorm",
    "pre_classifier": "bert.pooler.dense",
}


def save_as_bert(distilbert: Path, folder: Path) -> None:
    """Write a checkpoint of a DistilBERT as one of a BERT with the same weights."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        BertConfig,
        BertForSequenceClassification,
    )

    model = AutoModelForSequenceClassification.from_pretrained(distilbert)
    config = model.config
    bert_config = BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.dim,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        intermediate_size=config.hidden_dim,
        hidden_act=config.activation,
        max_position_embeddings=config.max_position_embeddings,
        type_vocab_size=1,
        pad_token_id=config.pad_token_id,
        id2label=config.id2label,
        label2id=config.label2id,
    )
    weights = {"bert.embeddings.token_type_embeddings.weight": torch.zeros(1, config.dim)}
    for name, weight in model.state_dict().items():
        for theirs, berts in _NAMES.items():
            name = name.replace(theirs, berts)
        weights[name] = weight
    bert = BertForSequenceClassification(bert_config)
    bert.load_state_dict(weights)
    bert.save_pretrained(folder)
    AutoTokenizer.from_pretrained(distilbert).save_pretrained(folder)
