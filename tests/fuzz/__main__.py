"""Fuzz the readers of bytes from outside, one after the other, with atheris.

    python -m tests.fuzz [--minutes 1] [--only READER ...]

Each reader has a process of its own, with limits on memory and on the time for one input. It begins
with its kept corpus and with what earlier runs found (build/fuzz). An input that crashes a reader
ends its run and is kept in crashes/READER: with the fix it is committed, and the suite replays it.
A target that ends in another way, such as at an import, is an error.
The minutes of all runs add up in minutes.json. The last line is one JSON object.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time

from tests.fuzz.readers import (
    CORPUS,
    CRASHES,
    HERE,
    MEMORY_MB,
    MINUTES,
    READERS,
    TIMEOUT_SECONDS,
)

FOUND = HERE.parents[1] / "build" / "fuzz"
TARGET = (sys.executable, "-m", "tests.fuzz.target")
# As in the processes of the service that read uploads (app/sandbox/runner.py).
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def main() -> int:
    arguments = _parser().parse_args()
    total = 0.0
    for name in arguments.only or READERS:
        minutes = fuzz(name, seconds=round(60 * arguments.minutes))
        _add_minutes(name, minutes)
        total += minutes
    open_ = sum(count_open_crashes(name) for name in READERS)
    line = {"readers": len(arguments.only or READERS), "minutes": round(total, 1)}
    sys.stdout.write(json.dumps({**line, "crashes_open": open_}) + "\n")
    return 1 if open_ else 0


class NothingFuzzed(Exception):
    """A target ended by itself: it read no input, or died without one that crashed its reader."""


def fuzz(name: str, *, seconds: int) -> float:
    """Fuzz one reader until the time is over or an input crashes it. Return the minutes it took.

    Raises `NothingFuzzed`.
    """
    found, crashes = FOUND / name, CRASHES / name
    for directory in (found, crashes):
        directory.mkdir(parents=True, exist_ok=True)
    options = (
        f"-max_total_time={seconds}",
        f"-timeout={TIMEOUT_SECONDS}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={crashes}/",
        "-print_final_stats=1",
        "-keep_seed=1",  # valid files reach the same lines: all but the shortest would be dropped
        "-len_control=0",  # and the first inputs would be shorter than any of them
    )
    started = time.monotonic()
    command = [*TARGET, name, *options, *map(str, (found, CORPUS / name, crashes))]
    log = FOUND / f"{name}.log"
    with log.open("wb") as output:
        status = subprocess.run(
            command, stdout=output, stderr=output, env=os.environ | ONE_THREAD
        ).returncode
    if not any(crashes.iterdir()):
        crashes.rmdir()
    reported = log.read_bytes()  # what libFuzzer writes at its end
    found_crash = b"Test unit written to" in reported
    inputs = int((re.findall(rb"number_of_executed_units: *(\d+)", reported) or [0])[-1])
    if not found_crash and (status or not inputs):
        raise NothingFuzzed(f"{name} ended with status {status} after {inputs} inputs: see {log}")
    minutes = min(time.monotonic() - started, seconds) / 60  # a busy machine takes minutes to load
    sys.stderr.write(f"{name}: {minutes:.1f} minutes, status {status}, {inputs:,} inputs\n")
    return minutes


def count_open_crashes(name: str) -> int:
    """Return how many kept crashes a reader still has. An end of the process counts as one."""
    if not (CRASHES / name).is_dir():
        return 0
    replay = [sys.executable, "-m", "tests.fuzz.replay", name]
    done = subprocess.run(replay, stdout=subprocess.PIPE, text=True)
    sys.stderr.write("".join(f"{line}\n" for line in done.stdout.splitlines()[:-1]))
    last = done.stdout.splitlines()[-1:]
    return int(json.loads(last[0])["crashes"]) if last and done.returncode in (0, 1) else 1


def _add_minutes(name: str, minutes: float) -> None:
    kept = json.loads(MINUTES.read_text()) if MINUTES.exists() else {}
    kept[name] = round(kept.get(name, 0.0) + minutes, 1)
    MINUTES.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="for each reader")
    parser.add_argument("--only", nargs="+", choices=READERS, default=(), metavar="READER")
    return parser


if __name__ == "__main__":
    sys.exit(main())
