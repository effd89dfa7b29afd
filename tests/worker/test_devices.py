"""What a machine has to train on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.queue.states import Lane
from worker import devices
from worker.devices import CPU, Device
from worker.failures import GpuDriverFails, GpuMissing

FIRST = Device("cuda:0", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6")
SECOND = Device("cuda:1", "GPU-8932aaaa-0000-4106-c12f-20bd9faed9f7")

Driver = Callable[[str], None]


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Puts an `nvidia-smi` in the way that does what it is told."""

    def install(script: str) -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    return install


@pytest.fixture
def two_gpus(driver: Driver) -> None:
    rows = "".join(f"{each.name[5:]}, {each.uuid}\\n" for each in (FIRST, SECOND))
    driver(f"printf '{rows}'")


def test_a_machine_without_a_driver_trains_on_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert devices.chosen(("auto",), {}) == (CPU,)
    assert CPU.lane is Lane.CPU


def test_a_driver_without_gpus_is_no_error(driver: Driver) -> None:
    driver("echo No devices were found")
    assert devices.chosen(("auto",), {}) == (CPU,)


@pytest.mark.parametrize(
    "script", ["echo NVML mismatch; exit 18", "echo NVML mismatch >&2; exit 9"]
)
@pytest.mark.parametrize("name", ["auto", "cuda:0"])
def test_a_driver_that_fails_is_told_and_does_not_become_the_cpu(
    driver: Driver, script: str, name: str
) -> None:
    driver(script)
    with pytest.raises(GpuDriverFails, match=r"NVML mismatch\. .* LORAWORKS_DEVICES=cpu"):
        devices.chosen((name,), {})
    assert devices.chosen(("cpu",), {}) == (CPU,)


@pytest.mark.usefixtures("two_gpus")
def test_all_gpus_are_taken_and_then_no_cpu() -> None:
    assert devices.chosen(("auto",), {}) == (FIRST, SECOND)
    assert FIRST.lane is Lane.GPU


@pytest.mark.usefixtures("two_gpus")
def test_the_settings_choose_each_device_once_in_their_order() -> None:
    assert devices.chosen(("cpu",), {}) == (CPU,)
    assert devices.chosen(("cuda:1", "cpu", "cuda:1"), {}) == (SECOND, CPU)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_is_not_there_is_an_error_that_names_those_that_are() -> None:
    with pytest.raises(GpuMissing, match=r"names cuda:7.*It sees: cuda:0, cuda:1, cpu\."):
        devices.chosen(("cuda:0", "cuda:7"), {})


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("1", (SECOND,)),
        ("1,0", (SECOND, FIRST)),
        ("GPU-8932f", (FIRST,)),
        (str(SECOND.uuid), (SECOND,)),
        ("1,7,0", (SECOND,)),
        ("GPU-8932", (CPU,)),
        ("-1", (CPU,)),
        ("", (CPU,)),
        ("MIG-1234", (CPU,)),
    ],
)
def test_gpus_that_are_hidden_are_not_used(listed: str, expected: tuple[Device, ...]) -> None:
    assert devices.chosen(("auto",), {"CUDA_VISIBLE_DEVICES": listed}) == expected


@pytest.mark.usefixtures("two_gpus")
def test_a_hidden_gpu_cannot_be_chosen() -> None:
    with pytest.raises(GpuMissing, match=r"names cuda:0.*It sees: cuda:1, cpu\."):
        devices.chosen(("cuda:0",), {"CUDA_VISIBLE_DEVICES": "1"})
