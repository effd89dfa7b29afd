"""Counting out-of-memory kills in cgroups."""

from pathlib import Path

import pytest

from worker.host_health import oom_kill_count

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
