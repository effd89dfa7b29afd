"""How fast the engines of this machine answer a version: measured once, then read from a file."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

from lora_core import cpu, manifest
from lora_core.inference.predictor import Predictor
from lora_core.process import cores
from lora_core.saved_predictions import load_golden

LIBRARIES = ("loraworks", "torch", "transformers")
ROUNDS = 2  # after one that is not counted; the faster counts


def tokens_per_second(
    folder: Path,
    directory: Path,
    names: Iterable[str],
    load: Callable[[str], Predictor],
    *,
    shared: bool,
) -> Mapping[str, float]:
    """Engine -> tokens a second, the fastest first, for an artifact. `folder` keeps the figures.

    Versions that share a network share them: it is the network that takes the time. `shared`:
    whether the artifact may be one of those, by the digest of its base.
    """
    file = folder / f"{_key(directory, names, shared=shared)}.json"
    try:
        known: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))["tokens_per_second"]
    except (OSError, ValueError, KeyError):
        texts, _ = load_golden(directory)
        found = {name: round(_measured(load(name), texts), 1) for name in names}
        known = dict(sorted(found.items(), key=lambda pair: -pair[1]))
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{time.monotonic_ns()}")
        facts = {"processor": cpu.model(), "tokens_per_second": known}
        unfinished.write_text(json.dumps(facts), encoding="utf-8")
        unfinished.replace(file)
    return known


def _measured(predictor: Predictor, texts: list[str]) -> float:
    items = predictor.encode(texts)
    predictor.forward(items)
    best = min(_seconds(lambda: predictor.forward(items)) for _ in range(ROUNDS))
    return sum(item.length for item in items) / best


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _key(directory: Path, names: Iterable[str], *, shared: bool) -> str:
    """What the figures depend on: network, engines, machine, versions."""
    base = manifest.read(directory).get("base_sha256") if shared else None
    network = base or manifest.sha256(directory / manifest.MANIFEST)
    machine = [cpu.model(), *cpu.instructions(), str(cores())]
    parts = [network, *sorted(names), *machine, *(version(name) for name in LIBRARIES)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
