"""The compiled variants of the native engine that this machine runs."""

import os
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from lora_core import cpu
from lora_core.fast.native.build import VARIANTS, compile_variant, library_file
from lora_core.fast.native.library import Library

ONLY = "NATIVE_LIBRARY"  # environment variable: the file of the one library to test


@cache
def libraries() -> Mapping[str, Library]:
    """Return the library of each variant that this machine runs; the portable one runs everywhere.

    Raises `CompilerMissing`.
    """
    if ONLY in os.environ:
        return {ONLY: Library(Path(os.environ[ONLY]))}
    available = set(cpu.numeric_instruction_sets())
    built = {}
    with tempfile.TemporaryDirectory() as folder:
        for variant, (needs, _) in VARIANTS.items():
            if available.issuperset(needs):
                file = library_file(variant)  # that `make` has built
                if not file.exists():
                    file = Path(folder, f"{variant}.so")
                    compile_variant(variant, file)
                built[variant] = Library(file)  # the process keeps it, the folder may go
    return {variant: library for variant, library in built.items() if library.is_usable}
