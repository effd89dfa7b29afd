"""Load the predictor of an artifact of either kind, importing torch only if it needs it."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lora_core import cpu, manifest
from lora_core.errors.artifact import EngineOutputMismatch, EngineUnavailable
from lora_core.inference.linear import LinearPredictor
from lora_core.process_settings import disable_gc_then_freeze_imports

if TYPE_CHECKING:
    from lora_core.inference.predictor import Predictor


def load_predictor(directory: Path, *, engine: str = "torch-fp32") -> "LinearPredictor | Predictor":
    """Load the predictor of an artifact directory; a linear model has one engine.

    Raises `ArtifactCorrupt`, `EngineUnavailable`, `InvalidImportedModel`.
    """
    if manifest.is_linear(manifest.read(directory)["files"]):
        return LinearPredictor.load(directory)
    with disable_gc_then_freeze_imports():
        from lora_core.inference.predictor import Predictor
    return Predictor.load(directory, engine=engine)


def load_native_or_torch_predictor(
    directory: Path, *, threads: int | None = None
) -> "LinearPredictor | Predictor":
    """Load the predictor of an artifact for many texts.

    That is the native engine if bf16 is fast here, it was built, computes such an encoder and
    reproduces the golden predictions. Where bf16 is slow, it gains nothing over fp32
    (docs/decisions/0069). Otherwise torch computes in float32, fast encoders by oneDNN, which is as
    fast as MKL on Intel cores and faster on AMD's. `auto` measures it; here a resumed run might
    then find another engine, and predict all rows again.

    `threads` is the number of intra-op threads of torch; a linear model does not import torch.
    Raises `ArtifactCorrupt`, `InvalidImportedModel`.
    """
    if manifest.is_linear(manifest.read(directory)["files"]):
        return LinearPredictor.load(directory)
    with disable_gc_then_freeze_imports():
        import torch

        from lora_core.saved_predictions import check_golden_predictions
    if threads is not None:
        torch.set_num_threads(threads)
    for engine in (*["native-bf16"] * cpu.has_fast_bf16(), "onednn-fp32"):
        with suppress(EngineUnavailable, EngineOutputMismatch):
            predictor = load_predictor(directory, engine=engine)
            check_golden_predictions(predictor, directory)
            return predictor
    return load_predictor(directory)


def describe_engine_build(predictor: "LinearPredictor | Predictor") -> str:
    """Return what the bits of predictions depend on: the engine, and what was built of it."""
    name = predictor.engine.name
    if not name.startswith("native"):
        return name
    from lora_core.fast.native.library import best_library

    library = best_library()
    return name if library is None else f"{name} {library.name}"
