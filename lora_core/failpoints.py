"""Failpoints: let a test make a run fail at an exact point.

`LORAWORKS_FAULT=point[@n]:action[:FILE]` is read each time a run reaches a failpoint. Without the
variable nothing happens. `@n`: only the n-th time that this process reaches it. With FILE, only
while the file exists.

| action | |
|---|---|
| `kill` | SIGKILL to this process; FILE is removed first, so that it happens once |
| `exit139` | the process exits with the status of a segmentation fault; FILE is removed first |
| `enospc` | raises the `OSError` of a full disk |
| `pause` | creates FILE.reached, and sleeps until FILE is deleted |
"""

import errno
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ENV_VARIABLE = "LORAWORKS_FAULT"
_SEGFAULT_STATUS = 139  # exit status that a shell reports for a segmentation fault
PAUSE_SECONDS = 0.01  # between two checks of the file

_hits: Counter[str] = Counter()


def failpoint(point: str) -> None:
    """Fail here if the environment variable says so.

    Raises `OSError` for `enospc`, `ValueError` for an invalid value of the variable.
    """
    fault = os.environ.get(ENV_VARIABLE)
    if not fault:
        return
    position, action, file = _split(fault)
    name, _, count = position.partition("@")
    if action not in _ACTIONS or (count and not count.isdecimal()):
        raise ValueError(f"{ENV_VARIABLE}={fault!r}: not point[@n]:action[:FILE]")
    if name != point:
        return
    _hits[point] += 1
    if (not count or _hits[point] == int(count)) and (not file or Path(file).exists()):
        _ACTIONS[action](Path(file) if file else None)


def failpoint_file_directory() -> Path | None:
    """Return the directory of FILE, which a confined process must be able to change."""
    _, _, file = _split(os.environ.get(ENV_VARIABLE, ""))
    return Path(file).parent if file else None


def _split(fault: str) -> list[str]:
    """Return position, action and FILE; what is left out is empty."""
    return [*fault.split(":", 2), "", ""][:3]


def _kill(file: Path | None) -> None:
    _delete(file)
    os.kill(os.getpid(), signal.SIGKILL)


def _crash(file: Path | None) -> NoReturn:
    _delete(file)
    os._exit(_SEGFAULT_STATUS)


def _fill_disk(_: Path | None) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _pause(file: Path | None) -> None:
    if file is None:
        return
    file.with_name(f"{file.name}.reached").touch()
    while file.exists():
        time.sleep(PAUSE_SECONDS)


def _delete(file: Path | None) -> None:
    if file is not None:
        file.unlink(missing_ok=True)


_ACTIONS: dict[str, Callable[[Path | None], None]] = {
    "kill": _kill,
    "exit139": _crash,
    "enospc": _fill_disk,
    "pause": _pause,
}
