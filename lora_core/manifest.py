"""Names, sizes and sha256 of every file in a directory, written last.

A directory with a manifest that verifies is complete; one without is not there.
"""

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lora_core import __version__
from lora_core.errors.artifact import ArtifactCorrupt

MANIFEST = "manifest.json"
FORMAT = 1  # of an artifact
MERGED = "merged"  # the plain transformers checkpoint inside an artifact
LINEAR = "linear.json"  # a linear model has this instead, and linear.safetensors
# No such file. Any other word of the system tells nothing about what was written.
_NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(directory: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """List every file of `directory`, add `facts`, and write the manifest last, atomically."""
    files = {
        path.relative_to(directory).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
        }
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    manifest = {**facts, "files": files}
    save(directory, manifest)
    return manifest


def holds_model(manifest: Mapping[str, Any]) -> bool:
    """Whether the directory of this manifest holds a model, or figures and answers alone."""
    return any(name in manifest["files"] for name in (f"{MERGED}/config.json", LINEAR))


def is_linear(files: Collection[str]) -> bool:
    """Whether these are the names of the files of a linear model."""
    return LINEAR in files


def created_by() -> dict[str, str]:
    """This program and the libraries that compute, with their versions: what made a directory."""
    names = ("torch", "transformers", "tokenizers", "scikit-learn")
    libraries = {name: version(name) for name in names}
    return {"loraworks": __version__, **libraries}


def save(directory: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest alone, atomically; its list of files must be right already."""
    unfinished = directory / f".{MANIFEST}"
    with unfinished.open("x", encoding="utf-8") as file:  # never through a link that lies there
        json.dump(manifest, file, indent=1, allow_nan=False, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(directory / MANIFEST)


def read(directory: Path) -> dict[str, Any]:
    """The manifest without checking the files. Raises `ArtifactCorrupt` if there is none.

    A file that cannot be read is no damage: such an `OSError` is raised as it is.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        _ = [facts["sha256"] for facts in manifest["files"].values()]
    except (*_NOT_THERE, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ArtifactCorrupt(path=directory.name, problem="no readable manifest.json") from error
    return dict(manifest)


def verify(directory: Path, only: Collection[str] | None = None) -> dict[str, Any]:
    """The manifest, once every file matches it, or those of these names. Raises `ArtifactCorrupt`.

    No file may be missing or extra in either case.
    """
    manifest = read(directory)
    found = _names(directory) - {MANIFEST}
    if odd := found.symmetric_difference(manifest["files"]):
        raise ArtifactCorrupt(path=directory.name, problem=f"missing or extra: {sorted(odd)[0]}")
    for name, facts in manifest["files"].items():
        if only is not None and name not in only:
            continue
        path = directory / name
        if path.is_symlink() or sha256(path) != facts["sha256"]:
            raise ArtifactCorrupt(path=directory.name, problem=f"{name} has changed")
    return manifest


def _names(directory: Path) -> set[str]:
    """Every file and link. To `rglob` a folder that cannot be listed would be an empty one."""
    return {
        path.relative_to(directory).as_posix()
        for folder, folders, files in os.walk(directory, onerror=_raise)
        for path in (Path(folder, name) for name in (*folders, *files))
        if path.is_symlink() or path.is_file()
    }


def _raise(error: OSError) -> None:
    raise error
