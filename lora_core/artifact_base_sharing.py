"""The base of an artifact: what is the same for all runs that froze the same encoder.

`base/` contains the weights and the config of the encoder, and the tokenizer. A store keeps it
once: `split_off_base` makes it a directory of its own, identified by the sha256 of its manifest, to
which the manifest of the artifact then refers. `assemble_complete_artifact` puts them together
again. Does not import torch.
"""

import os
import shutil
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from lora_core import manifest
from lora_core.encoders import get_family
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.manifest import BASE_DIR, CLASSIFIER_FILE, MANIFEST_FILE

CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE = "config.json", "model.safetensors", "tokenizer.json"
BASE_FILES = (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE)
BASE_DIGEST = "base_manifest_sha256"  # field of an artifact's manifest whose base is elsewhere
# Fields of a config that do not change what the encoder computes: those of one version, besides the
# dropout rates, and those that depend on the library.
_LABEL_FIELDS = frozenset({"id2label", "label2id", "problem_type"})
_LIBRARY_FIELDS = frozenset({"architectures", "dtype", "num_labels", "transformers_version"})

Json = dict[str, Any]


def has_base(files: Mapping[str, Any]) -> bool:
    """Return whether these files of a manifest include a base."""
    return f"{BASE_DIR}/{WEIGHTS_FILE}" in files


def base_digest(manifest_data: Mapping[str, Any]) -> str:
    """Return the digest that the base of a complete artifact has or will have as a directory."""
    return sha256(manifest.serialize({"files": _base_files(manifest_data)})).hexdigest()


def split_off_base(directory: Path) -> Path | None:
    """Move the base of an artifact to a directory next to it, and return that directory.

    The digest is computed from the bytes of the files. Returns None if the artifact has no base.
    Raises `ArtifactCorrupt` if its files do not match the manifest.
    """
    manifest_data = manifest.read(directory)
    claim = manifest_data.pop(BASE_DIGEST, None)
    listed = _base_files(manifest_data)
    if not listed:
        if claim is not None:
            manifest.save(directory, manifest_data)
        return None
    base = directory.with_name(f"{directory.name}-{BASE_DIR}")
    if not (directory / BASE_DIR).is_dir() or (directory / BASE_DIR).is_symlink():
        raise ArtifactCorrupt(path=directory.name, problem=f"{BASE_DIR}/ is not a directory")
    (directory / BASE_DIR).rename(base)
    if manifest.create_and_save(base, {})["files"] != listed:
        raise ArtifactCorrupt(path=directory.name, problem=f"{BASE_DIR}/ has changed")
    own = {n: facts for n, facts in manifest_data["files"].items() if not _is_in_base(n)}
    digest = manifest.file_sha256(base / MANIFEST_FILE)
    manifest.save(directory, {**manifest_data, BASE_DIGEST: digest, "files": own})
    return base


def join_manifests(manifest_data: Mapping[str, Any], base_manifest: Mapping[str, Any]) -> Json:
    """Return the manifest of the complete artifact."""
    joined = {name: value for name, value in manifest_data.items() if name != BASE_DIGEST}
    base_files = {f"{BASE_DIR}/{name}": facts for name, facts in base_manifest["files"].items()}
    files = sorted({**manifest_data["files"], **base_files}.items())
    return {**joined, "files": dict(files)}


def assemble_complete_artifact(directory: Path, base: Path | None, target: Path) -> None:
    """Make the complete artifact `target` of an artifact and its base, as links where possible."""
    manifest_data = manifest.read(directory)
    for name in manifest_data["files"]:
        _link(directory / name, target / name)
    if base is None:
        _link(directory / MANIFEST_FILE, target / MANIFEST_FILE)
        return
    base_manifest = manifest.read(base)
    for name in base_manifest["files"]:
        _link(base / name, target / BASE_DIR / name)
    manifest.save(target, join_manifests(manifest_data, base_manifest))


def join_classifier_config(config: Json, classifier: Json) -> Json:
    """Return the config of the merged model: that of the base with `classifier.json`.

    Raises `ArtifactCorrupt` if the latter has fields that change what the encoder computes, because
    versions with the same base share it.
    """
    if others := sorted(classifier.keys() - _classifier_fields(config)):
        raise ArtifactCorrupt(path=CLASSIFIER_FILE, problem=f"it sets {others[0][:100]!r}")
    return {**config, **classifier}


def split_classifier_config(config: Json) -> tuple[Json, Json]:
    """Return the config of the base, and the content of `classifier.json`."""
    own = _classifier_fields(config)
    base = {name: config[name] for name in sorted(config.keys() - own - _LIBRARY_FIELDS)}
    return base, {name: config[name] for name in sorted(config.keys() & own)}


def _classifier_fields(config: Json) -> frozenset[str]:
    """Return the fields of a version's config that are not part of its base."""
    family = get_family(config)
    return _LABEL_FIELDS | {*family.dropouts, *family.head_dropouts}


def _is_in_base(name: str) -> bool:
    return name.startswith(f"{BASE_DIR}/")


def _base_files(manifest_data: Mapping[str, Any]) -> Json:
    """Return the files of the base, as the manifest of its own directory lists them."""
    return {
        name.removeprefix(f"{BASE_DIR}/"): {"bytes": facts["bytes"], "sha256": facts["sha256"]}
        for name, facts in sorted(manifest_data["files"].items())
        if _is_in_base(name)
    }


def _link(source: Path, target: Path) -> None:
    """Make a hard link, or a copy on another file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
