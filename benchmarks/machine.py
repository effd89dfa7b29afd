"""Processor, library versions and commit, which results depend on."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from lora_core.cpu import cpuinfo_values, model_name, numeric_instruction_sets

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "numpy", "scikit-learn")
# Instructions that decide the speed of matrix products, weakest first.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def processor() -> str:
    """Such as "AMD EPYC, family 25, avx512_bf16": the last is the strongest of its instructions.

    Makers give one name to several generations; AMD's Zen 4 is of family 25, its Zen 5 of 26.
    """
    families = [f"family {family}" for family in cpuinfo_values("cpu family")]
    return ", ".join([model_name(), *families, *flags()[-1:]])


def flags() -> list[str]:
    """Those of `INSTRUCTIONS` that the processor supports."""
    there = numeric_instruction_sets()
    return [flag for flag in INSTRUCTIONS if flag in there]


def versions() -> dict[str, str]:
    """Name → version of Python, this project and the libraries."""
    found = {name: version(name) for name in ("loraworks", *LIBRARIES)}
    return {"python": platform.python_version(), **found}


def commit() -> str:
    """The commit that is checked out, with "+" if more than results has changed since.

    "unknown" without git.
    """
    try:
        _, head, changed = (
            subprocess.run(
                ["git", *words],  # noqa: S607
                cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True,
            ).stdout
            for words in (
                ("ls-files", "--error-unmatch", "benchmarks"),  # or it is another repository
                ("rev-parse", "HEAD"),
                ("status", "--porcelain", "--", ".", ":!benchmarks/results"),
            )
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + "+" * bool(changed)
