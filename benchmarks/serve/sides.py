"""How each server is started and queried. All get the same checkpoint and all cores."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.child_process import ROOT
from benchmarks.serve import checkpoint
from benchmarks.serve.server_process import free_port
from benchmarks.serve.target import Target
from lora_core.cpu import has_fast_bf16
from lora_core.process_settings import available_cores

BIN = ROOT / ".venv-competitors" / "bin"
HERE = Path(__file__).parent / "competitors"
LIBRARIES = (
    "litserve", "infinity-emb", "transformers", "torch", "fastapi", "uvicorn", "tokenizers",
)  # fmt: skip

PRECISION = {"pipeline": "precision", "litserve": "precision", "infinity": "dtype"}  # option


@dataclass(frozen=True)
class Side:
    """A server that is not started yet."""

    python: Path  # of its environment
    words: Sequence[str]
    target: Target
    environment: Mapping[str, str] = field(default_factory=dict)


def ours(folder: Path, *, paths: Sequence[str] = ("/predict",), keys: Sequence[str] = ()) -> Side:
    """The service as it is installed, on a data folder with models."""
    port, python = free_port(), Path(sys.executable)
    words = [str(python), "-m", "app.cli.main", "api", "--port", str(port)]
    target = Target(port, tuple(paths), keys=tuple(keys))
    environment = {"LORAWORKS_AUTH": "on" if keys else "off"}
    return Side(python, [*words, "--data-dir", str(folder)], target, environment)


def tunings(name: str) -> list[str]:
    """Settings of a competitor worth trying, the most promising first, in bf16 where faster.

    A text on each core needs neither padding nor waiting for the other core; a batch on all cores
    is what the guides recommend. docs/explanation/speed-of-serving.md lists what else was tried.
    """
    n, precision = available_cores(), "bfloat16" if has_fast_bf16() else "float32"
    settings = {
        "pipeline": [f"--threads 1 --at-once {n}", f"--threads {n} --at-once 1"],
        "litserve": [
            f"--threads 1 --workers {n} --batch 1 --wait 0",
            f"--threads {n} --workers 1 --batch 8 --wait 0.01",
        ],
        "infinity": ["--batch-size 4", "--batch-size 8"],
    }[name]
    return [f"--{PRECISION[name]} {precision} {each}" for each in settings]


def plain(name: str) -> str:
    """The default settings of a competitor."""
    n = available_cores()
    return {
        "pipeline": f"--precision float32 --threads {n} --at-once 40",
        "litserve": f"--precision float32 --threads {n} --workers 1 --batch 1 --wait 0",
        "infinity": "--dtype float32 --batch-size 32",
    }[name]


def competitor(name: str, tuning: str) -> Side:
    """One of `plan.COMPETITORS` with settings of `tunings` or `plain`."""
    port, model = free_port(), str(checkpoint.merged())
    if name == "infinity":
        words = "v2 --engine torch --device cpu --no-bettertransformer --no-model-warmup"
        words += f" --served-model-name reviews --host 127.0.0.1 --port {port}"
        command = [str(BIN / "infinity_emb"), *words.split(), "--model-id", model]
        target = Target(port, ("/classify",), '{"model":"reviews","input":[', "]}")
        python = BIN / "python"
    else:
        python = Path(sys.executable) if name == "pipeline" else BIN / "python"
        server = [str(python), str(HERE / f"{name}_server.py")]
        command = [*server, "--port", str(port), "--model", model]
        target = Target(port)
    offline = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    return Side(python, [*command, *tuning.split()], target, offline)


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
