"""Loads predictors from artifact directories: the place where the service imports torch.

For a linear model it imports only scikit-learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import structlog

from app.serving.linear import AnyPredictor, LinearPredictorProtocol
from lora_core import manifest
from lora_core.errors.artifact import EngineMismatch
from lora_core.imports.metadata import read_metadata
from lora_core.process import (
    freeze_gc,
    imports_without_gc,
    limit_kernel_cache,
    limit_openmp_spinning,
)

if TYPE_CHECKING:
    from lora_core.inference.engine_cache import EngineCache

AUTO = "auto"

log = structlog.get_logger()


class ModelLoader:
    """Loads versions on one engine, or with `auto` on the fastest that passes the check of each.

    `benchmark_dir` keeps the results of the engine benchmarks.
    """

    def __init__(self, engine: str, benchmark_dir: Path) -> None:
        self._engine = engine
        self._benchmark_dir = benchmark_dir
        self._engine_cache: EngineCache | None = None
        self._engine_cache_lock = Lock()

    def __call__(self, directory: Path, *, imported: bool) -> AnyPredictor:
        """Load an artifact and check that it reproduces its reference logits.

        An imported version gets an engine of its own: the base that its manifest names is only a
        claim, and with a shared engine the first one loaded would compute the predictions of all
        others. It has to pass the import checks again, because it may have been imported before
        they existed.

        Raises `ArtifactCorrupt`, `EngineMismatch`, `EngineUnavailable`, and for an imported version
        `UnsupportedArtifact`, `UnsupportedTokenizer`.
        """
        if imported:
            read_metadata(directory)
        if manifest.is_linear(manifest.read(directory)["files"]):
            return _load_linear(directory)
        limit_openmp_spinning()
        limit_kernel_cache()
        with imports_without_gc():
            from lora_core.inference.engine_benchmark import benchmark_engines
            from lora_core.inference.engine_cache import EngineCache
            from lora_core.inference.engines import auto_candidates, use_single_thread
            from lora_core.inference.predictor import Predictor
            from lora_core.inference.reference_logits import check_reference_logits

        use_single_thread()
        with self._engine_cache_lock:
            self._engine_cache = self._engine_cache or EngineCache()
        engine_cache = None if imported else self._engine_cache

        def load(engine: str) -> Predictor:
            return Predictor.load(directory, engine=engine, engine_cache=engine_cache)

        speeds: Mapping[str, float] = {self._engine: 0.0}
        if self._engine == AUTO:
            speeds = benchmark_engines(
                self._benchmark_dir, directory, auto_candidates(), load, shared=not imported
            )
        for engine in speeds:
            predictor = load(engine)
            try:
                check_reference_logits(predictor, directory)
            except EngineMismatch as error:
                mismatch = error
                log.warning("engine_disagrees", model=directory.name, reason=str(error))
            else:
                freeze_gc()  # the permanent objects of torch and transformers exist by now
                return replace(predictor, engine_speeds=speeds if self._engine == AUTO else {})
        raise mismatch


def _load_linear(directory: Path) -> LinearPredictorProtocol:
    """Load a linear model, which needs no torch. Raises what `ModelLoader` raises."""
    with imports_without_gc():
        from lora_core.inference.linear import LinearPredictor
        from lora_core.inference.reference_logits import check_reference_logits

    predictor = LinearPredictor.load(directory)
    check_reference_logits(predictor, directory)
    return predictor
