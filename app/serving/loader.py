"""From the files of a version to one that answers. Where the service loads torch, or scikit-learn
alone for a linear model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import structlog

from app.serving.linear import AnyPredictor, LinearPredictor
from lora_core import manifest
from lora_core.errors.artifact import EngineDisagrees
from lora_core.imports import metadata
from lora_core.process import (
    exempt_from_collection,
    importing,
    keep_few_kernels,
    wait_passively,
)

if TYPE_CHECKING:
    from lora_core.inference.networks import Networks

AUTO = "auto"

log = structlog.get_logger()


class Loader:
    """Loads versions for one engine, or for the fastest that is true to each."""

    def __init__(self, engine: str, speeds: Path) -> None:
        self._engine = engine
        self._speeds = speeds  # folder
        self._networks: Networks | None = None
        self._first = Lock()

    def __call__(self, directory: Path, *, imported: bool) -> AnyPredictor:
        """Raises `ArtifactCorrupt`, `EngineDisagrees`, `EngineMissing`, and for an imported version
        `ArtifactUnfit`, `TokenizerUnfit`.

        An imported version gets an engine of its own: the base that its manifest names is only a
        claim, and whoever loads first would compute the answers of all others. It is held again to
        what an import may contain, since it may have come in before those rules.
        """
        if imported:
            metadata.read(directory)
        if manifest.is_linear(manifest.read(directory)["files"]):
            return _linear(directory)
        wait_passively()
        keep_few_kernels()
        with importing():
            from lora_core.inference import golden
            from lora_core.inference.engines import candidates, use_one_core
            from lora_core.inference.networks import Networks
            from lora_core.inference.predictor import Predictor as Loaded
            from lora_core.inference.speeds import tokens_per_second

        use_one_core()
        with self._first:
            self._networks = self._networks or Networks()
        networks = None if imported else self._networks

        def load(name: str) -> Loaded:
            return Loaded.load(directory, engine=name, networks=networks)

        speeds: Mapping[str, float] = {self._engine: 0.0}
        if self._engine == AUTO:
            known, shared = self._speeds, not imported
            speeds = tokens_per_second(known, directory, candidates(), load, shared=shared)
        for name in speeds:
            predictor = load(name)
            try:
                golden.check(predictor, directory)
            except EngineDisagrees as error:
                refused = error
                log.warning("engine_disagrees", model=directory.name, reason=str(error))
            else:
                exempt_from_collection()  # what torch and transformers keep for good is there now
                return replace(predictor, speeds=speeds if self._engine == AUTO else {})
        raise refused


def _linear(directory: Path) -> LinearPredictor:
    """One that needs no engine, and no torch. Raises what `Loader` raises."""
    with importing():
        from lora_core.inference import golden
        from lora_core.inference.linear import LinearPredictor as Loaded

    predictor = Loaded.load(directory)
    golden.check(predictor, directory)
    return predictor
