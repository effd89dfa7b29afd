"""Versions that no job made."""

import shutil
from pathlib import Path

from app.database.base import new_id
from app.registry import service as registry
from app.resources import Resources
from lora_core import manifest
from tests.stored_artifact import store_artifact


def add_version(resources: Resources, artifact: Path, work: Path, name: str = "sentiment") -> str:
    """Register a copy of an artifact, promote it, and return its name."""
    facts = manifest.read(artifact)
    copy = Path(shutil.copytree(artifact, work))
    row = store_artifact(resources, copy, f"jobs/{new_id()}/a1", job_id=None)
    with resources.database.write() as session:
        version = registry.add_version(session, name=name, artifact=row, manifest=facts)
        registry.move_alias(session, name=name, alias="production", number=version.number)
    return f"{name}:{version.number}"
