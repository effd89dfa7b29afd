"""What besides the spec decides the last bits of a result, and how two environments differ.

Another version, processor or number of threads adds up in another order. Such a run is as good,
but its numbers are different.
"""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch

from lora_core import __version__, cpu
from lora_core.fast import unfused_attention
from lora_core.runtime import Runtime
from lora_core.training_version import TRAINING_VERSION

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
