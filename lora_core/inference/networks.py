"""What is in memory of models: networks and tokenizers, shared by the versions of one base."""

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import torch
from transformers import PreTrainedModel

from lora_core import manifest
from lora_core.artifact import family_of, load_merged
from lora_core.data.tokens import load_tokenizer
from lora_core.encoders import FAMILIES
from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.modules import blocks, linear
from lora_core.inference import engines
from lora_core.inference.adapter import (
    PIECES,
    Adapter,
    Pairs,
    head_of,
    load_head,
    load_pairs,
    spec_of,
)
from lora_core.inference.engine import Engine
from lora_core.inference.reader import Reader
from lora_core.specs.method import Variant

TOKENIZER = f"{manifest.MERGED}/tokenizer.json"
# All that a version needs whose base is in memory.
SMALL = ("adapter.json", "adapter.safetensors", "head.safetensors", "golden.json", TOKENIZER,
         f"{manifest.MERGED}/config.json")  # fmt: skip


class Networks:
    """Each stays for as long as somebody has a version that needs it."""

    def __init__(self) -> None:
        self._engines: WeakValueDictionary[tuple[str, str], Engine] = WeakValueDictionary()
        self._readers: WeakValueDictionary[tuple[str, int], Reader] = WeakValueDictionary()
        self._one_at_a_time = Lock()

    def open(self, directory: Path, name: str) -> tuple[Engine, Adapter, Reader]:
        """The engine of this name for an artifact, its adapter there, and its tokenizer.

        Every digest of what is read is checked: raises `ArtifactCorrupt`.
        """
        facts = manifest.verify(directory, only=SMALL)
        with self._one_at_a_time:
            return *self._computing(directory, facts, name), self._reader(directory, facts)

    def _computing(
        self, directory: Path, facts: Mapping[str, Any], name: str
    ) -> tuple[Engine, Adapter]:
        """A LoRA run shares the network of its base.

        Its files hold the merged model; the base is that without the adapter, to rounding. DoRA
        also stretches the rows of the base, so it has a network of its own, as full fine-tuning
        has, and what does not tell its base.
        """
        family, kind = FAMILIES[family_of(directory)], engines.kind(name)
        spec, base = spec_of(directory), facts.get("base_sha256")
        if spec is None or base is None or spec.variant is Variant.DORA:
            model = _merged(directory)
            engine = kind.build(model, family)
            return engine, engine.prepared(Adapter({}, head_of(model, family)))
        pairs = load_pairs(directory, spec)
        shared = self._engines.get((base, name))
        if shared is None:
            model = _merged(directory)
            _take_out(model, family, pairs)
            shared = self._engines[base, name] = kind.build(model, family)
        return shared, shared.prepared(Adapter(pairs, load_head(directory)))

    def _reader(self, directory: Path, facts: Mapping[str, Any]) -> Reader:
        known = facts["files"][TOKENIZER]["sha256"], facts["max_length"]
        reader = self._readers.get(known)
        if reader is None:
            reader = Reader(load_tokenizer(directory / TOKENIZER), facts["max_length"])
            self._readers[known] = reader
        return reader


def _merged(directory: Path) -> PreTrainedModel:
    manifest.verify(directory)
    return load_merged(directory)


@torch.no_grad()
def _take_out(model: PreTrainedModel, family: EncoderFamily, pairs: Pairs) -> None:
    """W = (W + B A) - B A."""
    found = blocks(model, family)
    for (block, piece), pair in pairs.items():
        layers = [linear(found[block], family.roles[role][i]) for role, i in PIECES[piece]]
        added = torch.split(pair.B @ pair.A, [layer.out_features for layer in layers])
        for layer, part in zip(layers, added, strict=True):
            layer.weight -= part
