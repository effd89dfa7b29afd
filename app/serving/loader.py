"""From the files of a version to one that answers. Where the service loads torch."""

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import structlog

from app.serving.deployment import Predictor
from lora_core.errors import EngineDisagrees
from lora_core.process import wait_passively

if TYPE_CHECKING:
    from lora_core.inference.networks import Networks

log = structlog.get_logger()


class Loader:
    """Loads versions for one engine, or for the fastest that is true to each."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._networks: Networks | None = None
        self._first = Lock()

    def __call__(self, directory: Path) -> Predictor:
        """Raises `ArtifactCorrupt`, `EngineDisagrees`."""
        wait_passively()
        from lora_core.inference import golden
        from lora_core.inference.engines import engines
        from lora_core.inference.networks import Networks
        from lora_core.inference.predictor import Predictor as Loaded

        with self._first:
            self._networks = self._networks or Networks()
        names = engines() if self._engine == "auto" else [self._engine]
        for name in names:
            predictor = Loaded.load(directory, engine=name, networks=self._networks)
            try:
                golden.check(predictor, directory)
            except EngineDisagrees as error:
                if name == names[-1]:
                    raise
                log.warning("engine_disagrees", model=directory.name, reason=str(error))
            else:
                return predictor
        raise AssertionError("there is always a last engine")
