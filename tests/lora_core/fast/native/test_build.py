"""Tests of building the native engine: what is built, and what is reported where it cannot be."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_core import cpu
from lora_core.errors.artifact import EngineUnavailable
from lora_core.fast.native import build
from lora_core.fast.native.library import best_library
from lora_core.inference import engines

NOT_BUILT = "Models are computed by torch.\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(build, "BUILD_DIR", tmp_path / "build")
    best_library.cache_clear()
    yield tmp_path / "build"
    best_library.cache_clear()


@pytest.mark.slow  # compiles each, which takes 3 s
def test_builds_each_variant_and_removes_those_of_older_sources(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir()
    (folder / "avx512-000000000000.so").write_bytes(b"")
    (folder / "another.so").write_bytes(b"")
    assert build.main([]) == 0
    built = [] if shutil.which("g++") is None else ["amx", "avx512"]
    files = sorted(file.name for file in folder.glob("*.so"))
    assert "avx512-000000000000.so" not in files or not built
    expected = {f"{variant}-{build.source_digest()}.so" for variant in built} | {"another.so"}
    assert {file for file in files if "0000" not in file} == expected
    assert capsys.readouterr().out == (
        "Native engine: built for avx512 and amx.\n"
        if built
        else f"Native engine: not built, because there is no C++ compiler (g++). {NOT_BUILT}"
    )
    runs_here = bool(built) and "avx512_bf16" in cpu.numeric_instruction_sets()
    assert (best_library() is not None) == runs_here
    assert ("native-bf16" in engines.list_auto_engine_candidates()) == runs_here


def test_libraries_of_older_sources_are_removed(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a compiler that writes empty files."""
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\n: > "$2"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", f"env {compiler}")  # as with `ccache g++`
    folder.mkdir()
    for name in ("avx512-000000000000.so", "amx-000000000000.so", "another.so"):
        (folder / name).touch()
    assert build.main([]) == 0
    digest = build.source_digest()
    assert {file.name for file in folder.iterdir()} == {
        f"avx512-{digest}.so", f"amx-{digest}.so", "another.so",
    }  # fmt: skip
    assert capsys.readouterr().out == "Native engine: built for avx512 and amx.\n"


def test_a_compiler_that_fails_is_reported(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "false")
    assert build.main([]) == 0
    assert capsys.readouterr().out == (
        f"Native engine: avx512 was not built: {shutil.which('false')} failed\n"
        f"Native engine: amx was not built: {shutil.which('false')} failed\n"
        f"Native engine: not built. {NOT_BUILT}"
    )
    assert list(folder.iterdir()) == []


def test_without_a_compiler_one_line_says_so(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "lora_core.fast.native.build", tmp_path / "elsewhere"],
        env={**os.environ, "PATH": "", "CXX": "g++"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stdout == (
        f"Native engine: not built, because there is no C++ compiler (g++). {NOT_BUILT}"
    )
    assert result.stderr == ""
    assert not (tmp_path / "elsewhere").exists()


def test_other_processors_get_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert build.main([]) == 0
    assert capsys.readouterr().out == (
        f"Native engine: not built, because it is for x86-64 processors. {NOT_BUILT}"
    )


def test_a_processor_without_the_instructions_does_not_load_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variant in build.VARIANTS:  # empty: one that is loaded fails
        build.library_file(variant).parent.mkdir(exist_ok=True)
        build.library_file(variant).touch()
    monkeypatch.setattr(cpu, "numeric_instruction_sets", lambda: ["avx2", "avx512f"])
    assert best_library() is None
    assert "native-bf16" not in engines.list_auto_engine_candidates()
    with pytest.raises(
        EngineUnavailable,
        match=r"native-bf16 requires .*AVX512-BF16.*python -m lora_core.fast.native.build",
    ):
        engines.get_available_engine_spec("native-bf16")
