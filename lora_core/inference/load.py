"""Load the predictor of an artifact of either kind, importing torch only if it needs it."""

from pathlib import Path
from typing import TYPE_CHECKING

from lora_core import manifest
from lora_core.inference.linear import LinearPredictor
from lora_core.process_settings import imports_without_gc

if TYPE_CHECKING:
    from lora_core.inference.predictor import Predictor


def load_predictor(directory: Path, *, threads: int | None = None) -> "LinearPredictor | Predictor":
    """Load the predictor of an artifact directory.

    `threads` is the number of intra-op threads of torch; a linear model does not import torch.
    Raises `ArtifactCorrupt`, `UnsupportedArtifact`.
    """
    if manifest.is_linear(manifest.read(directory)["files"]):
        return LinearPredictor.load(directory)
    with imports_without_gc():
        import torch

        from lora_core.inference.predictor import Predictor
    if threads is not None:
        torch.set_num_threads(threads)
    return Predictor.load(directory)
