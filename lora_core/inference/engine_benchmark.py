"""Benchmark of the engines of this machine on an artifact, with results cached in a file."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

from lora_core import cpu, manifest
from lora_core.inference.predictor import Predictor
from lora_core.process import available_cores
from lora_core.saved_predictions import load_golden

LIBRARIES = ("loraworks", "torch", "transformers")
ROUNDS = 2  # after a warm-up round; the fastest counts


def benchmark_engines(
    cache_dir: Path,
    directory: Path,
    engine_names: Iterable[str],
    load: Callable[[str], Predictor],
    *,
    shared: bool,
) -> Mapping[str, float]:
    """Return engine -> tokens per second on an artifact, fastest first.

    Args:
        cache_dir: Folder that keeps the results.
        directory: The artifact.
        engine_names: The engines to benchmark.
        load: Loads the artifact on an engine.
        shared: Whether versions with the same base digest share an encoder, and so the results:
            it is the encoder that takes the time.
    """
    file = cache_dir / f"{_cache_key(directory, engine_names, shared=shared)}.json"
    try:
        speeds: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))["tokens_per_second"]
    except (OSError, ValueError, KeyError):
        texts, _ = load_golden(directory)
        measured = {name: round(_tokens_per_second(load(name), texts), 1) for name in engine_names}
        speeds = dict(sorted(measured.items(), key=lambda item: -item[1]))
        cache_dir.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{time.monotonic_ns()}")
        content = {"processor": cpu.model_name(), "tokens_per_second": speeds}
        unfinished.write_text(json.dumps(content), encoding="utf-8")
        unfinished.replace(file)
    return speeds


def _tokens_per_second(predictor: Predictor, texts: list[str]) -> float:
    items = predictor.encode(texts)
    predictor.forward(items)
    best = min(_timed(lambda: predictor.forward(items)) for _ in range(ROUNDS))
    return sum(item.length for item in items) / best


def _timed(work: Callable[[], object]) -> float:
    """Run `work` and return the seconds it took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _cache_key(directory: Path, engine_names: Iterable[str], *, shared: bool) -> str:
    """Return a digest of all that the speeds depend on: encoder, engines, machine, versions."""
    base = manifest.read(directory).get("base_sha256") if shared else None
    encoder = base or manifest.sha256(directory / manifest.MANIFEST)
    machine = [cpu.model_name(), *cpu.instruction_sets(), str(available_cores())]
    libraries = (version(name) for name in LIBRARIES)
    parts = [encoder, *sorted(engine_names), *machine, *libraries]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
