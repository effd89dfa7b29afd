"""Run processes that claim jobs concurrently, as fast as they can."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

SCRIPT = Path(__file__).with_name("claim_all.py")


class Claim(NamedTuple):
    """One claim by a process."""

    process: int
    job_id: str
    attempt: int
    seconds: float


def race(database_url: str, *, jobs: int, processes: int) -> list[Claim]:
    """Return all claims of `processes` that start together, each with at most 1.5 times its share.

    Raises `AssertionError` if a process fails.
    """
    max_claims = str(jobs * 3 // (processes * 2))
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, str(SCRIPT), database_url, f"worker-{number}", max_claims],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for number in range(processes)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.close()
            child.stdin = None
        return [claim for number, child in enumerate(children) for claim in _claims(number, child)]


def _claims(number: int, child: subprocess.Popen[str]) -> list[Claim]:
    """Parse what a process printed until it exited."""
    output, errors = child.communicate(timeout=100)
    assert (child.returncode, errors) == (0, "")
    rows = [line.split() for line in output.splitlines()]
    return [Claim(number, row[0], int(row[1]), float(row[2])) for row in rows]
