"""Readers of model files: imports, adapters of PEFT, base models, checkpoints."""

import json
import os
import shutil
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from unittest.mock import patch

from safetensors import SafetensorError
from safetensors.torch import load_file

from lora_core import manifest, peft_format
from lora_core.compatibility import count_parameters, read_encoder_shape
from lora_core.data.tokens import load_tokenizer
from lora_core.encoders.safety import check_needs_no_custom_code, parse_config
from lora_core.export.hugging_face import export_adapter
from lora_core.export.model_settings import read_exported_model_settings
from lora_core.manifest import MANIFEST_FILE
from lora_core.model_imports import metadata
from lora_core.model_imports import tokenizer as tokenizers
from lora_core.model_imports.archive import check_safetensors_header, unpack_archive
from lora_core.model_imports.check import check_imported_model
from lora_core.model_imports.peft import import_adapter
from lora_core.model_imports.tokenizer import validate_tokenizer_get_max_id
from lora_core.nearest_examples import load_index
from lora_core.rust_panics import convert_panics
from lora_core.saved_predictions import load_golden_predictions
from lora_core.specs.method import FullFineTuningSpec, LayerRole, LoraSpec
from lora_core.training import checkpoint as checkpoints
from tests.fuzz.documented_errors import documented_errors
from tests.fuzz.readers import CORPUS, HERE, split_name
from tests.lora_artifact import make_lora_artifact
from tests.tiny_base import make_base

CHECKPOINT = HERE.parent / "assets" / "checkpoint-v1" / "step-7"
TEXTS = ("", "The film was good, not bad.", "I\N{COMBINING DOT ABOVE}\N{LATIN SMALL LIGATURE FFI}")
LAYERS = ("distilbert.transformer.layer.0.attention.q_lin", "encoder.layer.11.output.dense")


def archive(data: bytes, directory: Path) -> None:
    """Unpack an archive, which may only make files in its folder, and read what describes it."""
    file, into = directory / "model.tar", directory / "into"
    file.write_bytes(data)
    into.mkdir()
    with documented_errors():
        folder = unpack_archive(file, into)
        assert not [path for path in into.rglob("*") if path.is_symlink()]
        metadata.check_manifest_size(folder)
        manifest.verify(folder)
        metadata.validate_model_metadata(folder)
    assert {path.name for path in directory.iterdir()} == {"model.tar", "into"}


def model(data: bytes, directory: Path) -> None:
    """Read a model one file of which is changed: its path, and in the next lines its content."""
    if not _link_changed(data, ("linear", "encoder"), directory):
        return
    with documented_errors():
        metadata.check_manifest_size(directory)
        metadata.validate_model_metadata(directory)
        load_golden_predictions(directory)
    with documented_errors():
        load_index(directory)


@cache
def _unpacked(kind: str) -> Path:
    """Return a model or the checkpoint, on the file system of the directories that link to it."""
    if kind == "tiny":
        return tiny_model()
    into = Path(mkdtemp(prefix="loraworks-fuzz-"))
    if kind == "checkpoint":
        return shutil.copytree(CHECKPOINT, into / kind)
    return unpack_archive(CORPUS / "archive" / f"{kind}.tar", into)


@cache
def _files_of(kind: str) -> frozenset[str]:
    return frozenset({MANIFEST_FILE, *manifest.read(_unpacked(kind))["files"]})


def _link_changed(data: bytes, kinds: tuple[str, ...], directory: Path) -> bool:
    """Link a model with one file changed; return whether the first line names one of these."""
    path, content = split_name(data)
    kind, _, name = path.partition("/")
    if kind not in kinds or name not in _files_of(kind):
        return False
    _link_with(_unpacked(kind), name, content, directory)
    return True


def _link_with(source: Path, name: str, content: bytes, directory: Path) -> None:
    """Link all files of a model but one, which gets other content and an entry in the manifest."""
    for path in source.rglob("*"):
        if path.is_file():
            target = directory / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)
    (directory / name).unlink()
    (directory / name).write_bytes(content)
    if name != MANIFEST_FILE:
        facts = manifest.read(directory)
        facts["files"][name] = {"bytes": len(content), "sha256": sha256(content).hexdigest()}
        (directory / MANIFEST_FILE).unlink()
        (directory / MANIFEST_FILE).write_text(json.dumps(facts), encoding="utf-8")


def imported_model(data: bytes, directory: Path) -> None:
    """Check a model that would be imported, one file of which is changed, as `model` does."""
    if not _link_changed(data, ("linear", "tiny"), directory):
        return
    # The texts that a tokenizer has to run are shorter: 4,000 characters take seconds.
    with documented_errors(), patch.object(tokenizers, "_TEXT_CHARACTERS", 40):
        check_imported_model(directory)


def adapter(data: bytes, directory: Path) -> None:
    """Import an adapter of PEFT with its base, one file of which is changed."""
    name, content = split_name(data)
    if name not in ADAPTER_FILES:
        return
    source = shutil.copytree(exported_adapter(), directory / "adapter")
    (source / name).write_bytes(content)
    with documented_errors():
        import_adapter(source, directory / "artifact")


ADAPTER_FILES = (
    peft_format.CONFIG_FILE, peft_format.WEIGHTS_FILE, manifest.USAGE_FILE, "id2label.json",
    "config.json", "tokenizer.json", "tokenizer_config.json", f"{manifest.BASE_DIR}/config.json",
)  # fmt: skip


@cache
def tiny_model() -> Path:
    """Return an encoder of a few kilobytes, with an adapter, so that its weights are mutated."""
    directory = Path(mkdtemp(prefix="loraworks-fuzz-"))
    base = make_base(directory / "base", dim=4, n_layers=1, n_heads=2, hidden_dim=4)
    spec = LoraSpec(r=1, targets=(LayerRole.QUERY,))
    return make_lora_artifact(directory, spec, base=base)


@cache
def exported_adapter() -> Path:
    """Return its adapter as PEFT would save it, with the base in a folder."""
    out = tiny_model().parent / "adapter"
    export_adapter(tiny_model(), out, base=str(tiny_model().parent / "base"))
    return out


def safetensors(data: bytes, directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(data)
    with documented_errors(), suppress(SafetensorError):
        check_safetensors_header(file)
        load_file(file)


def tokenizer(data: bytes, directory: Path) -> None:
    """Validate a tokenizer. The library has to run any that is valid."""
    file = directory / "tokenizer.json"
    file.write_bytes(data)
    with documented_errors():
        validate_tokenizer_get_max_id(file)
        loaded = load_tokenizer(file)
        with convert_panics():
            loaded.encode_batch_fast(list(TEXTS))


def adapter_config(data: bytes, directory: Path) -> None:
    """Read a config of PEFT, and ask it for layers. Read it as our `loraworks.json`, too."""
    for name in (peft_format.CONFIG_FILE, manifest.USAGE_FILE):
        (directory / name).write_bytes(data)
    (directory / peft_format.WEIGHTS_FILE).touch()
    with documented_errors():
        config = peft_format.read_adapter_config(directory)
        for layer in LAYERS:
            if config.adapts(layer):
                config.rank(layer)
                config.alpha(layer)
    with documented_errors():
        read_exported_model_settings(directory)


def base_config(data: bytes, directory: Path) -> None:
    """Read a config.json; what follows an empty line is the pooling of a sentence encoder."""
    del directory
    content, _, pooling = data.partition(b"\n\n")
    with documented_errors():
        config = parse_config(content, "base", pooling=pooling or None)
        check_needs_no_custom_code("base", config)
        shape = read_encoder_shape(config, base="base")
        count_parameters(shape, FullFineTuningSpec(), 3)


def checkpoint(data: bytes, directory: Path) -> None:
    """Read a checkpoint one file of which is changed: its name, then its content."""
    name, content = split_name(data)
    if name in (MANIFEST_FILE, checkpoints.STATE_FILE, checkpoints.TENSORS_FILE):
        _link_with(_unpacked("checkpoint"), name, content, directory)
        with documented_errors():
            checkpoints.read_verified(directory)
