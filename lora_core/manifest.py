"""The manifest of a directory: name, size and sha256 of every file. It is written last.

A directory is complete if its manifest verifies. One without a manifest is treated as missing.
"""

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lora_core import __version__
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.specs.chat import PromptFormat

MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 2  # format version of an artifact; 1: always with a merged checkpoint
USAGE_FILE = "loraworks.json"  # in exports: what other formats have no field for
MODEL_CARD_FILE = "README.md"  # written on export; it may be edited, so no manifest lists it
MERGED_DIR = "merged"  # directory of the plain transformers checkpoint in an artifact
BASE_DIR = "base"  # directory of the frozen encoder in an artifact that has no merged checkpoint
CLASSIFIER_FILE = "classifier.json"  # next to `BASE_DIR`: what the config says about this version
DEFAULT_ID2LABEL = {"0": "LABEL_0", "1": "LABEL_1"}  # transformers leaves them out of a config
LINEAR_FILE = "linear.json"  # a linear model has this and linear.safetensors instead
# Vectors of training texts (`lora_core.nearest_examples`). Older artifacts have none.
NEAREST_EXAMPLES_FILES = ("nearest_examples.json", "nearest_examples.safetensors")
# No such file. Any other error says nothing about what was written.
_MISSING_FILE_ERRORS = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_MALFORMED_ERRORS = (ValueError, KeyError, AttributeError, TypeError, RecursionError)


def file_sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def create_and_save(directory: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest of all files in `directory`, with these `facts`; return it."""
    files = {
        path.relative_to(directory).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path != directory / MANIFEST_FILE
    }
    manifest = {**facts, "files": files}
    save(directory, manifest)
    return manifest


def has_model(manifest: Mapping[str, Any]) -> bool:
    """Return whether the directory has a model, not only metrics and predictions."""
    return any(
        name in manifest["files"]
        for name in (f"{MERGED_DIR}/config.json", CLASSIFIER_FILE, LINEAR_FILE)
    )


def is_linear(files: Collection[str]) -> bool:
    """Return whether these file names are those of a linear model."""
    return LINEAR_FILE in files


def has_nearest_examples(files: Collection[str]) -> bool:
    """Return whether these file names include vectors of training texts."""
    return any(name in files for name in NEAREST_EXAMPLES_FILES)


def prompt_format(manifest: Mapping[str, Any]) -> PromptFormat | None:
    """Return the format of the prompts that a model was trained on; None if they had none.

    Raises `ArtifactCorrupt`.
    """
    stored = manifest["spec"].get("data", {}).get("prompt_format")
    try:
        return None if stored is None else PromptFormat.model_validate(stored)
    except ValidationError as error:
        problem = "its manifest has an invalid prompt_format"
        raise ArtifactCorrupt(path=MANIFEST_FILE, problem=problem) from error


def label_columns(manifest: Mapping[str, Any]) -> dict[str | None, str]:
    """Return the column that each of several targets was read from; of one task, under None.

    If several targets share a column, which then holds objects, each has its own name instead.
    """
    spec = manifest["spec"]
    targets = spec.get("task", {}).get("targets")
    if not targets:
        return {None: str(spec.get("data", {}).get("label_column", "label"))}
    columns = {name: str(target.get("column") or name) for name, target in targets.items()}
    several_from_one = len(set(columns.values())) < len(columns)
    return {name: name if several_from_one else columns[name] for name in columns}


def reads_pairs(manifest: Mapping[str, Any]) -> bool:
    """Return whether a model reads pairs of texts."""
    return manifest["spec"].get("data", {}).get("text_pair_column") is not None


def reads_windows(manifest: Mapping[str, Any]) -> bool:
    """Return whether a model reads long texts in windows."""
    return bool(manifest["spec"].get("data", {}).get("long_texts") == "windows")


def installed_library_versions() -> dict[str, str]:
    """Return the versions of this program and of the libraries it computes with."""
    names = ("torch", "transformers", "tokenizers", "scikit-learn")
    libraries = {name: version(name) for name in names}
    return {"loraworks": __version__, **libraries}


def serialize(manifest: Mapping[str, Any]) -> bytes:
    """Return the content of the manifest's file."""
    content = json.dumps(manifest, indent=1, allow_nan=False, ensure_ascii=False)
    # Numbers of a list share a line: a confusion matrix of 1,000 labels would have 1,000,000 lines.
    return re.sub(r"\n +(?=[-+.\de]+,?\n)", "", content).encode("utf-8")


def save(directory: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest itself, atomically. Its list of files must be correct."""
    temporary = directory / f".{MANIFEST_FILE}"
    with temporary.open("xb") as file:  # "x" never follows an existing link
        file.write(serialize(manifest))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(directory / MANIFEST_FILE)


def read(directory: Path, *, digest: str | None = None) -> dict[str, Any]:
    """Read the manifest without checking the files. Raises `ArtifactCorrupt` if there is none.

    With the SHA-256 `digest` that it must have, one with other content is not parsed either.

    A file that cannot be read is not treated as corrupt: its `OSError` propagates.
    """
    try:
        content = (directory / MANIFEST_FILE).read_bytes()
        if digest is not None and hashlib.sha256(content).hexdigest() != digest:
            raise ArtifactCorrupt(path=directory.name, problem=f"{MANIFEST_FILE} has changed")
        manifest = json.loads(content.decode("utf-8"))
        _ = [facts["sha256"] for facts in manifest["files"].values()]
    except (*_MISSING_FILE_ERRORS, *_MALFORMED_ERRORS) as error:
        raise ArtifactCorrupt(path=directory.name, problem="no readable manifest.json") from error
    return dict(manifest)


def verify(
    directory: Path, only: Collection[str] | None = None, *, digest: str | None = None
) -> dict[str, Any]:
    """Check every file, or those in `only`, against the manifest; return the manifest.

    In either case no file may be missing or extra, except for a model card. `digest` is that of
    `read`. Raises `ArtifactCorrupt`.
    """
    manifest = read(directory, digest=digest)
    names = _list_files(directory) - {MANIFEST_FILE, MODEL_CARD_FILE}
    if mismatched := names.symmetric_difference(manifest["files"]):
        problem = f"missing or extra: {sorted(mismatched)[0]}"
        raise ArtifactCorrupt(path=directory.name, problem=problem)
    for name, facts in manifest["files"].items():
        if only is not None and name not in only:
            continue
        path = directory / name
        if path.is_symlink() or file_sha256(path) != facts["sha256"]:
            raise ArtifactCorrupt(path=directory.name, problem=f"{name} has changed")
    return manifest


def _list_files(directory: Path) -> set[str]:
    """Return the relative paths of all files and links.

    `rglob` would treat a directory that cannot be listed as empty.
    """
    return {
        path.relative_to(directory).as_posix()
        for folder, folders, files in os.walk(directory, onerror=_raise)
        for path in (Path(folder, name) for name in (*folders, *files))
        if path.is_symlink() or path.is_file()
    }


def _raise(error: OSError) -> None:
    raise error
