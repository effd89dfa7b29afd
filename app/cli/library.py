"""Commands of `lora_core` on this machine, in a process of their own: torch stays out of this."""

import subprocess
import sys

from app.cli.errors import RunFailed
from lora_core.events import Failed, parse_event

PROGRAM = (sys.executable, "-P", "-m", "lora_core")
LOG_TAIL = 5  # lines


def library(*arguments: str) -> None:
    """Run `python -m lora_core` with these arguments. Raises `RunFailed`."""
    done = subprocess.run(
        [*PROGRAM, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode == 0:
        return
    last = parse_event(done.stdout.splitlines()[-1]) if done.stdout else None
    if isinstance(last, Failed):
        raise RunFailed(last.message, last.code)
    log = done.stderr.decode("utf-8", "replace")
    raise RunFailed(f"it ended with status {done.returncode}: {tail(log)}", "crashed")


def tail(log: str) -> str:
    """The end of what a process wrote, on one line."""
    return " | ".join(log.splitlines()[-LOG_TAIL:])
