"""From the name of a base to a model with a classification head, safely and strictly."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from httpx2 import HTTPError
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import logging as transformers_logging

from lora_core.encoders import FAMILIES
from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.safety import check_code, check_weights, read_config
from lora_core.errors.base import BaseNotFound, BrokenBase, UnsupportedEncoder
from lora_core.errors.training import HubUnavailable
from lora_core.hub import trouble
from lora_core.process import is_no_memory
from lora_core.samples import minilm
from lora_core.specs.base import is_directory
from lora_core.specs.pooling import FILE as POOLING_FILE

WANTED = ("config.json", POOLING_FILE, "*.safetensors", "model.safetensors.index.json",
          "tokenizer*", "vocab.txt", "special_tokens_map.json")  # fmt: skip


@dataclass(frozen=True)
class Base:
    """A base model that is safe to load."""

    name: str  # as the user calls it
    directory: Path
    config: dict[str, Any]

    @property
    def family(self) -> EncoderFamily:
        return FAMILIES[self.config["model_type"]]

    @property
    def commit(self) -> str | None:
        """Of a hub model, whose folder in the cache is called by it; None for all others."""
        here = self.name == minilm.NAME or is_directory(self.name)
        return None if here else self.directory.name


def locate(base: str, revision: str | None = None) -> Base:
    """A base on this machine: packaged sample, directory, or hub name.

    Raises `BaseNotFound`, `HubUnavailable`, `UnsafeWeights`, `UntrustedCode`, `SampleMissing`,
    `SampleChanged`.
    """
    if base == minilm.NAME:
        directory = minilm.directory()
    elif is_directory(base):
        directory = Path(base)
        if not directory.is_dir():
            raise BaseNotFound(base=base, reason="there is no such directory")
    else:
        directory = _download(base, revision)
    return Base(base, directory, check(directory, base))


def _download(base: str, revision: str | None) -> Path:
    try:
        return Path(snapshot_download(base, revision=revision, allow_patterns=list(WANTED)))
    except HFValidationError as error:
        raise BaseNotFound(base=base, reason="not a sample, directory or hub name") from error
    except (HTTPError, LocalEntryNotFoundError) as error:
        if (wrong := trouble(error)) is not None:
            raise HubUnavailable(what=f"The base {base!r}", trouble=wrong) from error
        reason = f"neither the local cache nor the hub has it for us ({type(error).__name__})"
        raise BaseNotFound(base=base, reason=reason) from error


def check(directory: Path, base: str) -> dict[str, Any]:
    """The config of a base that is safe to load, without loading it."""
    config = read_config(directory, base)
    check_code(base, config)
    if (model_type := config.get("model_type")) not in FAMILIES:
        raise UnsupportedEncoder(base=base, model_type=model_type, supported=", ".join(FAMILIES))
    check_weights(base, (path.name for path in directory.iterdir()))
    return config


def silence_transformers() -> None:
    """No progress bars and no advice on standard error: what matters is an error or an event."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def load_classifier(
    base: Base,
    labels: Sequence[str],
    *,
    encoder_dropout: float = 0.0,
    head_dropout: float = 0.0,
) -> tuple[PreTrainedModel, bool]:
    """The model in float32, and whether its head came with the base.

    The head of a base is kept when it answers the same labels in the same order, else drawn anew
    from torch's generator. Everything else must be in the file: raises `BrokenBase`.
    """
    kept = [base.config.get("id2label", {}).get(str(i)) for i in range(len(labels))] == list(labels)
    model, missing = load_with_head(
        base, labels, encoder_dropout=encoder_dropout, head_dropout=head_dropout
    )
    kept = kept and not missing
    if not kept:
        _draw_head(model, base.family, missing)
    return model, kept


def load_with_head(
    base: Base,
    labels: Sequence[str],
    *,
    encoder_dropout: float = 0.0,
    head_dropout: float = 0.0,
) -> tuple[PreTrainedModel, set[str]]:
    """The model in float32 with the head of the file, and the layers of it that are not there.

    Raises `BrokenBase` if anything else is missing.
    """
    family = base.family
    id2label = dict(enumerate(labels))
    dropouts = {
        **dict.fromkeys(family.dropouts, encoder_dropout),
        family.head_dropout: head_dropout,
    }
    silence_transformers()
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            base.directory,
            num_labels=len(labels),
            id2label=id2label,
            label2id={label: i for i, label in id2label.items()},
            problem_type="single_label_classification",
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # a head for another number of labels; checked below
            output_loading_info=True,
            **dropouts,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if is_no_memory(error):
            raise
        reason = str(error).splitlines()[0].replace(str(base.directory), base.name)[:200]
        raise BrokenBase(base=base.name, reason=reason) from error
    odd = {
        key if isinstance(key, str) else key[0]
        for key in [*info["missing_keys"], *info["mismatched_keys"]]
    }
    _check_loaded(odd, family, base.name)
    return model, {key.rsplit(".", 1)[0] for key in odd}


def fingerprint(model: nn.Module, family: EncoderFamily) -> str:
    """sha256 of the weights of an encoder: models that share it can share it in memory."""
    head = tuple(f"{name}." for name in family.head)
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        if not name.startswith(head):
            digest.update(f"{name}\0{tuple(weight.shape)}\0".encode())
            digest.update(weight.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()


def _check_loaded(odd: set[str], family: EncoderFamily, base: str) -> None:
    """Only the head may be missing or of another size."""
    head = tuple(f"{name}." for name in family.head)
    if wrong := sorted(key for key in odd if not key.startswith(head)):
        raise BrokenBase(base=base, reason=f"{len(wrong)} tensors are missing, first {wrong[0]}")


def _draw_head(model: PreTrainedModel, family: EncoderFamily, missing: set[str]) -> None:
    """Draw the classifier, and those layers before it that the file lacks."""
    for name in family.head:
        if name in missing or name == family.head[-1]:
            layer = model.get_submodule(name)
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=model.config.initializer_range)
                nn.init.zeros_(layer.bias)
