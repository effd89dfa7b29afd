"""How often the kernel ended a process of this service or container because memory ran out."""

from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def kills(root: Path = _ROOT, own: Path = _OWN) -> int:
    """Counts up. 0 where the machine does not say, as without cgroups of version 2."""
    for directory in (root / _path(own), root):  # a container may see its own alone, as the root
        try:
            lines = (directory / "memory.events").read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    return 0


def _path(own: Path) -> str:
    """Where our group is below the root."""
    try:
        lines = own.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line[4:] for line in lines if line.startswith("0::/")), "")
