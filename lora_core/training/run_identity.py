"""What tells results apart that another program would give.

Raise it with a change after which the same description, data and base give other numbers, beyond
the last bits: a sweep takes no result of another version for its own. `tests/golden` forces that.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch

from lora_core import __version__, cpu
from lora_core.fast import unfused_attention
from lora_core.specs.frozen import Frozen
from lora_core.specs.pooling import Pooling
from lora_core.specs.train import HeadInit, TrainSpec
from lora_core.training import distributed
from lora_core.training.prepare import Prepared
from lora_core.training.runtime import Runtime
from lora_core.training.training_state import own_parameters

TRAINING_VERSION = 4


# MERGED lora_core.training.run_identity
# What besides the spec decides the last bits of a result, and how two places differ in it.
#
# Another version, processor or number of threads adds up in another order. Such a run is as good,
# but its numbers are others.

DETERMINISTIC = ("no", "where_possible", "yes")  # by the number that torch gives it
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")
# Kernels also go by the model: its caches decide how they cut their work.
_WHICH = ("vendor_id", "cpu family", "model", "model name", "stepping")


def here(runtime: Runtime, micro_batch_tokens: int, processes: int = 1) -> dict[str, str]:
    """This place, for a run with these settings."""
    facts = {
        "loraworks": __version__,
        "training": str(TRAINING_VERSION),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "processor": " ".join(cpu.facts(*_WHICH)) or cpu.model(),
        "instructions": " ".join(cpu.instructions()),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "threads": str(runtime.threads),
        "device": "cpu",
        "precision": runtime.precision,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": DETERMINISTIC[torch.get_deterministic_debug_mode()],
        "micro_batch_tokens": str(micro_batch_tokens),
    }
    if unfused_attention.pays(runtime.device, runtime.precision):
        facts["attention"] = f"unfused in steps of {unfused_attention.STEP}"
    if processes > 1:
        facts["processes"] = str(processes)
    if runtime.device != "cpu":
        facts["device"] = torch.cuda.get_device_name(runtime.device)
        facts["driver"] = _driver()
    return facts


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Short texts such as "threads 2 → 1"; empty: the same numbers come out."""
    # Not recorded: one process, whose bits do not depend on it, and the first training version.
    then, now = ({"processes": "1", "training": "1", **facts} for facts in (then, now))
    names = [*now, *(name for name in then if name not in now)]
    pairs = [(name, then.get(name, ""), now.get(name, "")) for name in names]
    return [f"{name} {_only(a, b)} → {_only(b, a)}" for name, a, b in pairs if a != b]


def _only(text: str, other: str) -> str:
    """The words that the other text lacks: of long lists only what differs."""
    return " ".join(word for word in text.split() if word not in other.split()) or "none"


def _driver() -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.partition("\n")[0]


# MERGED lora_core.training.run_identity
# Which run a checkpoint belongs to, and where it was made.


class Origin(Frozen):
    """A run, known by its content: the same data and base may lie elsewhere the next time."""

    spec: TrainSpec  # with every default filled in
    data_sha256: str
    base_sha256: str
    environment: dict[str, str]


def of(prepared: Prepared) -> Origin:
    """The origin of what this run will save."""
    budget = prepared.spec.optim.micro_batch_tokens
    return Origin(
        spec=prepared.spec,
        data_sha256=prepared.splits.digest,
        base_sha256=_base_sha256(prepared),
        environment=here(prepared.runtime, budget, distributed.world_size()),
    )


def foreign(then: Origin, now: Origin) -> str | None:
    """What makes it another run; `None`: it is the same."""
    before, after = _meaning(then), _meaning(now)
    return next((what for what in before if before[what] != after[what]), None)


def digest(origin: Origin) -> str:
    """Names the numbers that come out, down to the last bits."""
    facts = {name: str(value) for name, value in _meaning(origin).items()}
    facts |= {"environment": str(sorted(origin.environment.items()))}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def as_before(spec: TrainSpec, then: TrainSpec) -> TrainSpec:
    """What the spec leaves open is done as the first time, where every machine can do that."""
    then = _completed(then)
    runtime, used = spec.runtime, then.runtime
    optim = spec.optim.model_copy(
        update={
            "epochs": spec.optim.epochs or then.optim.epochs,
            "learning_rate": spec.optim.learning_rate or then.optim.learning_rate,
            "head_learning_rate": spec.optim.head_learning_rate or then.optim.head_learning_rate,
            "batch_size": spec.optim.batch_size or then.optim.batch_size,
        }
    )
    stop = spec.stop.model_copy(update={"select_by": spec.stop.select_by or then.stop.select_by})
    pooling = then.pooling if spec.pooling is Pooling.AUTO else spec.pooling
    head_init = then.head_init if spec.head_init is HeadInit.AUTO else spec.head_init
    settled: dict[str, object] = {}
    if runtime.threads is None:
        settled["threads"] = used.threads
    if (runtime.device, used.device) == ("auto", "cpu"):
        settled["device"] = "cpu"
    if (runtime.precision, used.precision) == ("auto", "fp32"):
        settled["precision"] = "fp32"
    update = {"optim": optim, "stop": stop, "pooling": pooling, "head_init": head_init}
    return spec.model_copy(update={**update, "runtime": runtime.model_copy(update=settled)})


def _meaning(origin: Origin) -> dict[str, object]:
    """All that a result depends on but for its last bits.

    Not the names of base and data, whose content counts, nor how it is computed: that is compared
    as the environment.
    """
    spec = _completed(origin.spec)
    return {
        "method": spec.method,
        "task": spec.task,
        "head_init": spec.head_init,
        "optim": spec.optim.model_copy(update={"micro_batch_tokens": 0}),
        "stop": spec.stop,
        "data.max_length": spec.data.max_length,
        "runtime.seed": spec.runtime.seed,
        "the data": origin.data_sha256,
        "the base model": origin.base_sha256,
    }


def _completed(spec: TrainSpec) -> TrainSpec:
    """The spec of a checkpoint, with what all runs did before there was a choice.

    They read the first token, drew the head at random and trained it at the rate of all.
    """
    optim, found = spec.optim, dict[str, object]()
    if spec.pooling is Pooling.AUTO:
        found["pooling"] = Pooling.CLS
    if spec.head_init is HeadInit.AUTO:
        found["head_init"] = HeadInit.RANDOM
    if optim.head_learning_rate is None:
        found["optim"] = optim.model_copy(update={"head_learning_rate": optim.learning_rate})
    return spec.model_copy(update=found)


def _base_sha256(prepared: Prepared) -> str:
    """Of the tokenizer and of every weight that a checkpoint leaves to the files of the base."""
    digest = hashlib.sha256(prepared.tokenizer_file.read_bytes())
    own = own_parameters(prepared.model, prepared.family)
    for name, parameter in prepared.model.named_parameters():
        if name not in own:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().numpy())
    return digest.hexdigest()
