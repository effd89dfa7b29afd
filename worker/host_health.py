"""How often the kernel ended a process of this service or container because memory ran out."""

from pathlib import Path

from app.errors import AppError
from app.resources import Resources
from worker import workdir

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


# MERGED worker.host_health
# Whether jobs can run on this machine now: its data folder, its disk, and the store.


class HostCheck:
    """Shared by the parts of a worker. The store is only asked while there is reason to doubt it:
    with object storage each look is a paid request.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._doubted = False
        self._away: AppError | None = None  # what the store said last

    def doubt_store(self) -> None:
        """A job has just met something that cannot be used."""
        self._doubted = True

    def look(self) -> AppError | None:
        """The same as `trouble`, but asks a store that is in doubt, which may take its time."""
        if self._doubted:
            try:
                self._resources.store.check()
            except AppError as error:
                self._away = error
            else:
                self._doubted, self._away = False, None
        return self.trouble()

    def trouble(self) -> AppError | None:
        """Why no job could run here now, as far as is known."""
        return workdir.trouble(self._resources.settings) or self._away
