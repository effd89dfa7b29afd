"""The model and the instruction sets of the CPU."""

import platform
import re
from pathlib import Path

# The instruction sets that numeric kernels are selected by.
_NUMERIC = re.compile(r"(s?sse|avx|fma|f16c|amx|asimd|sve|bf16|i8mm)\w*")
_CPUINFO = Path("/proc/cpuinfo")


def cpuinfo_values(*names: str) -> list[str]:
    """Return the values of these fields of the first processor in `/proc/cpuinfo`."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    pairs = [line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line]
    return [value.strip() for name, value in pairs if name.strip() in names]


def model_name() -> str:
    """Return the name that the manufacturer gives the CPU."""
    return " ".join(cpuinfo_values("model name")) or platform.processor() or platform.machine()


def numeric_instruction_sets() -> list[str]:
    """Return the numeric instruction sets, such as `avx2` and `amx_bf16`."""
    flags = " ".join(cpuinfo_values("flags", "Features")).split()
    return sorted({flag for flag in flags if _NUMERIC.fullmatch(flag)})


def has_fast_bf16() -> bool:
    """Return whether matrix products are faster in bfloat16 than in float32.

    They are with a matrix unit (AMX). AVX512-BF16 doubles the speed on AMD cores and halves it on
    Intel cores (docs/decisions/0006). Elsewhere bfloat16 is emulated and many times slower.
    """
    available = numeric_instruction_sets()
    return "amx_bf16" in available or (
        "avx512_bf16" in available and "AuthenticAMD" in cpuinfo_values("vendor_id")
    )
