"""The inference engines: which of them this machine supports, and those that are in memory."""

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Protocol
from weakref import WeakValueDictionary

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from lora_core import manifest
from lora_core.artifact import (
    SavedAdapter,
    encoder_checkpoint_directory,
    has_merged_checkpoint,
    load_base_with_head,
    load_merged_model,
    read_merged_config,
    read_saved_adapter,
)
from lora_core.artifact_base_sharing import (
    BASE_DIGEST,
    TOKENIZER_FILE,
    base_digest,
    has_base,
    split_classifier_config,
)
from lora_core.cpu import has_fast_bf16
from lora_core.data.tokens import load_tokenizer
from lora_core.encoders import get_family
from lora_core.encoders.encoder_parts import blocks, family_of, get_linear_submodule
from lora_core.encoders.families import MODERNBERT, FastPathFamily
from lora_core.errors.artifact import ArtifactCorrupt, EngineUnavailable
from lora_core.fast.native.library import best_library
from lora_core.inference.adapter import (
    Adapter,
    LoraByLayer,
    build_lora_weights,
    parts_of_fused_layers,
)
from lora_core.inference.packed_encoder import Backend, PackedEncoder
from lora_core.inference.packed_modernbert import PackedModernBert
from lora_core.inference.padded_encoder import PaddedEncoder, SharedBaseClassifier
from lora_core.inference.tokenization import ModelTokenizer, TokenizedText
from lora_core.specs.method import LoraVariant

FP32, BF16 = torch.float32, torch.bfloat16


class InferenceEncoder(Protocol):
    """What packed and padded encoders have in common. Each has adapters of its own kind."""

    @property
    def name(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def max_batch_tokens(self) -> int: ...

    def extract_adapter(self, model: PreTrainedModel) -> Any: ...

    def build_adapter(self, saved: SavedAdapter | None, head: Mapping[str, Tensor]) -> Any: ...

    def logits(
        self,
        texts: Sequence[TokenizedText],
        adapters: Sequence[Any],
        *,
        threads: int | None = None,
    ) -> list[Tensor]: ...

    def logits_and_states(
        self,
        texts: Sequence[TokenizedText],
        adapters: Sequence[Any],
        *,
        threads: int | None = None,
    ) -> list[tuple[Tensor, Tensor]]: ...


def build_encoder(
    model: PreTrainedModel,
    dtype: torch.dtype,
    device: str = "cpu",
    backend: Backend = "torch",
) -> InferenceEncoder:
    """Return an encoder for inference that computes in `dtype`.

    It is padded, and torch computes it, for families whose parts this library does not run itself.
    """
    family = family_of(model)
    if not isinstance(family, FastPathFamily):
        return PaddedEncoder(model, dtype, device)
    kind = PackedModernBert if family is MODERNBERT else PackedEncoder
    return kind(model, family, dtype, device, backend)


def _build_fast(
    model: PreTrainedModel, name: str, dtype: torch.dtype, backend: Backend
) -> InferenceEncoder:
    """Build the encoder of an engine that only computes fast families."""
    if not isinstance(family_of(model), FastPathFamily):
        raise EngineUnavailable(engine=name, needs="an encoder of a fast family")
    return build_encoder(model, dtype, backend=backend)


def _build_onednn(model: PreTrainedModel, dtype: torch.dtype) -> InferenceEncoder:
    name = "onednn-fp32" if dtype == FP32 else "onednn-bf16"
    return _build_fast(model, name, dtype, "onednn")


def _build_native(model: PreTrainedModel) -> InferenceEncoder:
    library = best_library()
    assert library is not None  # noqa: S101 - `get_available_engine_spec` has checked
    return _build_fast(model, "native-bf16", BF16, library)


@dataclass(frozen=True)
class EngineSpec:
    """How to build the encoder of an engine, and when to use it."""

    build: Callable[[PreTrainedModel], InferenceEncoder]
    is_available: Callable[[], bool]
    is_auto_candidate: Callable[[], bool]  # whether `auto` benchmarks it


def has_compiler() -> bool:
    """Return whether there is a C++ compiler, which `torch.compile` needs for the CPU."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def has_gpu() -> bool:
    """Return whether torch finds a GPU."""
    return torch.cuda.is_available()


def has_onednn() -> bool:
    """Return whether torch was built with oneDNN."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def has_native_library() -> bool:
    """Return whether the native engine was built, and this machine can run it."""
    return best_library() is not None


def _always() -> bool:
    return True


def _never() -> bool:
    return False


ENGINES: Mapping[str, EngineSpec] = {
    "torch-fp32": EngineSpec(partial(build_encoder, dtype=FP32), _always, _always),
    "torch-bf16": EngineSpec(partial(build_encoder, dtype=BF16), _always, has_fast_bf16),
    "onednn-fp32": EngineSpec(partial(_build_onednn, dtype=FP32), has_onednn, has_onednn),
    "onednn-bf16": EngineSpec(partial(_build_onednn, dtype=BF16), has_onednn, has_fast_bf16),
    "native-bf16": EngineSpec(_build_native, has_native_library, has_native_library),
    # Only on request by name; `auto` never tries them. They save a tenth of the time at most, on
    # the operations between the products, and compile for seconds: useful for a server that runs
    # for long and whose encoder is shared by no other version. A padded encoder is not compiled.
    "compiled-fp32": EngineSpec(
        partial(build_encoder, dtype=FP32, backend="compiled"), has_compiler, _never
    ),
    "compiled-bf16": EngineSpec(
        partial(build_encoder, dtype=BF16, backend="compiled"), has_compiler, _never
    ),
    "cuda-bf16": EngineSpec(partial(build_encoder, dtype=BF16, device="cuda"), has_gpu, has_gpu),
}
_REQUIREMENTS = {
    "compiled": "a C++ compiler; install g++",
    "onednn": "a build of torch with oneDNN",
    "native": "a processor with AVX512-BF16, and g++ when loraworks is installed; run "
    "python -m lora_core.fast.native.build",
    "cuda": "a GPU and the CUDA build of torch",
}


def disable_intra_op_parallelism() -> None:
    """Limit whatever the calling thread computes from now on to one core.

    Each thread that uses several cores keeps an OpenMP thread pool for it. If these pools have more
    threads than there are cores, libgomp lets all of them sleep at every barrier, and a single text
    takes half as long again.
    """
    torch.set_num_threads(1)


def list_auto_engine_candidates() -> list[str]:
    """Return the names of the engines that `auto` chooses from on this machine."""
    return [
        name
        for name, engine in ENGINES.items()
        if engine.is_available() and engine.is_auto_candidate()
    ]


def get_available_engine_spec(name: str) -> EngineSpec:
    """Return the engine of this name. Raises `EngineUnavailable` on a machine without it."""
    engine = ENGINES[name]
    if not engine.is_available():
        raise EngineUnavailable(engine=name, needs=_REQUIREMENTS[name.partition("-")[0]])
    return engine


# -- Encoders and tokenizers in memory, shared by versions with the same base ---------------------

# All files that are read of a version whose encoder is in memory, except for its tokenizer.
_ADAPTER_FILES = ("adapter.json", "adapter.safetensors", "head.safetensors", "golden.json",
                 manifest.CLASSIFIER_FILE)  # fmt: skip


class LoadedArtifact(NamedTuple):
    """A version in memory."""

    engine: InferenceEncoder
    adapter: Adapter | SharedBaseClassifier  # in the precision and on the device of the engine
    tokenizer: ModelTokenizer
    manifest: Mapping[str, Any]


class EngineCache:
    """Each encoder and tokenizer is cached for as long as a loaded version refers to it."""

    def __init__(self) -> None:
        self._engines: WeakValueDictionary[tuple[str, ...], InferenceEncoder] = (
            WeakValueDictionary()
        )
        self._tokenizers: WeakValueDictionary[tuple[str, int, bool, bool], ModelTokenizer] = (
            WeakValueDictionary()
        )
        self._load_lock = Lock()

    def load(self, directory: Path, engine_name: str, base: Path | None = None) -> LoadedArtifact:
        """Load an artifact on the engine of this name; `base` is its base, if it is elsewhere.

        Raises `ArtifactCorrupt` if the digest of a file that is read does not match.
        """
        with self._load_lock:
            if has_merged_checkpoint(directory):
                return self._load_merged(directory, engine_name)
            return self._load_on_base(directory, base, engine_name)

    def _load_on_base(self, directory: Path, base: Path | None, engine_name: str) -> LoadedArtifact:
        """Load an artifact with a base. Those with the same base, byte for byte, share its encoder.

        A base that is elsewhere is only read if it is not in memory. DoRA also scales the rows of
        the base weights, so it gets a merged encoder of its own.
        """
        engine_spec = get_available_engine_spec(engine_name)
        manifest_data, digest = _verify_files(directory, base)
        saved = read_saved_adapter(directory) if "adapter.json" in manifest_data["files"] else None
        is_dora = saved is not None and saved.spec.variant is LoraVariant.DORA
        engine = None if is_dora else self._engines.get((digest, engine_name))
        if engine is None:
            _verify_base(base, digest)
            model = (
                load_merged_model(directory, base)
                if is_dora
                else load_base_with_head(directory, base)
            )
            engine = engine_spec.build(model)
            if not is_dora:
                self._engines[digest, engine_name] = engine
        head = load_file(directory / "head.safetensors")
        adapter = engine.build_adapter(None if is_dora else saved, head)

        def read_tokenizer() -> Tokenizer:
            _verify_base(base, digest, only=(TOKENIZER_FILE,))
            return load_tokenizer(encoder_checkpoint_directory(directory, base) / TOKENIZER_FILE)

        tokenizer = self._shared_tokenizer(digest, manifest_data, read_tokenizer)
        return LoadedArtifact(engine, adapter, tokenizer, manifest_data)

    def _shared_tokenizer(
        self, digest: str, manifest_data: Mapping[str, Any], read: Callable[[], Tokenizer]
    ) -> ModelTokenizer:
        """Return the tokenizer of a digest with the settings of a version, reading it if needed."""
        pairs, windows = manifest.reads_pairs(manifest_data), manifest.reads_windows(manifest_data)
        key = digest, manifest_data["max_length"], pairs, windows
        tokenizer = self._tokenizers.get(key)
        if tokenizer is None:
            tokenizer = ModelTokenizer(read(), key[1], pairs=pairs, windows=windows)
            self._tokenizers[key] = tokenizer
        return tokenizer

    # -- Artifacts with a merged checkpoint: of a run that trained the encoder, or in format 1 ----

    # The latter share an encoder by what their manifests claim about their base, so one
    # `EngineCache` may only serve those whose manifests this installation wrote
    # (docs/decisions/0030).

    def _load_merged(self, directory: Path, engine_name: str) -> LoadedArtifact:
        """Load on a shared encoder if the run froze the base or trained an adapter beside it."""
        manifest_data = manifest.verify(directory, only=(*_ADAPTER_FILES, *_MERGED_ADAPTER_FILES))
        engine, adapter = self._merged_engine(directory, manifest_data, engine_name)
        tokenizer = self._shared_tokenizer(
            manifest_data["files"][_MERGED_TOKENIZER]["sha256"],
            manifest_data,
            lambda: load_tokenizer(directory / _MERGED_TOKENIZER),
        )
        return LoadedArtifact(engine, adapter, tokenizer, manifest_data)

    def _merged_engine(
        self, directory: Path, manifest_data: Mapping[str, Any], engine_name: str
    ) -> tuple[InferenceEncoder, Adapter | SharedBaseClassifier]:
        config, engine_spec = read_merged_config(directory), get_available_engine_spec(engine_name)
        family = get_family(config)
        base = manifest_data.get("base_sha256")
        saved = read_saved_adapter(directory) if "adapter.json" in manifest_data["files"] else None
        is_dora = saved is not None and saved.spec.variant is LoraVariant.DORA
        has_head = "head.safetensors" in manifest_data["files"]
        # Only fast families have artifacts in format 1.
        if is_dora or base is None or not has_head or not isinstance(family, FastPathFamily):
            model = _verify_and_load_merged(directory)
            engine = engine_spec.build(model)
            return engine, engine.extract_adapter(model)
        lora = {} if saved is None else build_lora_weights(saved.spec, saved.tensors, family)
        key = base, json.dumps(split_classifier_config(config)[0]), engine_name
        shared = self._engines.get(key)
        if shared is None:
            model = _verify_and_load_merged(directory)
            _unmerge(model, family, lora)
            shared = self._engines[key] = engine_spec.build(model)
        return shared, shared.build_adapter(saved, load_file(directory / "head.safetensors"))


_MERGED_TOKENIZER = f"{manifest.MERGED_DIR}/{TOKENIZER_FILE}"
_MERGED_ADAPTER_FILES = (_MERGED_TOKENIZER, f"{manifest.MERGED_DIR}/config.json")


def _verify_files(directory: Path, base: Path | None) -> tuple[dict[str, Any], str]:
    """Verify an artifact with a base, and return its manifest and the digest of the base."""
    manifest_data = manifest.verify(directory, only=None if base is None else _ADAPTER_FILES)
    if base is None:
        if not has_base(manifest_data["files"]):
            raise ArtifactCorrupt(path=directory.name, problem=f"it has no {manifest.BASE_DIR}/")
        return manifest_data, base_digest(manifest_data)
    if (digest := manifest_data.get(BASE_DIGEST)) is None:
        raise ArtifactCorrupt(path=directory.name, problem="it does not refer to a base")
    return manifest_data, digest


def _verify_base(base: Path | None, digest: str, only: Collection[str] | None = None) -> None:
    """Verify a base that is elsewhere; one in the artifact has been verified with it."""
    if base is not None:
        manifest.verify(base, only=only, digest=digest)


def _verify_and_load_merged(directory: Path) -> PreTrainedModel:
    manifest.verify(directory)
    return load_merged_model(directory)


@torch.no_grad()
def _unmerge(model: PreTrainedModel, family: FastPathFamily, lora: LoraByLayer) -> None:
    """Restore the base weights from the merged ones, up to rounding: W = (W + B A) - B A.

    The base itself may be elsewhere or missing on this machine; the merged model is part of the
    version.
    """
    model_blocks = blocks(model, family)
    for (block, fused_layer), weights in lora.items():
        layers = [get_linear_submodule(model_blocks[block], path)
                  for path in parts_of_fused_layers(family)[fused_layer]]  # fmt: skip
        updates = torch.split(weights.B @ weights.A, [layer.out_features for layer in layers])
        for layer, update in zip(layers, updates, strict=True):
            layer.weight -= update
