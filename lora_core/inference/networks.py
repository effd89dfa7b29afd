"""What is in memory of models: networks and tokenizers, shared by the versions of one base.

Versions share a network by what their manifests say of their base, so only those may meet in one
`Networks` whose manifests this installation wrote (docs/decisions/0030).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch
from transformers import PreTrainedModel

from lora_core import manifest
from lora_core.artifact import family_of, load_adapter, load_merged
from lora_core.data.tokens import load_tokenizer
from lora_core.encoders import FAMILIES
from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.modules import blocks, linear
from lora_core.inference import engines
from lora_core.inference.adapter import PIECES, Adapter, Pairs, head_of, load_head, pairs_of
from lora_core.inference.network import Network
from lora_core.inference.reader import Reader
from lora_core.specs.method import Variant

TOKENIZER = f"{manifest.MERGED}/tokenizer.json"
# All that a version needs whose base is in memory.
SMALL = ("adapter.json", "adapter.safetensors", "head.safetensors", "golden.json", TOKENIZER,
         f"{manifest.MERGED}/config.json")  # fmt: skip
# Fields of a config that change nothing of what an encoder computes, besides its dropouts.
_OF_NO_ENCODER = {"architectures", "dtype", "id2label", "label2id", "num_labels", "problem_type",
                  "transformers_version"}  # fmt: skip


class Opened(NamedTuple):
    """A version in memory."""

    engine: Network
    adapter: Adapter  # as the engine computes with it
    reader: Reader
    facts: Mapping[str, Any]  # its manifest


class Networks:
    """Each stays for as long as somebody has a version that needs it."""

    def __init__(self) -> None:
        self._engines: WeakValueDictionary[tuple[str, str, str], Network] = WeakValueDictionary()
        self._readers: WeakValueDictionary[tuple[str, int], Reader] = WeakValueDictionary()
        self._one_at_a_time = Lock()

    def open(self, directory: Path, name: str) -> Opened:
        """An artifact on the engine of this name.

        Every digest of what is read is checked: raises `ArtifactCorrupt`.
        """
        facts = manifest.verify(directory, only=SMALL)
        with self._one_at_a_time:
            engine, adapter = self._computing(directory, facts, name)
            return Opened(engine, adapter, self._reader(directory, facts), facts)

    def _computing(
        self, directory: Path, facts: Mapping[str, Any], name: str
    ) -> tuple[Network, Adapter]:
        """A run that left the base as it was, or has an adapter beside it, shares its network.

        DoRA also scales the rows of the base, so it has a network of its own, as full fine-tuning
        has, and what does not tell its base.
        """
        family, kind = FAMILIES[family_of(directory)], engines.kind(name)
        base = facts.get("base_sha256")
        saved = load_adapter(directory) if "adapter.json" in facts["files"] else None
        alone = saved is not None and saved.spec.variant is Variant.DORA
        if alone or base is None or "head.safetensors" not in facts["files"]:
            model = _merged(directory)
            engine = kind.build(model, family)
            return engine, engine.prepared(Adapter({}, head_of(model, family)))
        pairs = {} if saved is None else pairs_of(saved.spec, saved.tensors, family)
        key = base, _settings(directory, family), name
        shared = self._engines.get(key)
        if shared is None:
            model = _merged(directory)
            _take_out(model, family, pairs)
            shared = self._engines[key] = kind.build(model, family)
        return shared, shared.prepared(Adapter(pairs, load_head(directory)))

    def _reader(self, directory: Path, facts: Mapping[str, Any]) -> Reader:
        known = facts["files"][TOKENIZER]["sha256"], facts["max_length"]
        reader = self._readers.get(known)
        if reader is None:
            reader = Reader(load_tokenizer(directory / TOKENIZER), facts["max_length"])
            self._readers[known] = reader
        return reader


def _settings(directory: Path, family: EncoderFamily) -> str:
    """How the encoder computes, as its config has it: the same weights may mean two functions."""
    config = json.loads((directory / manifest.MERGED / "config.json").read_text(encoding="utf-8"))
    away = {*_OF_NO_ENCODER, *family.dropouts, family.head_dropout}
    return json.dumps({name: config[name] for name in sorted(config.keys() - away)})


def _merged(directory: Path) -> PreTrainedModel:
    manifest.verify(directory)
    return load_merged(directory)


@torch.no_grad()
def _take_out(model: PreTrainedModel, family: EncoderFamily, pairs: Pairs) -> None:
    """W = (W + B A) - B A: the base again, to rounding.

    The base itself may lie elsewhere or nowhere on this machine; the merged model comes with the
    version.
    """
    found = blocks(model, family)
    for (block, piece), pair in pairs.items():
        layers = [linear(found[block], family.roles[role][i]) for role, i in PIECES[piece]]
        added = torch.split(pair.B @ pair.A, [layer.out_features for layer in layers])
        for layer, part in zip(layers, added, strict=True):
            layer.weight -= part
