"""Inject random faults and check that no job is lost, duplicated or changed.

    python -m tests.chaos [--faults 200] [--seed 0] [--minutes M] [--kind embedded|cluster|both]
        [--only FAULT...]

Every run prints its seed; the same seed draws the same faults. The last line is one JSON object.
Real processes, real trainings, real servers. A job counts as lost if it did not succeed, as doubled
if it has more than one effect, as not identical if one number or one byte of its model differs from
the run of its twin, to which nothing happened. A job that was cancelled or ran out of time is
retried through the API, and its retry counts in its place. Answers are changed if a model answers
otherwise after a hostile import than before. Two annotators label all the time: a label is lost if
it was acknowledged and is not stored as it was sent, doubled if two people got the same text.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.chaos.faults import CLUSTER, EVERYWHERE, LIMIT_SECONDS, Fault
from tests.chaos.scene import BODIES, Counts, Scene
from tests.e2e.installation import Installation
from tests.servers import PostgresServer, ValkeyServer

WORKERS = 2
WAITING_JOBS = 3  # kept in the queue or running


def main() -> int:
    arguments = _parser().parse_args()
    began = time.monotonic()
    kinds = ["embedded", "cluster"] if arguments.kind == "both" else [arguments.kind]
    total = Counts()
    for number, kind in enumerate(kinds):
        faults = arguments.faults // len(kinds)
        seconds = None if arguments.minutes is None else arguments.minutes * 60 / len(kinds)
        _say(f"{kind}: seed {arguments.seed}")
        seed = arguments.seed + number
        total += run(kind, faults=faults, seed=seed, seconds=seconds, only=arguments.only)
    seconds = round(time.monotonic() - began, 1)
    sys.stdout.write(json.dumps(asdict(total) | {"seconds": seconds}) + "\n")
    return 0 if total.clean else 1


def run(
    kind: str,
    *,
    faults: int,
    seed: int,
    seconds: float | None = None,
    jobs: Sequence[str] = tuple(BODIES),
    only: Sequence[str] = (),
) -> Counts:
    """Inject `faults` faults, or as many as fit into the time. `only` names those to draw from."""
    draw = random.Random(seed)
    with ExitStack() as stack:
        scene = open_scene(kind, draw, stack, jobs)
        scene.rehearse()
        menu: list[Fault] = [*EVERYWHERE, *(CLUSTER if scene.postgres else [])]
        menu = [fault for fault in menu if not only or fault.__name__ in only]
        until = time.monotonic() + (seconds or float("inf"))
        done = 0
        while (done < faults or seconds is not None) and time.monotonic() < until:
            scene.submit_up_to(WAITING_JOBS)
            scene.keep_up(WORKERS)
            time.sleep(draw.uniform(0.3, 6))
            fault = draw.choice(menu)
            if fault(scene):
                done += 1
                _say(f"{done}: {fault.__name__}")
        scene.heal(WORKERS)
        counts = scene.judge()
        counts.faults = done
        return counts


def open_scene(
    kind: str,
    draw: random.Random,
    stack: ExitStack,
    jobs: Sequence[str] = tuple(BODIES),
    **settings: Any,
) -> Scene:
    """Make an installation that `stack` removes."""
    folder = Path(tempfile.mkdtemp(prefix="loraworks-chaos-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    postgres = valkey = None
    urls: dict[str, Any] = {}
    if kind == "cluster":
        postgres, valkey = PostgresServer(), ValkeyServer()
        for server in (postgres, valkey):
            stack.callback(server.remove)
            server.start()
        urls = {"database_url": postgres.new_database(), "broker_url": valkey.url()}
    # Limits that the outages outlast. Of `max_failures` the default holds.
    changes = {"lease_seconds": LIMIT_SECONDS, "hub_timeout_seconds": 2, "checkpoint_seconds": 0}
    installation = Installation(folder, **urls, changes=changes | settings)
    stack.callback(installation.close)
    scene = Scene(installation, draw, postgres, valkey, jobs)
    stack.callback(scene.annotators.stop)
    return scene


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="go on for so long instead")
    parser.add_argument("--kind", choices=["embedded", "cluster", "both"], default="both")
    names = sorted({fault.__name__ for fault in (*EVERYWHERE, *CLUSTER)})
    parser.add_argument("--only", nargs="+", choices=names, default=(), metavar="FAULT")
    return parser


if __name__ == "__main__":
    sys.exit(main())
