"""How each server is started and asked. All get the same checkpoint and all cores."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.apart import ROOT
from benchmarks.serving import checkpoint
from benchmarks.serving.started import free_port
from benchmarks.serving.target import Target
from lora_core.processor import has_fast_bf16

BIN = ROOT / ".venv-rivals" / "bin"
HERE = Path(__file__).parent / "rivals"
LIBRARIES = (
    "litserve", "infinity-emb", "transformers", "torch", "fastapi", "uvicorn", "tokenizers",
)  # fmt: skip


@dataclass(frozen=True)
class Side:
    """A server that is not started yet."""

    python: Path  # of its environment
    words: Sequence[str]
    target: Target
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: str = ""  # by which it was tuned


def cores() -> int:
    """That this process and its children may use."""
    return len(os.sched_getaffinity(0))


def ours(folder: Path, *, paths: Sequence[str] = ("/predict",), keys: Sequence[str] = ()) -> Side:
    """The service as it is installed, on a data folder with models."""
    port, python = free_port(), Path(sys.executable)
    words = [str(python), "-m", "app.cli.main", "api", "--port", str(port)]
    target = Target(port, tuple(paths), keys=tuple(keys))
    environment = {"LORAWORKS_AUTH": "on" if keys else "off"}
    return Side(python, [*words, "--data-dir", str(folder)], target, environment)


def rival(name: str) -> Side:
    """As well tuned as we know; what else was tried is told in docs/serving.md."""
    return {"pipeline": _pipeline, "litserve": _litserve, "infinity": _infinity}[name]()


def _pipeline() -> Side:
    port = free_port()
    settings = ["--precision", _precision(), "--threads", "1", "--at-once", str(cores())]
    return _script(Path(sys.executable), "pipeline_server.py", settings, port)


def _litserve() -> Side:
    port = free_port()
    settings = ["--precision", _precision(), "--threads", str(cores()), "--workers", "1"]
    settings += ["--batch", "8", "--wait", "0.01"]
    return _script(BIN / "python", "litserve_server.py", settings, port)


def _infinity() -> Side:
    port = free_port()
    settings = ["--engine", "torch", "--dtype", _precision(), "--batch-size", "8"]
    settings += ["--no-bettertransformer", "--no-model-warmup"]
    words = [str(BIN / "infinity_emb"), "v2", "--model-id", str(checkpoint.merged()), "--device"]
    words += ["cpu", "--served-model-name", "reviews", "--port", str(port), "--host", "127.0.0.1"]
    target = Target(port, ("/classify",), '{"model":"reviews","input":[', "]}")
    environment = {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "INFINITY_LOG_LEVEL": "warning"}
    return Side(BIN / "python", [*words, *settings], target, environment, " ".join(settings))


def _script(python: Path, file: str, settings: Sequence[str], port: int) -> Side:
    words = [str(python), str(HERE / file), "--model", str(checkpoint.merged()), "--port"]
    environment = {"HF_HUB_OFFLINE": "1"}
    words = [*words, str(port), *settings]
    return Side(python, words, Target(port), environment, " ".join(settings))


def _precision() -> str:
    return "bfloat16" if has_fast_bf16() else "float32"


def libraries(python: Path) -> dict[str, str]:
    """Name → version of those of `LIBRARIES` that an environment has."""
    program = (
        "import json, sys; from importlib.metadata import distributions as found;"
        "print(json.dumps({d.name: d.version for d in found() if d.name in sys.argv[1:]}))"
    )
    done = subprocess.run(
        [str(python), "-c", program, *LIBRARIES], check=True, capture_output=True, text=True
    )
    versions: dict[str, str] = json.loads(done.stdout)
    return versions
