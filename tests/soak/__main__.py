"""Use everything for hours, with a fault every minute, and tell how fast memory and disk grow.

    python -m tests.soak [--hours 2] [--seed 0] [--kind embedded|cluster]

Real processes, real trainings, real servers, and the faults of `tests.chaos`. The API and one
worker with its fork server must live through the whole run; faults that kill a worker hit a second
one, and none kills a fork server. Every 10 s the memory and the open file descriptors of these
three are read, the size of the data folder, and the number of jobs that have ended. The last line
is one JSON object. It has the upper bounds of 95% of the slopes, the largest of the three
processes; the run fails if one is above its limit, or if a job or label was lost, duplicated or
changed. With PostgreSQL, the size of its database is not counted.
"""

import argparse
import json
import os
import random
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from app.queue.enums import JobState
from app.queue.tables import Job
from tests.chaos.__main__ import WAITING_JOBS, open_scene
from tests.chaos.faults import (
    CLUSTER,
    EVERYWHERE,
    Fault,
    freeze_fork_server,
    kill_api,
    kill_api_between_two_keys,
    kill_fork_server,
    kill_fork_server_and_training,
    roll_back_and_upgrade,
)
from tests.chaos.scene import Scene
from tests.soak.load import Load
from tests.soak.slopes import fit_slope
from tests.waiting import wait_until
from tests.webhook_receiver import ALLOWED, receiving

SAMPLE_SECONDS = 10.0
FAULT_SECONDS = 60.0
WARM_UP = 1 / 6  # of the run, in which caches fill; not counted
KILL_WHAT_IS_SAMPLED: tuple[Fault, ...] = (
    *(kill_api, kill_api_between_two_keys, roll_back_and_upgrade),
    *(kill_fork_server, freeze_fork_server, kill_fork_server_and_training),
)
# Under a load that no installation has for long: thousands of jobs a day, and a fault a minute.
LIMITS = {
    "rss_mb_per_hour_high": 20.0,
    "rss_kb_per_job_high": 40.0,
    "fds_per_hour_high": 2.0,
    "fds_per_job_high": 0.01,
    "disk_mb_per_hour_high": 800.0,
    "disk_kb_per_job": 400.0,
}
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Sample:
    """What was read at one time."""

    hours: float
    jobs: int  # that have ended
    rss_mb: dict[str, float]  # by process
    fds: dict[str, int]
    disk_kb: float


class Sampler(threading.Thread):
    """Reads a sample every 10 s until `stop`."""

    def __init__(self, scene: Scene, pids: dict[str, int]) -> None:
        super().__init__(name="sampler", daemon=True)
        self.samples: list[Sample] = []
        self._scene, self._pids = scene, pids
        self._stopped = threading.Event()
        self._began = time.monotonic()

    def stop(self) -> None:
        """End."""
        self._stopped.set()
        self.join()

    def run(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            with suppress(Exception):  # the database is down, or a process, which `main` reports
                self.samples.append(self._read())

    def _read(self) -> Sample:
        final = [state for state in JobState if state.final]
        installation = self._scene.installation
        with installation.database.read() as session:
            jobs = session.scalars(select(func.count()).where(Job.state.in_(final))).one()
        return Sample(
            hours=(time.monotonic() - self._began) / 3600,
            jobs=jobs,
            rss_mb={name: _rss_mb(pid) for name, pid in self._pids.items()},
            fds={name: len(os.listdir(f"/proc/{pid}/fd")) for name, pid in self._pids.items()},
            disk_kb=_disk_kb(installation.settings.data_dir),
        )


def main() -> int:
    arguments = _parser().parse_args()
    began = time.monotonic()
    result = run(arguments.kind, hours=arguments.hours, seed=arguments.seed)
    result["seconds"] = round(time.monotonic() - began, 1)
    result["within_limits"] = not (above := above_limits(result))
    for name in above:
        _say(f"{name} is {result[name]}; the limit is {LIMITS[name]}")
    sys.stdout.write(json.dumps(result) + "\n")
    return 0 if result["clean"] and result["within_limits"] else 1


def run(kind: str, *, hours: float, seed: int) -> dict[str, Any]:
    """Run the load and the faults, and return what the last line shows."""
    draw = random.Random(seed)
    with ExitStack() as stack:
        receiver = stack.enter_context(receiving())
        scene = open_scene(kind, draw, stack, webhook_allowed_hosts=",".join(ALLOWED))
        scene.rehearse()
        assert scene.api is not None
        pids = {"api": scene.api.pid, "worker": (worker := scene.start_worker()).pid}
        (pids["fork server"],) = wait_until(
            lambda: scene.installation.fork_servers(worker), seconds=60, what="its fork server"
        )
        load = Load(scene, random.Random(seed), webhook_url=receiver.url)
        sampler = Sampler(scene, pids)
        sampler.start()
        load.start()
        faults = _inject(scene, draw, until=time.monotonic() + hours * 3600)
        sampler.stop()
        load.stop()
        alive = [name for name, pid in pids.items() if _is_running(pid)]
        scene.heal(1)
        counts = scene.judge()
        counts.faults = faults
        clean = counts.clean and len(alive) == len(pids) and not load.problem
        if load.problem:
            _say(f"the load stopped: {load.problem}")
        result = {"hours": hours, "kind": kind, "seed": seed, "clean": clean, **asdict(counts)}
        result |= {"alive": alive, "internal_errors": load.internal_errors}
        result |= {"operations": dict(sorted(load.done.items()))}
        return result | summarize(sampler.samples)


def summarize(samples: list[Sample]) -> dict[str, Any]:
    """Return the slopes after the warm-up: of memory and descriptors those of the process that
    grows faster.
    """
    kept = samples[int(len(samples) * WARM_UP) :]
    hours, jobs = [each.hours for each in kept], [float(each.jobs) for each in kept]
    names = kept[0].rss_mb
    rss = {name: [each.rss_mb[name] for each in kept] for name in names}
    fds = {name: [float(each.fds[name]) for each in kept] for name in names}
    disk = [each.disk_kb for each in kept]
    metrics = {
        "rss_mb_per_hour_high": max(fit_slope(hours, rss[name]).high for name in names),
        "rss_kb_per_job_high": max(fit_slope(jobs, rss[name]).high for name in names) * 1024,
        "fds_per_hour_high": max(fit_slope(hours, fds[name]).high for name in names),
        "fds_per_job_high": max(fit_slope(jobs, fds[name]).high for name in names),
        "disk_mb_per_hour_high": fit_slope(hours, disk).high / 1024,
        "disk_kb_per_job": fit_slope(jobs, disk).high,
    }
    last = {"rss_mb": kept[-1].rss_mb, "fds": kept[-1].fds, "disk_mb": kept[-1].disk_kb / 1024}
    counts = {"samples": len(kept), "jobs_ended": kept[-1].jobs}
    return {name: round(value, 4) for name, value in metrics.items()} | last | counts


def above_limits(result: dict[str, Any]) -> list[str]:
    """Return the names of the bounds that are above their limits, or no numbers."""
    return [name for name, limit in LIMITS.items() if not result[name] <= limit]


def _inject(scene: Scene, draw: random.Random, *, until: float) -> int:
    """Keep jobs coming, and inject a fault every minute; return how many there were."""
    menu = [*EVERYWHERE, *(CLUSTER if scene.postgres else [])]
    menu = [fault for fault in menu if fault not in KILL_WHAT_IS_SAMPLED]
    faults, next_at = 0, time.monotonic() + FAULT_SECONDS
    while (now := time.monotonic()) < until:
        scene.submit_up_to(WAITING_JOBS)
        scene.keep_up(1)
        if now >= next_at and (fault := draw.choice(menu))(scene):
            faults, next_at = faults + 1, next_at + FAULT_SECONDS
            _say(f"{faults}: {fault.__name__}")
        time.sleep(1)
    return faults


def _is_running(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 2**20


def _disk_kb(folder: Path) -> float:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it was removed meanwhile
                total += os.stat(os.path.join(parent, name)).st_blocks * 512
    return total / 1024


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=["embedded", "cluster"], default="embedded")
    return parser


if __name__ == "__main__":
    sys.exit(main())
