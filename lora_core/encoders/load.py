"""Find a base model by name and load it with a classification head, safely and strictly."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from httpx2 import HTTPError
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from lora_core.encoders import get_family
from lora_core.encoders.families import EncoderFamily
from lora_core.encoders.safety import (
    ALLOWED_FILES,
    IGNORED_FILES,
    check_has_safetensors,
    read_config,
)
from lora_core.errors import LoraCoreError
from lora_core.errors.base_model import BaseNotFound, GatedBase, UnreadableBase
from lora_core.errors.training import HubUnavailable
from lora_core.hf_hub import (
    build_gated_error_detail,
    describe_transient_failure,
    find_hub_token,
    is_gated_error,
)
from lora_core.process_settings import is_oom_error
from lora_core.samples import minilm
from lora_core.specs.fields import looks_like_path


@dataclass(frozen=True)
class BaseCheckpoint:
    """A base model that is safe to load."""

    name: str  # as given by the user
    directory: Path
    config: dict[str, Any]
    load_weights: Callable[[], Mapping[str, Tensor]] | None = None  # None: from the directory

    @property
    def family(self) -> EncoderFamily:
        return get_family(self.config, base=self.name)

    @property
    def commit(self) -> str | None:
        """The commit of a hub model, which names its folder in the cache; None for other models."""
        is_local = self.name == minilm.NAME or looks_like_path(self.name)
        return None if is_local else self.directory.name


def resolve_base(base: str, revision: str | None = None) -> BaseCheckpoint:
    """Return a base model on this host: a packaged sample, a directory, or a hub model.

    Raises `BaseNotFound`, `GatedBase`, `HubUnavailable`, `SamplePackageMissing`,
    `SampleFileChecksumMismatch`, and as `read_checked_base_config`.
    """
    if base == minilm.NAME:
        directory = minilm.build_cached_checkpoint()
    elif looks_like_path(base):
        directory = Path(base)
        if not directory.is_dir():
            raise BaseNotFound(base=base, reason="the directory does not exist")
    else:
        directory = _download(base, revision)
    return BaseCheckpoint(base, directory, read_checked_base_config(directory, base))


def _download(base: str, revision: str | None) -> Path:
    try:
        return Path(
            snapshot_download(
                base,
                revision=revision,
                allow_patterns=list(ALLOWED_FILES),
                ignore_patterns=list(IGNORED_FILES),
                token=find_hub_token(),
            )
        )
    except HFValidationError as error:
        raise BaseNotFound(base=base, reason="not a sample, directory or hub name") from error
    except (HTTPError, LocalEntryNotFoundError) as error:
        if is_gated_error(error):
            raise GatedBase(base=base, **build_gated_error_detail(base)) from error
        if (problem := describe_transient_failure(error)) is not None:
            raise HubUnavailable(what=f"The base {base!r}", trouble=problem) from error
        kind = type(error).__name__
        reason = f"it is in neither the local cache nor the hub, or access is denied ({kind})"
        raise BaseNotFound(base=base, reason=reason) from error


def read_checked_base_config(directory: Path, base: str) -> dict[str, Any]:
    """Return the config of a base model that is safe to load. Nothing is loaded.

    Raises `BaseNotFound`, `UnreadableBase`, `UnsafeWeights`, and as `get_family`.
    """
    config = read_config(directory, base)
    get_family(config, base=base)
    check_has_safetensors(base, (path.name for path in directory.iterdir()))
    return config


def disable_transformers_logging() -> None:
    """Turn off progress bars and warnings of transformers on standard error."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def load_classifier(
    base: BaseCheckpoint,
    labels: Sequence[str],
    problem_type: str | None = "single_label_classification",
    *,
    encoder_dropout: float = 0.0,
    head_dropout: float = 0.0,
) -> tuple[PreTrainedModel, bool]:
    """Return the model in float32, and whether its head came with the base model.

    The head of a base model is kept if it is a classifier of the same kind with the same labels in
    the same order; otherwise it is initialized from torch's generator. All other weights must be in
    the file: raises `UnreadableBase`.
    """
    model, missing = load_with_saved_head(
        base, labels, problem_type, encoder_dropout=encoder_dropout, head_dropout=head_dropout
    )
    id2label = base.config.get("id2label", {})
    same_labels = [id2label.get(str(i)) for i in range(len(labels))] == list(labels)
    same_labels &= problem_type == base.config.get("problem_type", problem_type)
    same_labels &= problem_type not in ("regression", None)  # their outputs depend on the data
    head_kept = same_labels and not missing
    if not head_kept:
        _init_head(model, base.family, missing)
    return model, head_kept


def load_with_saved_head(
    base: BaseCheckpoint,
    labels: Sequence[str],
    problem_type: str | None = "single_label_classification",
    *,
    encoder_dropout: float = 0.0,
    head_dropout: float = 0.0,
) -> tuple[PreTrainedModel, set[str]]:
    """Return the model in float32 with the head in the file, and the head layers that are missing.

    Raises `UnreadableBase` if anything else is missing, or transformers cannot build the model.
    """
    family = base.family
    settings = {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
        "problem_type": problem_type,
        "return_dict": True,
        **dict.fromkeys(family.dropouts, encoder_dropout),
        **dict.fromkeys(family.head_dropouts, head_dropout),
        **family.settings,
    }
    disable_transformers_logging()
    try:
        if base.load_weights is not None:
            model, info = classifier_from_weights({**base.config, **settings}, base.load_weights())
        else:
            model, info = AutoModelForSequenceClassification.from_pretrained(
                base.directory,
                num_labels=len(labels),
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # a head with other labels; checked below
                output_loading_info=True,
                **settings,
            )
    except LoraCoreError:
        raise
    except Exception as error:  # transformers raises almost anything on a config it cannot use
        if is_oom_error(error):
            raise
        message = " ".join(f"{type(error).__name__}: {error}".split())
        reason = message.replace(str(base.directory), ".")[:200].rstrip(" .")
        raise UnreadableBase(base=base.name, reason=reason) from error
    not_loaded = {
        key if isinstance(key, str) else key[0]
        for key in [*info["missing_keys"], *info["mismatched_keys"]]
    }
    _check_loaded(not_loaded, family, base.name)
    if hasattr(model.config, "auto_map"):  # the class that was loaded is that of transformers
        _check_own_class(info["unexpected_keys"], base.name)
        del model.config.auto_map
    for name in family.head_dropout_modules:
        model.get_submodule(name).p = head_dropout
    return model, {key.rsplit(".", 1)[0] for key in not_loaded}


def classifier_from_weights(
    config: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return the classifier with these weights in float32, and which tensors did not match."""
    disable_transformers_logging()
    settings = CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    model, info = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(settings)].from_pretrained(
        None,
        config=settings,
        state_dict=dict(weights),
        dtype=torch.float32,
        ignore_mismatched_sizes=True,  # reported in `info`
        output_loading_info=True,
    )
    return model, info


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """Return the sha256 of names, shapes and values in float32."""
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        digest.update(f"{name}\0{tuple(weight.shape)}\0".encode())
        digest.update(weight.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()


def encoder_weights_sha256(model: nn.Module, family: EncoderFamily) -> str:
    """Return the sha256 of the encoder weights. Models with the same one can share memory."""
    head = tuple(f"{name}." for name in family.head_module_names)
    return weights_sha256({n: w for n, w in model.state_dict().items() if not n.startswith(head)})


def _check_loaded(not_loaded: set[str], family: EncoderFamily, base: str) -> None:
    """Check that only weights of the head are missing or have a different shape."""
    head = tuple(f"{name}." for name in family.head_module_names)
    if problem := sorted(key for key in not_loaded if not key.startswith(head)):
        raise UnreadableBase(
            base=base, reason=f"{len(problem)} tensors are missing, first {problem[0]}"
        )


def _check_own_class(unexpected: Iterable[str], base: str) -> None:
    """Check that the weights of a model with code of its own are those of transformers' class.

    Weights outside of the blocks belong to other heads.
    """
    if in_blocks := sorted(key for key in unexpected if any(map(str.isdecimal, key.split(".")))):
        raise UnreadableBase(
            base=base,
            reason=f"its own code, which is never run, has weights that transformers' class lacks, "
            f"first {in_blocks[0]}",
        )


def _init_head(model: PreTrainedModel, family: EncoderFamily, missing: set[str]) -> None:
    """Initialize the classifier, and the head layers before it that the file lacks."""
    for name in family.head_module_names:
        if name in missing or name == family.head[-1]:
            layer = model.get_submodule(name)
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=model.config.initializer_range)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
