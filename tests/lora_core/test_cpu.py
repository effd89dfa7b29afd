"""CPU features, which determine the precision of a run."""

from pathlib import Path

import pytest

from lora_core import cpu

INTEL, AMD = "GenuineIntel", "AuthenticAMD"


@pytest.mark.parametrize(
    ("maker", "flags", "fast"),
    [
        (INTEL, "avx2 avx512f avx512_bf16 amx_bf16 amx_tile", True),
        (INTEL, "avx2 avx512f avx512_bf16", False),  # supported, but slow
        (AMD, "avx2 avx512f avx512_bf16", True),
        (AMD, "avx2 avx512f", False),
        (AMD, "avx2", False),
    ],
)
def test_bf16_is_fast_on_the_measured_cpus(
    maker: str, flags: str, fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = (
        f"processor\t: 0\nvendor_id\t: {maker}\nmodel name\t: One: a name\nflags\t\t: fpu {flags}\n"
    )
    file = tmp_path / "cpuinfo"
    file.write_text(f"{first}\nmodel name\t: Two\nflags\t\t: amx_bf16\n")
    monkeypatch.setattr(cpu, "_CPUINFO", file)
    assert cpu.has_fast_bf16() is fast
    assert cpu.model_name() == "One: a name"
    assert cpu.numeric_instruction_sets() == sorted(flags.split())


def test_missing_cpuinfo_gives_a_name_and_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "none")
    assert cpu.model_name()
    assert cpu.numeric_instruction_sets() == []
    assert not cpu.has_fast_bf16()
