"""What a stored directory holds, and whether that is still what was put in."""

from pathlib import Path
from typing import Any

from app.artifacts.errors import ArtifactDamaged
from app.artifacts.store import ArtifactStore
from lora_core import manifest
from lora_core.errors import ArtifactCorrupt


def described(store: ArtifactStore, *, key: str, name: str) -> tuple[Path, dict[str, Any]]:
    """Directory and manifest, unchecked. Raises `ArtifactDamaged`, which speaks of `name`."""
    try:
        directory = store.path(key)
        return directory, manifest.read(directory)
    except ArtifactCorrupt as error:
        raise ArtifactDamaged(name=name, problem=error.detail["problem"]) from error


def verified(
    store: ArtifactStore, *, key: str, manifest_sha256: str, name: str
) -> tuple[Path, dict[str, Any]]:
    """The same, once every byte has been read and matches. Raises `ArtifactDamaged`."""
    directory, _ = described(store, key=key, name=name)
    try:
        facts = manifest.verify(directory)
    except ArtifactCorrupt as error:
        raise ArtifactDamaged(name=name, problem=error.detail["problem"]) from error
    if manifest.sha256(directory / manifest.MANIFEST) != manifest_sha256:
        raise ArtifactDamaged(name=name, problem="manifest.json has changed")
    return directory, facts


def plain_file(directory: Path, name: str) -> Path | None:
    """A file below `directory` with no link on the way, or None. A training process wrote names."""
    path = directory / name
    inside = path.is_relative_to(directory) and path.resolve() == path
    return path if inside and path.is_file() else None
