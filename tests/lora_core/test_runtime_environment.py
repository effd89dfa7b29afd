"""The recorded environment of a run, and differences between two."""

import platform
from dataclasses import replace

import pytest
import torch

from lora_core import runtime_environment
from lora_core.fast.native.library import best_library
from lora_core.runtime import Runtime

MACHINE = Runtime(device="cpu", precision="fp32", threads=1)


def test_identical_environments_have_no_differences() -> None:
    here = runtime_environment.describe_environment(MACHINE, 4096)
    assert runtime_environment.describe_environment_changes(here, dict(here)) == []
    assert here["torch"] == torch.__version__
    assert here["python"] == platform.python_version()
    assert all(here.values()), "everything is known here"


def test_different_threads_and_precision_are_listed() -> None:
    one = runtime_environment.describe_environment(MACHINE, 4096)
    two = runtime_environment.describe_environment(
        replace(MACHINE, threads=2, precision="bf16"), 2048
    )
    library = best_library()
    kernel = "unfused in steps of 16" if library is None else f"native {library.name}"
    assert runtime_environment.describe_environment_changes(two, one) == [
        "threads 2 → 1",
        "precision bf16 → fp32",
        "micro_batch_tokens 2048 → 4096",
        f"attention {kernel} → none",
    ]


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        ({"torch": "2.13.0"}, {"torch": "2.14.0"}, ["torch 2.13.0 → 2.14.0"]),
        (
            {"instructions": "avx avx2 fma"},
            {"instructions": "avx fma"},
            ["instructions avx2 → none"],
        ),
        ({"device": "cpu"}, {"device": "NVIDIA H100"}, ["device cpu → NVIDIA H100"]),
        ({}, {"driver": "NVRM 570"}, ["driver none → NVRM 570"]),  # not recorded by older versions
        ({"driver": "NVRM 570"}, {}, ["driver NVRM 570 → none"]),
        ({}, {"processes": "2"}, ["processes 1 → 2"]),
        ({"processes": "4"}, {"processes": "2"}, ["processes 4 → 2"]),
        ({}, {"training": "2"}, ["training 1 → 2"]),
    ],
)
def test_difference_is_described_briefly(
    then: dict[str, str], now: dict[str, str], expected: list[str]
) -> None:
    assert runtime_environment.describe_environment_changes(then, now) == expected
