"""Faults that a test asks for: a run breaks exactly where the test wants it to.

`LORAWORKS_FAULT=point[@n]:action[:FILE]`, read each time a run reaches a point; without the
variable nothing happens. `@n`: only the n-th time that this process gets there. With FILE the
fault acts only while the file exists.

| action | |
|---|---|
| `kill` | SIGKILL to this process; FILE is removed first, so that it happens once |
| `exit139` | the process leaves like one with a segmentation fault; FILE is removed first |
| `enospc` | raises the error of a full disk |
| `pause` | makes FILE.reached, and sleeps until FILE is gone |
"""

import errno
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

VARIABLE = "LORAWORKS_FAULT"
CRASHED = 139  # what a shell reports of a segmentation fault
PAUSE_SECONDS = 0.01  # between two looks at the file

_reached: Counter[str] = Counter()


def reach(point: str) -> None:
    """The run is here. Raises `OSError` for `enospc`, `ValueError` for a fault nobody knows."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    place, action, file = [*wanted.split(":", 2), "", ""][:3]
    name, _, count = place.partition("@")
    if action not in _ACTIONS or (count and not count.isdecimal()):
        raise ValueError(f"{VARIABLE}={wanted!r}: not point[@n]:action[:FILE]")
    if name != point:
        return
    _reached[point] += 1
    if (not count or _reached[point] == int(count)) and (not file or Path(file).exists()):
        _ACTIONS[action](Path(file) if file else None)


def _kill(once: Path | None) -> None:
    _forget(once)
    os.kill(os.getpid(), signal.SIGKILL)


def _crash(once: Path | None) -> NoReturn:
    _forget(once)
    os._exit(CRASHED)


def _fill_disk(_: Path | None) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _pause(until: Path | None) -> None:
    if until is None:
        return
    until.with_name(f"{until.name}.reached").touch()
    while until.exists():
        time.sleep(PAUSE_SECONDS)


def _forget(file: Path | None) -> None:
    if file is not None:
        file.unlink(missing_ok=True)


_ACTIONS: dict[str, Callable[[Path | None], None]] = {
    "kill": _kill,
    "exit139": _crash,
    "enospc": _fill_disk,
    "pause": _pause,
}
