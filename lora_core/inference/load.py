"""A model of any kind, from the directory of its artifact."""

from pathlib import Path
from typing import TYPE_CHECKING

from lora_core import manifest
from lora_core.inference.linear import LinearPredictor
from lora_core.process import importing

if TYPE_CHECKING:
    from lora_core.inference.predictor import Predictor


def load(directory: Path, *, threads: int | None = None) -> "LinearPredictor | Predictor":
    """Loads torch only for a model that needs it, which then computes with so many threads.

    Raises `ArtifactCorrupt`, `ArtifactUnfit`.
    """
    if manifest.is_linear(manifest.read(directory)["files"]):
        return LinearPredictor.load(directory)
    with importing():
        import torch

        from lora_core.inference.predictor import Predictor
    if threads is not None:
        torch.set_num_threads(threads)
    return Predictor.load(directory)
