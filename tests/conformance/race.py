"""Processes that claim jobs as fast as they can, all at once."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

SCRIPT = Path(__file__).with_name("claim_all.py")


class Claim(NamedTuple):
    """One that a process made."""

    process: int
    job_id: str
    attempt: int
    seconds: float


def race(database_url: str, *, jobs: int, processes: int) -> list[Claim]:
    """All claims, of `processes` that begin together. None can have more than three shares in two.

    Raises `AssertionError` if one of them fails.
    """
    share = str(jobs * 3 // (processes * 2))
    with ExitStack() as stack:
        racers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, str(SCRIPT), database_url, f"worker-{number}", share],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for number in range(processes)
        ]
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.close()
            racer.stdin = None
        return [claim for number, racer in enumerate(racers) for claim in _claims(number, racer)]


def _claims(number: int, racer: subprocess.Popen[str]) -> list[Claim]:
    """What one of them printed until its end."""
    output, errors = racer.communicate(timeout=100)
    assert (racer.returncode, errors) == (0, "")
    rows = [line.split() for line in output.splitlines()]
    return [Claim(number, row[0], int(row[1]), float(row[2])) for row in rows]
