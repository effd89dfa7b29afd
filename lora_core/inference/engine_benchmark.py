"""Benchmark of the engines of this machine on an artifact, with results cached in a file."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from lora_core import cpu, manifest
from lora_core.artifact_base_sharing import BASE_DIGEST
from lora_core.errors.artifact import EngineUnavailable
from lora_core.fast.native.build import source_digest
from lora_core.inference.predictor import Predictor
from lora_core.process_settings import available_cores
from lora_core.saved_predictions import load_golden_predictions
from lora_core.specs.text_input import TextInput

_Speeds = dict[str, float | None]  # None: the engine does not compute such an encoder
_LIBRARIES = ("loraworks", "torch", "transformers")
_ROUNDS = 2  # after a warm-up round; the fastest counts

log = logging.getLogger(__name__)


def benchmark_engines(
    cache_dir: Path,
    directory: Path,
    engine_names: Sequence[str],
    load: Callable[[str], Predictor],
    *,
    shared: bool,
) -> Mapping[str, float]:
    """Return engine -> tokens per second on an artifact, fastest first.

    Engines that do not compute such an encoder are left out. So are those that fail, which are
    tried again at the next call. If all fail, the error of the last one is raised.

    Args:
        cache_dir: Folder that keeps the results.
        directory: The artifact.
        engine_names: The engines to benchmark.
        load: Loads the artifact on an engine.
        shared: Whether versions with the same base share an encoder, and so the results: it is the
            encoder that takes the time.
    """
    file = cache_dir / f"{_cache_key(directory, engine_names, shared=shared)}.json"
    try:
        speeds: _Speeds = json.loads(file.read_text(encoding="utf-8"))["tokens_per_second"]
    except (OSError, ValueError, KeyError):
        speeds = _measure(directory, engine_names, load)
        if len(speeds) == len(engine_names):
            _save(file, speeds)
    measured = {name: speed for name, speed in speeds.items() if speed is not None}
    return dict(sorted(measured.items(), key=lambda item: -item[1]))


def _measure(
    directory: Path, engine_names: Sequence[str], load: Callable[[str], Predictor]
) -> _Speeds:
    texts, _ = load_golden_predictions(directory)
    speeds: _Speeds = {}
    for name in engine_names:
        try:
            speeds[name] = round(_tokens_per_second(load(name), texts), 1)
        except Exception as error:
            if not any(speeds.values()) and name == engine_names[-1]:
                raise
            if isinstance(error, EngineUnavailable):
                speeds[name] = None
            else:
                log.warning("Engine %s failed its benchmark.", name, exc_info=True)
    return speeds


def _save(file: Path, speeds: _Speeds) -> None:
    """Save the results. Failure only means that the next process measures again."""
    content = {"processor": cpu.model_name(), "tokens_per_second": speeds}
    unfinished = file.with_suffix(f".{time.monotonic_ns()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(content), encoding="utf-8")
        unfinished.replace(file)
    except OSError as error:
        log.warning("The benchmark of the engines was not saved: %s", error)


def _tokens_per_second(predictor: Predictor, texts: Sequence[TextInput]) -> float:
    items = predictor.encode(texts)
    predictor.forward(items)
    best = min(_timed(lambda: predictor.forward(items)) for _ in range(_ROUNDS))
    return sum(item.length for item in items) / best


def _timed(work: Callable[[], object]) -> float:
    """Run `work` and return the seconds it took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _cache_key(directory: Path, engine_names: Sequence[str], *, shared: bool) -> str:
    """Return a digest of all that the speeds depend on: encoder, engines, machine, versions."""
    manifest_data = manifest.read(directory)
    base = manifest_data.get(BASE_DIGEST) or manifest_data.get("base_sha256") if shared else None
    encoder = base or manifest.file_sha256(directory / manifest.MANIFEST_FILE)
    machine = [cpu.model_name(), *cpu.numeric_instruction_sets(), str(available_cores())]
    libraries = (version(name) for name in _LIBRARIES)
    parts = [encoder, *sorted(engine_names), *machine, *libraries, source_digest()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
