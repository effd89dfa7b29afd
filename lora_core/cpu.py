"""What the system says of the processor."""

import platform
import re
from pathlib import Path

# The instructions that numeric kernels are chosen by; the rest of the flags does not matter.
_NUMERIC = re.compile(r"(s?sse|avx|fma|f16c|amx|asimd|sve|bf16|i8mm)\w*")
_CPUINFO = Path("/proc/cpuinfo")


def facts(*names: str) -> list[str]:
    """Those values of `/proc/cpuinfo`, of the first processor in it."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    pairs = [line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line]
    return [value.strip() for name, value in pairs if name.strip() in names]


def model() -> str:
    """Its name as its maker tells it."""
    return " ".join(facts("model name")) or platform.processor() or platform.machine()


def instructions() -> list[str]:
    """Those for numbers, such as `avx2` and `amx_bf16`."""
    flags = " ".join(facts("flags", "Features")).split()
    return sorted({flag for flag in flags if _NUMERIC.fullmatch(flag)})


def has_fast_bf16() -> bool:
    """Whether a product of matrices is faster in bfloat16 than in float32.

    It is with a matrix unit (AMX). AVX512-BF16 doubles the speed on AMD's cores and halves it on
    Intel's (docs/decisions/0006). Elsewhere bfloat16 is emulated, many times slower.
    """
    there = instructions()
    return "amx_bf16" in there or ("avx512_bf16" in there and "AuthenticAMD" in facts("vendor_id"))
