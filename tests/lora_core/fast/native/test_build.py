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
from tests.lora_core.fast.native.libraries import libraries

HAS_COMPILER = shutil.which("g++") is not None
NOT_BUILT = "Models are computed by torch.\n"
AVX512 = build.VARIANTS["avx512"][0]


@pytest.fixture(autouse=True)
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Path]:
    caplog.set_level("WARNING", logger="lora_core")  # a service of another test may have raised it
    monkeypatch.setattr(build, "BUILD_DIR", tmp_path / "build")
    best_library.cache_clear()
    yield tmp_path / "build"
    best_library.cache_clear()


def _write_broken_libraries() -> None:
    for variant in build.VARIANTS:
        build.library_file(variant).parent.mkdir(exist_ok=True)
        build.library_file(variant).touch()


@pytest.mark.parametrize("compiler", [HAS_COMPILER])
def test_variants_are_compared_with_torch_where_there_is_a_compiler(compiler: bool) -> None:
    """Without one, `conftest.py` leaves out the tests that compute with them."""
    if compiler:
        assert {"portable"} <= set(libraries())
    else:
        with pytest.raises(build.CompilerMissing):
            libraries()


@pytest.mark.slow  # compiles each, which takes 3 s
def test_builds_each_variant_and_removes_those_of_older_sources(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir()
    (folder / "avx512-000000000000.so").write_bytes(b"")
    (folder / "another.so").write_bytes(b"")
    assert build.main([]) == 0
    built = ["amx", "avx512"] if HAS_COMPILER else []
    files = sorted(file.name for file in folder.glob("*.so"))
    assert "avx512-000000000000.so" not in files or not built
    expected = {f"{variant}-{build.source_digest()}.so" for variant in built} | {"another.so"}
    assert {file for file in files if "0000" not in file} == expected
    assert capsys.readouterr().out == (
        "Native engine: built for avx512 and amx.\n"
        if built
        else f"Native engine: not built, because there is no C++ compiler (g++). {NOT_BUILT}"
    )
    runs_here = bool(built) and set(AVX512).issubset(cpu.numeric_instruction_sets())
    assert (best_library() is not None) == runs_here
    assert ("native-bf16" in engines.list_auto_engine_candidates()) == runs_here


@pytest.mark.slow  # compiles a variant
@pytest.mark.parametrize(
    "runs_here", [HAS_COMPILER and set(AVX512).issubset(cpu.numeric_instruction_sets())]
)
def test_the_next_variant_is_taken_where_one_does_not_load(
    runs_here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_broken_libraries()
    monkeypatch.setattr(cpu, "numeric_instruction_sets", lambda: [*AVX512, "amx_bf16", "amx_tile"])
    if runs_here:
        build.compile_variant("avx512", build.library_file("avx512"))
    name = None if (library := best_library()) is None else library.name.split()[0]
    assert name == (build.library_file("avx512").stem if runs_here else None)


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


@pytest.mark.parametrize("missing", ["avx512_bf16", "avx512vl"])
def test_a_processor_without_the_instructions_does_not_load_it(
    missing: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_broken_libraries()
    available = [name for name in (*AVX512, "amx_bf16", "amx_tile") if name != missing]
    monkeypatch.setattr(cpu, "numeric_instruction_sets", lambda: available)
    assert best_library() is None
    assert caplog.messages == []
    assert "native-bf16" not in engines.list_auto_engine_candidates()
    with pytest.raises(
        EngineUnavailable,
        match=r"native-bf16 requires .*AVX512-BF16.*python -m lora_core.fast.native.build",
    ):
        engines.get_available_engine_spec("native-bf16")


def test_torch_computes_where_no_library_loads(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty files; a folder mounted with noexec or a missing libstdc++ fail in the same way."""
    _write_broken_libraries()
    monkeypatch.setattr(cpu, "numeric_instruction_sets", lambda: [*AVX512, "amx_bf16", "amx_tile"])
    assert "native-bf16" not in engines.list_auto_engine_candidates()
    assert best_library() is None
    assert len(caplog.messages) == 2
    for variant, message in zip(("amx", "avx512"), caplog.messages, strict=True):
        assert f"{build.library_file(variant)} was not loaded, so torch" in message
        assert "file too short" in message


def test_libraries_of_other_sources_are_reported(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an update of the sources without `make install`."""
    folder.mkdir()
    (folder / "avx512-000000000000.so").touch()
    monkeypatch.setattr(cpu, "numeric_instruction_sets", lambda: [*AVX512, "amx_bf16", "amx_tile"])
    assert best_library() is None
    (message,) = caplog.messages
    assert message.startswith("avx512 was built from other sources, so torch")
    assert "python -m lora_core.fast.native.build" in message


def test_another_flag_or_source_is_another_build(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = build.source_digest()
    monkeypatch.setattr(build, "_FLAGS", (*build._FLAGS, "-ffast-math"))
    assert build.source_digest() != digest
