"""Describe the environment of a run: what, besides the spec, decides the last bits of a result.

With another version, processor or number of threads, sums are computed in another order. Such a
run is just as good, but its numbers differ.
"""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch

from lora_core import __version__, cpu
from lora_core.fast import unfused_attention
from lora_core.fast.native.library import best_library
from lora_core.runtime import Runtime
from lora_core.training_version import TRAINING_VERSION

_DETERMINISTIC = ("no", "where_possible", "yes")  # indexed by the debug mode that torch returns
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")
# Kernels also depend on the CPU model: its caches decide how they split their work.
_CPU_MODEL_FIELDS = ("vendor_id", "cpu family", "model", "model name", "stepping")


def describe_environment(
    runtime: Runtime, micro_batch_tokens: int, processes: int = 1
) -> dict[str, str]:
    """Return the facts that numbers depend on, for a run with these settings on this machine."""
    facts = {
        "loraworks": __version__,
        "training": str(TRAINING_VERSION),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "processor": " ".join(cpu.cpuinfo_values(*_CPU_MODEL_FIELDS)) or cpu.model_name(),
        "instructions": " ".join(cpu.numeric_instruction_sets()),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "threads": str(runtime.threads),
        "device": "cpu",
        "precision": runtime.precision,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": _DETERMINISTIC[torch.get_deterministic_debug_mode()],
        "micro_batch_tokens": str(micro_batch_tokens),
    }
    if unfused_attention.is_faster(runtime.device, runtime.precision):
        facts["attention"] = f"unfused in steps of {unfused_attention.LENGTH_STEP}"
        if (library := best_library()) is not None:
            facts["attention"] = f"native {library.name}"
    if processes > 1:
        facts["processes"] = str(processes)
    if runtime.device != "cpu":
        facts["device"] = torch.cuda.get_device_name(runtime.device)
        facts["driver"] = _gpu_driver()
    return facts


def describe_environment_changes(saved: Mapping[str, str], current: Mapping[str, str]) -> list[str]:
    """Return short texts such as "threads 2 → 1". An empty list means identical numbers."""
    # A single process, and the first training version, are not recorded.
    saved, current = ({"processes": "1", "training": "1", **facts} for facts in (saved, current))
    names = [*current, *(name for name in saved if name not in current)]
    pairs = [(name, saved.get(name, ""), current.get(name, "")) for name in names]
    return [
        f"{name} {_words_not_in(a, b)} → {_words_not_in(b, a)}" for name, a, b in pairs if a != b
    ]


def _words_not_in(text: str, other: str) -> str:
    """Return the words that the other text lacks, since the lists may be long."""
    return " ".join(word for word in text.split() if word not in other.split()) or "none"


def _gpu_driver() -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.partition("\n")[0]
