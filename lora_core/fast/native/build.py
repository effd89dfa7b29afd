"""Compiles the native engine: `python -m lora_core.fast.native.build [FOLDER]`.

Part of the installation, never of a request. Without a compiler nothing is built, and models are
computed by torch.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

SOURCE = Path(__file__).parent
BUILD_DIR = SOURCE / "build"

# Variant -> the instruction sets of /proc/cpuinfo that it needs, and the flags that turn them on.
# Fastest last.
_AVX512 = ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_bf16")
_AVX512_FLAGS = ("-march=x86-64-v4", "-mavx512bf16")
VARIANTS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "portable": ((), ()),
    "avx512": (_AVX512, _AVX512_FLAGS),
    "amx": (
        (*_AVX512, "amx_bf16", "amx_tile"),
        (*_AVX512_FLAGS, "-mamx-tile", "-mamx-bf16"),
    ),
}
_FLAGS = (
    "-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-fno-math-errno", "-fno-trapping-math",
    "-mprefer-vector-width=512", "-Wno-psabi", "-Wno-ignored-attributes",
)  # fmt: skip
_FALLBACK = "Models are computed by torch."
SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


class CompilerMissing(Exception):
    """There is no C++ compiler."""


class CompilationFailed(Exception):
    """The compiler did not accept the sources or a flag; the message is its own."""


def source_digest() -> str:
    """Return a digest of the sources and flags, which is part of the name of a library.

    The version of the compiler is in the library itself, since there may be none at run time.
    """
    files = sorted([*SOURCE.glob("*.cpp"), *SOURCE.glob("*.h")])
    parts = [*(file.read_bytes() for file in files), repr((_FLAGS, VARIANTS)).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def library_file(variant: str, folder: Path | None = None) -> Path:
    """Return where the library of a variant is, if it was built."""
    return (folder or BUILD_DIR) / f"{variant}-{source_digest()}.so"


def compile_variant(variant: str, target: Path, extra_flags: Sequence[str] = ()) -> None:
    """Compile one variant to `target`.

    Raises `CompilerMissing`, `CompilationFailed`.
    """
    program, *arguments = os.environ.get("CXX", "").split() or ["g++"]  # such as `ccache g++`
    compiler = shutil.which(program)
    if compiler is None:
        raise CompilerMissing
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        unfinished = Path(temporary, target.name)
        command = [compiler, *arguments, *_FLAGS, *VARIANTS[variant][1], *extra_flags,
                   "-o", str(unfinished), *map(str, sorted(SOURCE.glob("*.cpp")))]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise CompilationFailed(result.stderr.strip() or f"{compiler} failed")
        unfinished.replace(target)  # a process may have the one before in memory


def main(arguments: Sequence[str]) -> int:
    """Build the variants for this kind of processor, into a folder if one is given.

    Prints one line that says what was built, or why nothing was.
    """
    folder = Path(arguments[0]) if arguments else BUILD_DIR
    if platform.machine() not in ("x86_64", "AMD64"):
        print(f"Native engine: not built, because it is for x86-64 processors. {_FALLBACK}")
        return 0
    built: list[str] = []
    for variant in (name for name in VARIANTS if name != "portable"):
        try:
            compile_variant(variant, library_file(variant, folder))
        except CompilerMissing:
            print(f"Native engine: not built, because there is no C++ compiler (g++). {_FALLBACK}")
            return 0
        except (CompilationFailed, OSError) as error:
            print(f"Native engine: {variant} was not built: {_reason(str(error))}")
        else:
            built.append(variant)
    for variant in built:
        for file in set(folder.glob(f"{variant}-*.so")) - {library_file(variant, folder)}:
            file.unlink()  # of older sources
    print(f"Native engine: built for {' and '.join(built)}." if built else
          f"Native engine: not built. {_FALLBACK}")  # fmt: skip
    return 0


def _reason(message: str) -> str:
    """Return the line of a compiler's message that names the error."""
    lines = message.splitlines()
    return next((line for line in lines if "error" in line), lines[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
