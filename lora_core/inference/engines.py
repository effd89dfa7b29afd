"""The inference engines: which of them this machine supports, and those that are in memory."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch
from transformers import PreTrainedModel

from lora_core import manifest
from lora_core.artifact import load_adapter, load_merged, read_model_type
from lora_core.cpu import has_fast_bf16
from lora_core.data.tokens import load_tokenizer
from lora_core.encoders import FAMILIES
from lora_core.encoders.families import EncoderFamily
from lora_core.encoders.modules import blocks, linear_layer
from lora_core.errors.artifact import EngineUnavailable
from lora_core.inference.adapter import (
    FUSED_LAYERS,
    Adapter,
    LoraByLayer,
    build_lora_weights,
    head_from_model,
    load_head,
)
from lora_core.inference.packed_encoder import CompiledEncoder, PackedEncoder
from lora_core.inference.tokenization import ModelTokenizer
from lora_core.specs.method import LoraVariant

FP32, BF16 = torch.float32, torch.bfloat16


@dataclass(frozen=True)
class EngineSpec:
    """How to build the encoder of an engine, and when to use it."""

    build: Callable[[PreTrainedModel, EncoderFamily], PackedEncoder]
    is_available: Callable[[], bool]
    is_auto_candidate: Callable[[], bool]  # whether `auto` benchmarks it


def has_compiler() -> bool:
    """Return whether there is a C++ compiler, which `torch.compile` needs for the CPU."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def has_gpu() -> bool:
    """Return whether torch finds a GPU."""
    return torch.cuda.is_available()


def _always() -> bool:
    return True


def _never() -> bool:
    return False


ENGINES: Mapping[str, EngineSpec] = {
    "torch-fp32": EngineSpec(partial(PackedEncoder, dtype=FP32), _always, _always),
    "torch-bf16": EngineSpec(partial(PackedEncoder, dtype=BF16), _always, has_fast_bf16),
    # Only on request by name; `auto` never tries them. They save a tenth of the time at most, on
    # the operations between the products, and compile for seconds: useful for a server that runs
    # for long and whose encoder is shared by no other version.
    "compiled-fp32": EngineSpec(partial(CompiledEncoder, dtype=FP32), has_compiler, _never),
    "compiled-bf16": EngineSpec(partial(CompiledEncoder, dtype=BF16), has_compiler, _never),
    "cuda-bf16": EngineSpec(partial(PackedEncoder, dtype=BF16, device="cuda"), has_gpu, has_gpu),
}
_REQUIREMENTS = {
    "compiled": "a C++ compiler; install g++",
    "cuda": "a GPU and the CUDA build of torch",
}


def use_single_thread() -> None:
    """Limit whatever the calling thread computes from now on to one core.

    Each thread that uses several cores keeps an OpenMP thread pool for it. If these pools have more
    threads than there are cores, libgomp lets all of them sleep at every barrier, and a single text
    takes half as long again.
    """
    torch.set_num_threads(1)


def auto_candidates() -> list[str]:
    """Return the names of the engines that `auto` chooses from on this machine."""
    return [
        name
        for name, engine in ENGINES.items()
        if engine.is_available() and engine.is_auto_candidate()
    ]


def get_engine(name: str) -> EngineSpec:
    """Return the engine of this name. Raises `EngineUnavailable` on a machine without it."""
    engine = ENGINES[name]
    if not engine.is_available():
        raise EngineUnavailable(engine=name, needs=_REQUIREMENTS[name.partition("-")[0]])
    return engine


# -- Encoders and tokenizers in memory, shared by versions with the same base ---------------------

# Versions share an encoder by what their manifests claim about their base, so one `EngineCache` may
# only serve artifacts whose manifests this installation wrote (docs/decisions/0030).


TOKENIZER_FILE = f"{manifest.MERGED}/tokenizer.json"
# All files that are read for a version whose base is in memory.
ADAPTER_FILES = ("adapter.json", "adapter.safetensors", "head.safetensors", "golden.json",
                 TOKENIZER_FILE, f"{manifest.MERGED}/config.json")  # fmt: skip
# Fields of a config, besides the dropout rates, that do not change what the encoder computes.
_NON_ENCODER_FIELDS = {"architectures", "dtype", "id2label", "label2id", "num_labels",
                       "problem_type", "transformers_version"}  # fmt: skip


class LoadedArtifact(NamedTuple):
    """A version in memory."""

    engine: PackedEncoder
    adapter: Adapter  # in the precision and on the device of the engine
    tokenizer: ModelTokenizer
    manifest: Mapping[str, Any]


class EngineCache:
    """Each encoder and tokenizer is cached for as long as a loaded version refers to it."""

    def __init__(self) -> None:
        self._engines: WeakValueDictionary[tuple[str, str, str], PackedEncoder] = (
            WeakValueDictionary()
        )
        self._tokenizers: WeakValueDictionary[tuple[str, int], ModelTokenizer] = (
            WeakValueDictionary()
        )
        self._load_lock = Lock()

    def load(self, directory: Path, engine_name: str) -> LoadedArtifact:
        """Load an artifact on the engine of this name.

        Raises `ArtifactCorrupt` if the digest of a file that is read does not match.
        """
        manifest_data = manifest.verify(directory, only=ADAPTER_FILES)
        with self._load_lock:
            engine, adapter = self._load_engine(directory, manifest_data, engine_name)
            return LoadedArtifact(
                engine, adapter, self._load_tokenizer(directory, manifest_data), manifest_data
            )

    def _load_engine(
        self, directory: Path, manifest_data: Mapping[str, Any], engine_name: str
    ) -> tuple[PackedEncoder, Adapter]:
        """Return a shared encoder for a run that froze the base or trained an adapter beside it.

        DoRA also scales the rows of the base weights, so it gets an encoder of its own, like full
        fine-tuning and artifacts whose manifest does not name their base.
        """
        family, engine_spec = FAMILIES[read_model_type(directory)], get_engine(engine_name)
        base = manifest_data.get("base_sha256")
        saved = load_adapter(directory) if "adapter.json" in manifest_data["files"] else None
        is_dora = saved is not None and saved.spec.variant is LoraVariant.DORA
        if is_dora or base is None or "head.safetensors" not in manifest_data["files"]:
            model = _load_verified(directory)
            engine = engine_spec.build(model, family)
            return engine, engine.prepare_adapter(Adapter({}, head_from_model(model, family)))
        lora = {} if saved is None else build_lora_weights(saved.spec, saved.tensors, family)
        key = base, _encoder_config(directory, family), engine_name
        shared = self._engines.get(key)
        if shared is None:
            model = _load_verified(directory)
            _unmerge(model, family, lora)
            shared = self._engines[key] = engine_spec.build(model, family)
        return shared, shared.prepare_adapter(Adapter(lora, load_head(directory)))

    def _load_tokenizer(self, directory: Path, manifest_data: Mapping[str, Any]) -> ModelTokenizer:
        key = manifest_data["files"][TOKENIZER_FILE]["sha256"], manifest_data["max_length"]
        tokenizer = self._tokenizers.get(key)
        if tokenizer is None:
            tokenizer = ModelTokenizer(
                load_tokenizer(directory / TOKENIZER_FILE), manifest_data["max_length"]
            )
            self._tokenizers[key] = tokenizer
        return tokenizer


def _encoder_config(directory: Path, family: EncoderFamily) -> str:
    """Return the config fields that change what the encoder computes from the same weights."""
    config = json.loads((directory / manifest.MERGED / "config.json").read_text(encoding="utf-8"))
    ignored = {*_NON_ENCODER_FIELDS, *family.dropouts, family.head_dropout}
    return json.dumps({name: config[name] for name in sorted(config.keys() - ignored)})


def _load_verified(directory: Path) -> PreTrainedModel:
    manifest.verify(directory)
    return load_merged(directory)


@torch.no_grad()
def _unmerge(model: PreTrainedModel, family: EncoderFamily, lora: LoraByLayer) -> None:
    """Restore the base weights from the merged ones, up to rounding: W = (W + B A) - B A.

    The base itself may be elsewhere or missing on this machine; the merged model is part of the
    version.
    """
    model_blocks = blocks(model, family)
    for (block, fused_layer), weights in lora.items():
        layers = [linear_layer(model_blocks[block], family.roles[role][i])
                  for role, i in FUSED_LAYERS[fused_layer]]  # fmt: skip
        updates = torch.split(weights.B @ weights.A, [layer.out_features for layer in layers])
        for layer, update in zip(layers, updates, strict=True):
            layer.weight -= update
