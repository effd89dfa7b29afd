"""What a figure depends on besides the code: processor and versions."""

import platform
from importlib.metadata import version

from lora_core.processor import instructions, model

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "numpy")
# Instructions that decide the speed of matrix products, weakest first.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def described() -> str:
    """Its name and the strongest of the instructions, such as "AMD EPYC, avx512_bf16"."""
    return ", ".join([model(), *flags()[-1:]])


def flags() -> list[str]:
    """Those of `INSTRUCTIONS` that it has."""
    there = instructions()
    return [flag for flag in INSTRUCTIONS if flag in there]


def versions() -> dict[str, str]:
    """Name → version of Python, this project and the libraries."""
    found = {name: version(name) for name in ("loraworks", *LIBRARIES)}
    return {"python": platform.python_version(), **found}
