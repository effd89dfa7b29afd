"""Versions that no job made."""

import shutil
from pathlib import Path

from app.database.base import new_id
from app.registry import service as registry
from app.resources import Resources
from app.storage import repository as artifacts
from lora_core import manifest


def add_version(resources: Resources, artifact: Path, work: Path, name: str = "sentiment") -> str:
    """Register a copy of an artifact, promote it, and return its name."""
    facts = manifest.read(artifact)
    ref = resources.store.put(Path(shutil.copytree(artifact, work)), f"jobs/{new_id()}/a1")
    with resources.database.write() as session:
        row = artifacts.add_artifact(session, job_id=None, kind="model", ref=ref)
        version = registry.add_version(session, name=name, artifact=row, manifest=facts)
        number = version.number
    registry.move_alias(resources.database, name=name, alias="production", number=number)
    return f"{name}:{number}"
