"""What a figure depends on besides the code: processor and versions."""

import platform
import re
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "numpy")
# Instructions that decide the speed of matrix products, weakest first.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def processor() -> str:
    """Its name and the strongest of the instructions, such as "AMD EPYC, avx512_bf16"."""
    found = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    name = found[1].strip() if found else platform.processor() or platform.machine()
    return ", ".join([name, *flags()[-1:]])


def flags() -> list[str]:
    """Those of `INSTRUCTIONS` that it has."""
    found = re.search(r"^flags\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return [flag for flag in INSTRUCTIONS if found and flag in found[1].split()]


def versions() -> dict[str, str]:
    """Name → version of Python, this project and the libraries."""
    found = {name: version(name) for name in ("loraworks", *LIBRARIES)}
    return {"python": platform.python_version(), **found}


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
