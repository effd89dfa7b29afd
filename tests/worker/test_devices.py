"""Device selection."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.queue.enums import DeviceClass
from worker import devices
from worker.devices import CPU, Device
from worker.failures import GpuDriverFailed, GpuInstanceUnsupported, GpuMissing

FIRST = Device("cuda:0", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6")
SECOND = Device("cuda:1", "GPU-8932aaaa-0000-4106-c12f-20bd9faed9f7")

Driver = Callable[[str], None]


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Put a scripted `nvidia-smi` on the PATH."""

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


def test_without_driver_the_cpu_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert devices.select_devices(("auto",), {}) == (CPU,)
    assert CPU.device_class is DeviceClass.CPU


def test_driver_without_gpus_is_not_an_error(driver: Driver) -> None:
    driver("echo No devices were found")
    assert devices.select_devices(("auto",), {}) == (CPU,)


@pytest.mark.parametrize(
    "script", ["echo NVML mismatch; exit 18", "echo NVML mismatch >&2; exit 9"]
)
@pytest.mark.parametrize("name", ["auto", "cuda:0"])
def test_driver_failure_does_not_fall_back_to_the_cpu(
    driver: Driver, script: str, name: str
) -> None:
    driver(script)
    with pytest.raises(GpuDriverFailed, match=r"NVML mismatch\. .* LORAWORKS_DEVICES=cpu"):
        devices.select_devices((name,), {})
    assert devices.select_devices(("cpu",), {}) == (CPU,)


@pytest.mark.usefixtures("two_gpus")
def test_auto_selects_all_gpus_and_no_cpu() -> None:
    assert devices.select_devices(("auto",), {}) == (FIRST, SECOND)
    assert FIRST.device_class is DeviceClass.GPU


@pytest.mark.usefixtures("two_gpus")
def test_devices_are_selected_once_in_the_given_order() -> None:
    assert devices.select_devices(("cpu",), {}) == (CPU,)
    assert devices.select_devices(("cuda:1", "cpu", "cuda:1"), {}) == (SECOND, CPU)


@pytest.mark.usefixtures("two_gpus")
def test_missing_gpu_error_lists_available_devices() -> None:
    with pytest.raises(GpuMissing, match=r"names cuda:7.*Available: cuda:0, cuda:1, cpu\."):
        devices.select_devices(("cuda:0", "cuda:7"), {})


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
    ],
)
def test_hidden_gpus_are_not_used(listed: str, expected: tuple[Device, ...]) -> None:
    assert devices.select_devices(("auto",), {"CUDA_VISIBLE_DEVICES": listed}) == expected


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("name", ["auto", "cuda:0"])
def test_gpu_instance_does_not_fall_back_to_the_cpu(name: str) -> None:
    with pytest.raises(GpuInstanceUnsupported, match=r"names MIG-1234, .* LORAWORKS_DEVICES=cpu"):
        devices.select_devices((name,), {"CUDA_VISIBLE_DEVICES": "MIG-1234"})
    assert devices.select_devices(("cpu",), {"CUDA_VISIBLE_DEVICES": "MIG-1234"}) == (CPU,)


@pytest.mark.usefixtures("two_gpus")
def test_hidden_gpu_cannot_be_selected() -> None:
    with pytest.raises(GpuMissing, match=r"names cuda:0.*Available: cuda:1, cpu\."):
        devices.select_devices(("cuda:0",), {"CUDA_VISIBLE_DEVICES": "1"})
