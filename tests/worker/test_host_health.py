"""Counting out-of-memory kills in cgroups, and checks of a store after trouble."""

from pathlib import Path

import pytest

from app.resources import Resources
from app.storage.errors import StorageUnavailable
from worker.host_health import HostHealthChecker, oom_kill_count

KILLED = "low 0\noom 4\noom_kill 3\noom_group_kill 0\n"


@pytest.mark.parametrize(
    ("own", "group"),
    [
        ("0::/system.slice/loraworks.service\n", "system.slice/loraworks.service"),
        ("0::/\n", ""),  # a container that is given its own group as the root
        ("0::/system.slice/docker-1.scope\n", ""),  # one that only sees its own
        ("1:name=systemd:/elsewhere\n0::/user.slice\n", "user.slice"),
    ],
)
def test_oom_kills_of_own_cgroup_are_counted(tmp_path: Path, own: str, group: str) -> None:
    (tmp_path / group).mkdir(parents=True, exist_ok=True)
    (tmp_path / group / "memory.events").write_text(KILLED)
    (tmp_path / "cgroup").write_text(own)
    assert oom_kill_count(tmp_path, tmp_path / "cgroup") == 3


def test_without_cgroups_the_count_is_zero(tmp_path: Path) -> None:
    assert oom_kill_count(tmp_path, tmp_path / "cgroup") == 0
    assert oom_kill_count() >= 0


def test_trouble_with_the_store_outweighs_an_earlier_check(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources.store.check_health()  # it passes, and is cached for some seconds

    def fail() -> float:
        raise StorageUnavailable(reason="it is gone")

    health = HostHealthChecker(resources)
    with monkeypatch.context() as patch:
        patch.setattr(resources.store, "read_clock", fail)
        assert health.find_problem() is None  # without trouble, nothing is checked
        health.request_store_check()
        assert isinstance(health.find_problem(), StorageUnavailable)
    health.request_store_check()
    assert health.find_problem() is None


def test_a_check_requested_during_another_is_done(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = HostHealthChecker(resources)
    health.request_store_check()
    with monkeypatch.context() as patch:
        patch.setattr(resources.store, "check_health", health.request_store_check)
        assert health.find_problem() is None

    def fail() -> float:
        raise StorageUnavailable(reason="it is gone")

    monkeypatch.setattr(resources.store, "read_clock", fail)
    assert isinstance(health.find_problem(), StorageUnavailable)
