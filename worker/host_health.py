"""The health of this host: data directory, disk space, store, and out-of-memory kills."""

from pathlib import Path

from app.errors import AppError
from app.resources import Resources
from lora_core.process_settings import CGROUP_ROOT, OWN_CGROUP, read_cgroup_files
from worker import workdir


def oom_kill_count(root: Path = CGROUP_ROOT, own_cgroup: Path = OWN_CGROUP) -> int:
    """Return how many processes of this cgroup the kernel has killed for lack of memory.

    It counts the processes of all jobs of this worker. 0 if unknown, as without cgroups v2.
    """
    own, *_ = [*read_cgroup_files("memory.events", root, own_cgroup), ""]
    kills = (line.split()[1] for line in own.splitlines() if line.startswith("oom_kill "))
    return int(next(kills, 0))


class HostHealthChecker:
    """Whether jobs can run on this host now. Shared by the parts of a worker.

    The store is checked only after a job had trouble with it: with object storage, each check is a
    paid request.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._store_suspect = False
        self._store_error: AppError | None = None  # from the last check

    def request_store_check(self) -> None:
        """Have the next `find_problem` check the store, because a job has just had trouble."""
        self._resources.store.forget_health_check()  # it may have passed just before the trouble
        self._store_suspect = True

    def find_problem(self) -> AppError | None:
        """As `find_problem_without_store_check`, but check a suspected store first; may be slow."""
        if self._store_suspect:
            self._store_suspect = False  # before the check: a job may ask for another during it
            try:
                self._resources.store.check_health()
            except AppError as error:
                self._store_suspect, self._store_error = True, error
            else:
                self._store_error = None
        return self.find_problem_without_store_check()

    def find_problem_without_store_check(self) -> AppError | None:
        """Return why no job could run here now, as far as is known."""
        return workdir.find_disk_problem(self._resources.settings) or self._store_error
