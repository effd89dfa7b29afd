"""The merged model of an artifact, as plain transformers loads it."""

from pathlib import Path

from lora_core.export.hugging_face import export_merged


def plain_checkpoint(artifact: Path) -> Path:
    """Return the directory of the checkpoint, next to the artifact."""
    out = artifact.with_name(f"{artifact.name}-plain")
    if not out.exists():
        export_merged(artifact, out)
    return out
